#include "announce.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

namespace datawire {

namespace {

bool Wildcard(const std::string& host) {
  return host == "0.0.0.0" || host == "::";
}

/// The local address of a datagram socket connected to `to`; empty when there is no route.
std::string LocalTowards(const addrinfo& to) {
  const int fd = ::socket(to.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return {};
  sockaddr_storage local{};
  socklen_t size = sizeof local;
  const bool known = ::connect(fd, to.ai_addr, to.ai_addrlen) == 0 &&
                     ::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) == 0;
  ::close(fd);
  char text[NI_MAXHOST];
  if (!known || ::getnameinfo(reinterpret_cast<sockaddr*>(&local), size, text, sizeof text, nullptr,
                              0, NI_NUMERICHOST) != 0) {
    return {};
  }
  return text;
}

Result<std::string> RouteTo(const DirectoryPlace& directory, bool v4_only) {
  DW_ASSIGN(const auto servers, LookUpServers(directory, limits::kSrvDeadline));
  for (const std::string& server : servers) {
    const Result<HostPort> parsed = HostPort::Parse(server);
    if (!parsed.ok()) continue;
    addrinfo hints{};
    hints.ai_family = v4_only ? AF_INET : AF_UNSPEC;
    hints.ai_socktype = SOCK_DGRAM;
    addrinfo* found = nullptr;
    const std::string port = std::to_string(std::max<uint16_t>(parsed->port, 1));
    if (::getaddrinfo(parsed->host.c_str(), port.c_str(), &hints, &found) != 0) continue;
    std::string local;
    for (const addrinfo* a = found; a && local.empty(); a = a->ai_next) local = LocalTowards(*a);
    ::freeaddrinfo(found);
    if (!local.empty()) return local;
  }
  return Status(Code::kUnavailable,
                "bound to a wildcard address, and no local address routes to the directory: say "
                "which host to announce");
}

}  // namespace

Result<EndpointUrl> AnnouncedUrl(const HostPort& bound, const std::string& announce,
                                 const DirectoryPlace& directory, bool secure) {
  HostPort at = bound;
  if (!announce.empty()) {
    // HOST, HOST:PORT, [V6], [V6]:PORT or a bare V6.
    const size_t colon = announce.rfind(':');
    const bool bracketed = announce.front() == '[';
    const bool bare_v6 = !bracketed && announce.find(':') != colon;
    const bool has_port = colon != std::string::npos && !bare_v6 && announce.back() != ']';
    const std::string host = bare_v6 ? "[" + announce + "]" : announce;
    DW_ASSIGN(at, HostPort::Parse(has_port ? host : host + ":" + std::to_string(bound.port)));
    if (at.port == 0) at.port = bound.port;
  } else if (Wildcard(bound.host)) {
    DW_ASSIGN(at.host, RouteTo(directory, bound.host == "0.0.0.0"));
  }
  return EndpointUrl::Parse((secure ? "amqps://" : "amqp://") + at.ToString());
}

}  // namespace datawire
