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

Status CheckLabels(std::string_view name, std::string_view what, std::string_view shown) {
  if (name.size() > limits::kDomainBytes) {
    return Status(Code::kInvalid,
                  Invalid(what,
                          "domain is " + std::to_string(name.size()) + " bytes, at most " +
                              std::to_string(limits::kDomainBytes),
                          shown));
  }
  size_t number = 1;
  for (size_t begin = 0; begin <= name.size(); ++number) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view label = name.substr(begin, end - begin);
    const std::string which = "label " + std::to_string(number);
    begin = end + 1;
    if (label.empty()) return Status(Code::kInvalid, Invalid(what, which + " is empty", shown));
    if (label.size() > limits::kLabelBytes) {
      return Status(Code::kInvalid,
                    Invalid(what,
                            which + " is " + std::to_string(label.size()) + " bytes, at most " +
                                std::to_string(limits::kLabelBytes),
                            shown));
    }
    const auto bad = std::find_if_not(label.begin(), label.end(), IsLabelByte);
    if (bad != label.end()) {
      return Status(
          Code::kInvalid,
          Invalid(what, which + " has a '" + std::string(1, *bad) + "', allowed are a-z 0-9 - _",
                  shown));
    }
    if (label.front() == '-' || label.back() == '-') {
      return Status(Code::kInvalid, Invalid(what, which + " starts or ends with '-'", shown));
    }
  }
  return Status::Ok();
}

Status CheckBytes(std::string_view text, std::string_view refused, std::string_view what) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    std::string rule;
    if (byte < 0x20 || byte == 0x7f) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", byte);
      rule = "has the control character " + std::string(hex) + " at byte " + std::to_string(i + 1);
    } else if (byte >= 0x80) {
      rule = "is not ASCII at byte " + std::to_string(i + 1);
    } else if (byte == ' ') {
      rule = "has a space at byte " + std::to_string(i + 1);
    } else if (refused.find(text[i]) != std::string_view::npos) {
      rule = RuleFor(text[i]);
    } else {
      continue;
    }
    return Status(Code::kInvalid, Invalid(what, rule, ShownName(text)));
  }
  return Status::Ok();
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
