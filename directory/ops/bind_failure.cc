#include "ops/bind_failure.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace datawire::directory {

Status TryBind(const HostPort& at) {
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
  int error = 0;
  for (const addrinfo* one = found; one != nullptr && error == 0; one = one->ai_next) {
    const int socket = ::socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC, 0);
    if (socket < 0) {
      error = errno;
      continue;
    }
    const int on = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(socket, one->ai_addr, one->ai_addrlen) != 0 || ::listen(socket, 1) != 0) {
      error = errno;
    }
    ::close(socket);
  }
  ::freeaddrinfo(found);
  if (error == 0) return Status::Ok();
  std::string why = std::generic_category().message(error);
  if (error == EADDRINUSE) why += ": another server runs there, choose another port (0: any)";
  return Status(Code::kUnavailable, what + why);
}

Status BindFailure(const HostPort& at) {
  const Status failure = TryBind(at);
  if (!failure.ok()) return failure;
  return Status(Code::kUnavailable,
                "cannot listen on " + at.ToString() + ": it was in use a moment ago, try again");
}

}  // namespace datawire::directory
