#include "datawire/address.h"

#include <algorithm>
#include <string>

#include "datawire/assert.h"
#include "datawire/limits.h"
#include "name_rules.h"

namespace datawire {
namespace {

constexpr std::string_view kSlashes = "//";

Status Refuse(std::string_view rule, std::string_view text) {
  std::string message = "address ";
  message.append(rule).append(": ").append(ShownName(text));
  return Status(Code::kInvalid, std::move(message));
}

Status CheckStart(std::string_view text) {
  if (text.substr(0, 2) == kSlashes) return Status::Ok();
  const size_t colon = text.find("://");
  if (colon == std::string_view::npos) {
    return Refuse("does not start with //, as in //demo/upper", text);
  }
  const std::string scheme = LowerAscii(text.substr(0, colon));
  if (scheme == "amqp" || scheme == "amqps") {
    return Refuse("is a physical endpoint, wanted is a logical name //domain/path", text);
  }
  return Refuse("has a scheme, it starts with // instead", text);
}

Status CheckDomain(std::string_view domain, std::string_view text) {
  if (domain.empty()) return Refuse("has no domain, as in //demo/upper", text);
  if (domain.find('@') != std::string_view::npos) {
    return Refuse("has userinfo ('@' before the first segment), which is not allowed", text);
  }
  if (domain.front() == '[') return Refuse("is an IP literal, wanted is a domain", text);
  if (domain.find(':') != std::string_view::npos) {
    return Status(Code::kInvalid,
                  "a logical address has no port; `amqp://host:5672/x` is a physical endpoint: " +
                      ShownName(text));
  }
  if (const std::string broken = BrokenLabelRule(domain); !broken.empty())
    return Refuse(broken, text);
  if (IsDigits(LastLabel(domain))) {
    const bool dotted_quad = std::count(domain.begin(), domain.end(), '.') == 3 &&
                             domain.find_first_not_of("0123456789.") == std::string_view::npos;
    return Refuse(dotted_quad ? "is an IP literal, wanted is a domain"
                              : "has a last label that is all digits",
                  text);
  }
  return Status::Ok();
}

bool IsSegmentByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~+=,:@").find(c) != std::string_view::npos;
}

Status CheckSegment(std::string_view segment, size_t number, std::string_view text) {
  const auto refuse = [&](const std::string& rule) {
    return Refuse("segment " + std::to_string(number) + " " + rule, text);
  };
  if (segment.empty()) return refuse("is empty");
  if (segment.size() > limits::kSegmentBytes) {
    return refuse("is " + std::to_string(segment.size()) + " bytes, at most " +
                  std::to_string(limits::kSegmentBytes));
  }
  if (segment == "." || segment == "..") {
    return refuse("is '" + std::string(segment) + "', which is not allowed");
  }
  const auto bad = std::find_if_not(segment.begin(), segment.end(), IsSegmentByte);
  if (bad != segment.end()) {
    return refuse("has a '" + std::string(1, *bad) +
                  "', allowed are A-Z a-z 0-9 - . _ ~ + = , : @");
  }
  return Status::Ok();
}

/// Where the first `depth` segments of a canonical address end: at a slash or the end of the text.
size_t EndOf(std::string_view canonical, size_t depth) {
  size_t end = canonical.find('/', kSlashes.size());
  for (size_t i = 0; i < depth && end != std::string_view::npos; ++i) {
    end = canonical.find('/', end + 1);
  }
  return std::min(end, canonical.size());
}

}  // namespace

Result<Address> Address::Parse(std::string_view text) {
  if (text.empty()) return Refuse("is empty, wanted is //domain/path", text);
  std::string_view rest = text;
  if (rest.size() > kSlashes.size() && rest.back() == '/') rest.remove_suffix(1);
  if (rest.size() > limits::kAddressBytes) {
    return Refuse("is " + std::to_string(rest.size()) + " bytes, at most " +
                      std::to_string(limits::kAddressBytes),
                  text);
  }
  DW_RETURN_IF_ERROR(CheckBytes(text, "%?#$", "address"));
  DW_RETURN_IF_ERROR(CheckStart(text));
  rest.remove_prefix(kSlashes.size());

  const size_t domain_end = std::min(rest.find('/'), rest.size());
  const std::string domain = LowerAscii(rest.substr(0, domain_end));
  DW_RETURN_IF_ERROR(CheckDomain(domain, text));

  size_t depth = 0;
  for (size_t slash = domain_end; slash < rest.size();) {
    const size_t end = std::min(rest.find('/', slash + 1), rest.size());
    DW_RETURN_IF_ERROR(CheckSegment(rest.substr(slash + 1, end - slash - 1), ++depth, text));
    slash = end;
  }
  if (depth > limits::kAddressSegments) {
    return Refuse("has " + std::to_string(depth) + " segments, at most " +
                      std::to_string(limits::kAddressSegments),
                  text);
  }
  std::string canonical(kSlashes);
  canonical.append(domain).append(rest.substr(domain_end));
  return Address(std::move(canonical), depth);
}

std::string_view Address::domain() const {
  return std::string_view(text_).substr(kSlashes.size(), EndOf(text_, 0) - kSlashes.size());
}

Address Address::Ancestor(size_t depth) const {
  DW_ASSERT(depth <= depth_);
  return Address(text_.substr(0, EndOf(text_, depth)), depth);
}

bool Address::IsWithin(const Address& ancestor) const {
  const size_t size = ancestor.text_.size();
  return text_.compare(0, size, ancestor.text_) == 0 &&
         (text_.size() == size || text_[size] == '/');
}

std::string_view Address::Rest(size_t depth) const {
  const size_t end = EndOf(text_, depth);
  return end == text_.size() ? std::string_view() : std::string_view(text_).substr(end + 1);
}

std::string Address::Key() const {
  std::string key = text_.substr(kSlashes.size());
  std::replace(key.begin(), key.end(), '/', '\0');
  return key;
}

Result<Address> Address::FromKey(std::string_view key) {
  std::string text(kSlashes);
  text.append(key);
  std::replace(text.begin() + kSlashes.size(), text.end(), '\0', '/');
  Result<Address> address = Parse(text);
  // Parse repairs and '/' would pass for a separator: only the exact inverse is a key.
  if (address.ok() && address->Key() == key) return address;
  return Status(Code::kCorrupt, "key is not of an address: " + Shown(key));
}

}  // namespace datawire
