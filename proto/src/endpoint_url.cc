#include "datawire/endpoint_url.h"

#include <arpa/inet.h>

#include <algorithm>
#include <string>

#include "datawire/limits.h"
#include "name_rules.h"

namespace datawire {
namespace {

constexpr std::string_view kUrl = "endpoint URL";
constexpr std::string_view kHostPort = "host:port";
constexpr uint16_t kAmqpPort = 5672;
constexpr uint16_t kAmqpsPort = 5671;

Status Refuse(std::string_view what, std::string_view rule, std::string_view text) {
  std::string message(what);
  message.append(" ").append(rule).append(": ").append(ShownName(text));
  return Status(Code::kInvalid, std::move(message));
}

/// What stands between the scheme and the path.
struct Authority {
  std::string_view host;  // without brackets
  bool bracketed = false;
  bool has_port = false;
  std::string_view port;
};

Result<Authority> Split(std::string_view authority, std::string_view what, std::string_view text) {
  Authority parts;
  if (authority.find('@') != std::string_view::npos) {
    return Refuse(what, "has userinfo ('@' before the host), which is not allowed", text);
  }
  std::string_view after;
  if (!authority.empty() && authority.front() == '[') {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos) return Refuse(what, "has a '[' without ']'", text);
    parts.bracketed = true;
    parts.host = authority.substr(1, close - 1);
    after = authority.substr(close + 1);
    if (!after.empty() && after.front() != ':') {
      return Refuse(what, "has more than a port after ']'", text);
    }
  } else {
    if (std::count(authority.begin(), authority.end(), ':') > 1) {
      return Refuse(what, "has more than one ':'; an IPv6 host is written in brackets", text);
    }
    const size_t colon = std::min(authority.find(':'), authority.size());
    parts.host = authority.substr(0, colon);
    after = authority.substr(colon);
  }
  if (parts.host.empty()) return Refuse(what, "has no host", text);
  parts.has_port = !after.empty();
  if (parts.has_port) parts.port = after.substr(1);
  return parts;
}

Result<uint16_t> ParsePort(std::string_view digits, int least, std::string_view what,
                           std::string_view text) {
  const bool leading_zero = digits.size() > 1 && digits.front() == '0';
  int port = -1;
  if (IsDigits(digits) && digits.size() <= 5 && !leading_zero)
    port = std::stoi(std::string(digits));
  if (port < least || port > 65535) {
    return Refuse(what, "port is not a number " + std::to_string(least) + "-65535", text);
  }
  return static_cast<uint16_t>(port);
}

/// The canonical host: a name in lower case, dotted IPv4, or IPv6 as in RFC 5952.
Result<std::string> ParseHost(const Authority& parts, std::string_view what,
                              std::string_view text) {
  if (parts.bracketed) {
    in6_addr address{};
    char canonical[INET6_ADDRSTRLEN];
    if (::inet_pton(AF_INET6, std::string(parts.host).c_str(), &address) != 1) {
      return Refuse(what, "has no IPv6 address in its brackets", text);
    }
    return std::string(::inet_ntop(AF_INET6, &address, canonical, sizeof canonical));
  }
  std::string host = LowerAscii(parts.host);
  if (const std::string broken = BrokenLabelRule(host); !broken.empty())
    return Refuse(what, "host " + broken, text);
  in_addr address{};
  if (IsDigits(LastLabel(host)) && ::inet_pton(AF_INET, host.c_str(), &address) != 1) {
    return Refuse(what, "host ends in digits and is not an IPv4 address of four numbers 0-255",
                  text);
  }
  return host;
}

std::string JoinHostPort(const std::string& host, uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

bool IsNodeByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~!$&'()*+,;=:@/").find(c) != std::string_view::npos;
}

Status TooLong(size_t bytes, std::string_view text) {
  return Refuse(
      kUrl, "is " + std::to_string(bytes) + " bytes, at most " + std::to_string(limits::kUrlBytes),
      text);
}

}  // namespace

Result<EndpointUrl> EndpointUrl::Parse(std::string_view text) {
  if (text.size() > limits::kUrlBytes) return TooLong(text.size(), text);
  DW_RETURN_IF_ERROR(CheckBytes(text, "%?#", kUrl));
  const size_t colon = text.find("://");
  EndpointUrl url;
  const std::string scheme =
      colon == std::string_view::npos ? std::string() : LowerAscii(text.substr(0, colon));
  if (scheme != "amqp" && scheme != "amqps") {
    return Refuse(kUrl, "does not start with amqp:// or amqps://", text);
  }
  url.secure_ = scheme == "amqps";

  const std::string_view rest = text.substr(colon + 3);
  const size_t slash = std::min(rest.find('/'), rest.size());
  DW_ASSIGN(const Authority parts, Split(rest.substr(0, slash), kUrl, text));
  DW_ASSIGN(url.host_, ParseHost(parts, kUrl, text));
  if (url.host_ == "0.0.0.0" || url.host_ == "::") {
    return Refuse(kUrl, "host is a wildcard: it says where to listen, not where to link", text);
  }
  url.port_ = url.secure_ ? kAmqpsPort : kAmqpPort;
  if (parts.has_port) {
    DW_ASSIGN(url.port_, ParsePort(parts.port, 1, kUrl, text));
  }
  if (slash < rest.size()) url.node_ = rest.substr(slash + 1);
  const auto bad = std::find_if_not(url.node_.begin(), url.node_.end(), IsNodeByte);
  if (bad != url.node_.end()) {
    return Refuse(kUrl,
                  "node has a '" + std::string(1, *bad) +
                      "', allowed are A-Z a-z 0-9 - . _ ~ ! $ & ' ( ) * + , ; = : @ /",
                  text);
  }
  url.text_ = scheme + "://" + url.authority();
  if (!url.node_.empty()) url.text_ += "/" + url.node_;
  if (url.text_.size() > limits::kUrlBytes) return TooLong(url.text_.size(), text);
  return url;
}

std::string EndpointUrl::authority() const {
  return JoinHostPort(host_, port_);
}

Result<HostPort> HostPort::Parse(std::string_view text) {
  DW_RETURN_IF_ERROR(CheckBytes(text, "%?#", kHostPort));
  if (text.find('/') != std::string_view::npos) {
    return Refuse(kHostPort, "has a '/': neither scheme nor path is wanted", text);
  }
  DW_ASSIGN(const Authority parts, Split(text, kHostPort, text));
  if (!parts.has_port) return Refuse(kHostPort, "has no port, as in localhost:7400", text);
  HostPort result;
  DW_ASSIGN(result.host, ParseHost(parts, kHostPort, text));
  DW_ASSIGN(result.port, ParsePort(parts.port, 0, kHostPort, text));
  return result;
}

std::string HostPort::ToString() const {
  return JoinHostPort(host, port);
}

bool HostPort::loopback() const {
  if (host == "localhost" || host == "::1") return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return ::inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_V4MAPPED(&v6) &&
         v6.s6_addr[12] == 127;
}

std::string LinkTarget(const Address& address, const Address& matched, const EndpointUrl& url) {
  if (url.node().empty()) return address.text();
  std::string target = url.node();
  if (!address.IsWithin(matched)) return target;
  const std::string_view rest = address.Rest(matched.depth());
  if (!rest.empty() && target.back() != '/') target += '/';
  return target.append(rest);
}

}  // namespace datawire
