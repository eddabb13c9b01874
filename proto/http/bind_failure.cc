#include "http/bind_failure.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace datawire {

uint16_t PortOf(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
  // The port is at the same place in both.
  return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

Result<std::vector<int>> ListenAt(const HostPort& at) {
  const std::string what = "cannot listen on " + at.ToString() + ": ";
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error =
          ::getaddrinfo(at.host.c_str(), std::to_string(at.port).c_str(), &hints, &found);
      error != 0) {
    return Status(Code::kUnavailable, what + ::gai_strerror(error));
  }
  std::vector<int> sockets;
  int error = 0;
  for (const addrinfo* one = found; one != nullptr && error == 0; one = one->ai_next) {
    const int socket = ::socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket < 0) {
      error = errno;
      continue;
    }
    const int on = 1, off = 0;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (one->ai_family == AF_INET6)  // [::] is all addresses of both kinds
      ::setsockopt(socket, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (!sockets.empty())
      reinterpret_cast<sockaddr_in*>(one->ai_addr)->sin_port = htons(PortOf(sockets.front()));
    sockets.push_back(socket);
    if (::bind(socket, one->ai_addr, one->ai_addrlen) != 0 || ::listen(socket, SOMAXCONN) != 0) {
      error = errno;
    }
  }
  ::freeaddrinfo(found);
  if (error == 0) return sockets;
  for (const int socket : sockets) ::close(socket);
  std::string why = std::generic_category().message(error);
  if (error == EADDRINUSE) why += ": another server runs there, choose another port (0: any)";
  return Status(Code::kUnavailable, what + why);
}

Status TryBind(const HostPort& at) {
  DW_ASSIGN(const std::vector<int> sockets, ListenAt(at));
  for (const int socket : sockets) ::close(socket);
  return Status::Ok();
}

Status BindFailure(const HostPort& at) {
  const Status failure = TryBind(at);
  if (!failure.ok()) return failure;
  return Status(Code::kUnavailable,
                "cannot listen on " + at.ToString() + ": it was in use a moment ago, try again");
}

}  // namespace datawire
