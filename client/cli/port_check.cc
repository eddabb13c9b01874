#include "port_check.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace datawire::cli {
namespace {

constexpr std::chrono::milliseconds kEvery{1000}, kConnectMost{1000};
constexpr int kFailuresMost = 2;

// 0, or the errno of the attempt.
int Connect(const addrinfo& to) {
  const int fd = ::socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno;
  int error = ::connect(fd, to.ai_addr, to.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd wanted{.fd = fd, .events = POLLOUT, .revents = 0};
    socklen_t size = sizeof error;
    if (::poll(&wanted, 1, static_cast<int>(kConnectMost.count())) <= 0)
      error = ETIMEDOUT;
    else if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
      error = errno;
  }
  ::close(fd);
  return error;
}

// Empty, or why not.
std::string Look(const EndpointUrl& url) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error =
          ::getaddrinfo(url.host().c_str(), std::to_string(url.port()).c_str(), &hints, &found))
    return ::gai_strerror(error);
  const int error = Connect(*found);
  ::freeaddrinfo(found);
  return error == 0 ? "" : std::strerror(error);
}

}  // namespace

bool PortCheck::Up(BootTime now) {
  if (now < next_) return up_;
  reason_ = Look(url_);
  next_ = now + kEvery;
  failures_ = reason_.empty() ? 0 : failures_ + 1;
  up_ = failures_ == 0 || (up_ && failures_ < kFailuresMost);
  return up_;
}

}  // namespace datawire::cli
