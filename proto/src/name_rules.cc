#include "name_rules.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "datawire/limits.h"

namespace datawire {
namespace {

std::string_view RuleFor(char refused) {
  switch (refused) {
    case '%':
      return "has a '%': percent-encoding is not allowed";
    case '?':
      return "has a '?': a query is not allowed";
    case '#':
      return "has a '#': a fragment is not allowed";
    case '$':
      return "has a '$': that begins the name of an AMQP node, not of an address";
    default:
      return "";
  }
}

bool IsLabelByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

std::string Invalid(std::string_view what, std::string_view rule, std::string_view shown) {
  std::string message(what);
  message.append(" ").append(rule).append(": ").append(shown);
  return message;
}

}  // namespace

std::string BrokenLabelRule(std::string_view name) {
  if (name.size() > limits::kDomainBytes) {
    return "domain is " + std::to_string(name.size()) + " bytes, at most " +
           std::to_string(limits::kDomainBytes);
  }
  size_t number = 1;
  for (size_t begin = 0; begin <= name.size(); ++number) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view label = name.substr(begin, end - begin);
    const auto broken = [number](const std::string& rule) {
      return "label " + std::to_string(number) + " " + rule;
    };
    begin = end + 1;
    if (label.empty()) return broken("is empty");
    if (label.size() > limits::kLabelBytes) {
      return broken("is " + std::to_string(label.size()) + " bytes, at most " +
                    std::to_string(limits::kLabelBytes));
    }
    const auto bad = std::find_if_not(label.begin(), label.end(), IsLabelByte);
    if (bad != label.end()) {
      return broken("has a '" + std::string(1, *bad) + "', allowed are a-z 0-9 - _");
    }
    if (label.front() == '-' || label.back() == '-') return broken("starts or ends with '-'");
  }
  return "";
}

Status CheckBytes(std::string_view text, std::string_view refused, std::string_view what) {
  const auto bad = std::find_if(text.begin(), text.end(), [refused](unsigned char c) {
    return c <= ' ' || c >= 0x7f || refused.find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (bad == text.end()) return Status::Ok();
  const auto byte = static_cast<unsigned char>(*bad);
  const std::string at = " at byte " + std::to_string(bad - text.begin() + 1);
  std::string rule(RuleFor(*bad));
  if (byte < 0x20 || byte == 0x7f) {
    char hex[8];
    std::snprintf(hex, sizeof hex, "\\x%02x", byte);
    rule = "has the control character " + std::string(hex) + at;
  } else if (byte >= 0x80) {
    rule = "is not ASCII" + at;
  } else if (byte == ' ') {
    rule = "has a space" + at;
  }
  return Status(Code::kInvalid, Invalid(what, rule, ShownName(text)));
}

std::string ShownName(std::string_view text) {
  const size_t slashes = text.find("//");
  const size_t begin = slashes == std::string_view::npos ? 0 : slashes + 2;
  const std::string_view authority = text.substr(begin, text.find('/', begin) - begin);
  const size_t at = authority.rfind('@');
  if (at == std::string_view::npos) return Shown(text);
  std::string redacted(text.substr(0, begin));
  return Shown(redacted.append("...").append(text.substr(begin + at)));
}

bool IsDigits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string_view LastLabel(std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

std::string LowerAscii(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace datawire
