#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "datawire/address.h"
#include "datawire/result.h"

namespace datawire {

/// Where a peer accepts links: `amqp://host:port[/node]` or `amqps://...`. Canonical: scheme and
/// host in lower case, the port always shown (defaults 5672, 5671), IPv6 in brackets. Port 0 is
/// refused. At most 512 bytes. Value; thread-compatible.
class EndpointUrl {
 public:
  static Result<EndpointUrl> Parse(std::string_view text);

  const std::string& text() const { return text_; }
  bool secure() const { return secure_; }
  /// Without brackets.
  const std::string& host() const { return host_; }
  uint16_t port() const { return port_; }
  /// `host:port`, IPv6 bracketed.
  std::string authority() const;
  /// The AMQP node named by the URL, without the leading slash; empty if none.
  const std::string& node() const { return node_; }

  friend bool operator==(const EndpointUrl& a, const EndpointUrl& b) { return a.text_ == b.text_; }
  friend auto operator<=>(const EndpointUrl& a, const EndpointUrl& b) {
    return a.text_ <=> b.text_;
  }

 private:
  EndpointUrl() = default;
  std::string text_, host_, node_;
  uint16_t port_ = 0;
  bool secure_ = false;
};

/// `host:port` of a server or listener; host may be a name, IPv4 or bracketed IPv6; port 0 allowed.
struct HostPort {
  std::string host;
  uint16_t port = 0;

  static Result<HostPort> Parse(std::string_view text);
  std::string ToString() const;
  /// A literal loopback address or `localhost`.
  bool loopback() const;
  friend bool operator==(const HostPort&, const HostPort&) = default;
};

/// The AMQP address a link to `url` carries for `address` matched at `matched`: the full logical
/// address; or, if the URL names a node, that node, plus the rest of the path for a subtree.
std::string LinkTarget(const Address& address, const Address& matched, const EndpointUrl& url);

}  // namespace datawire
