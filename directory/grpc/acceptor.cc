#include "grpc/acceptor.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>

#include "datawire/limits.h"
#include "http/bind_failure.h"
#include "view/principal.h"

namespace datawire::directory {
namespace {

constexpr std::chrono::milliseconds kPause{100};  // when even accepting and closing is impossible
constexpr size_t kHostsPruned = 1024;             // hosts that are looked through for closed ones

/// Host and port of the other end; nothing: not connected (any more).
std::optional<std::pair<std::string, uint16_t>> PeerOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return std::nullopt;
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return std::pair(std::string(text), ntohs(v4.sin_port));
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
  return std::pair(std::string(text), ntohs(v6.sin6_port));
}

/// Closes it so that the peer sees a reset, at once.
void Reset(int fd) {
  const linger at_once{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  ::close(fd);
}

}  // namespace

Result<std::unique_ptr<Acceptor>> Acceptor::Listen(const HostPort& at) {
  DW_ASSIGN(std::vector<int> listeners, ListenAt(at));
  return std::unique_ptr<Acceptor>(new Acceptor(std::move(listeners)));
}

Acceptor::Acceptor(std::vector<int> listeners)
    : listeners_(std::move(listeners)), stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  port_ = PortOf(listeners_.front());
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  files_ = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1u << 30)) - limits::kFilesKept;
}

Acceptor::~Acceptor() {
  Stop();
  ::close(stop_);
}

void Acceptor::Start(std::function<void(int fd)> take) {
  take_ = std::move(take);
  thread_ = std::thread([this] { Run(); });
}

void Acceptor::Stop() {
  const uint64_t one = 1;
  (void)!::write(stop_, &one, sizeof one);
  if (thread_.joinable()) thread_.join();
  for (const int listener : listeners_) ::close(listener);
  listeners_.clear();
}

void Acceptor::Run() {
  std::vector<pollfd> wanted;
  for (const int listener : listeners_) wanted.push_back({listener, POLLIN, 0});
  wanted.push_back({stop_, POLLIN, 0});
  for (;;) {
    if (::poll(wanted.data(), wanted.size(), -1) < 0 && errno != EINTR) return;
    if (wanted.back().revents != 0) return;
    for (const pollfd& one : wanted)
      if (one.revents != 0) AcceptFrom(one.fd);
  }
}

void Acceptor::AcceptFrom(int listener) {
  for (;;) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (fd < 0) {  // no descriptor or memory at all: who waits goes on waiting
      pollfd stop{stop_, POLLIN, 0};
      ::poll(&stop, 1, static_cast<int>(kPause.count()));
      return;
    }
    if (fd >= files_ || !Admit(fd)) {
      ++refused_;
      Reset(fd);
      continue;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    take_(fd);
  }
}

bool Acceptor::Admit(int fd) {
  const auto peer = PeerOf(fd);
  if (!peer) return false;
  const auto& [host, port] = *peer;
  if (PrincipalOf("", "[" + host + "]:0").empty()) return true;  // loopback
  if (hosts_.size() >= kHostsPruned) {
    for (auto it = hosts_.begin(); it != hosts_.end();) {
      Prune(it->first, it->second);
      it = it->second.empty() ? hosts_.erase(it) : std::next(it);
    }
  }
  std::vector<Held>& held = hosts_[host];
  if (held.size() >= limits::kHostConnections) Prune(host, held);
  if (held.size() >= limits::kHostConnections) return false;
  held.push_back({fd, port});
  return true;
}

// Who took the connection closes it and tells nobody: a descriptor that has another peer by now, or
// none, is of something else.
void Acceptor::Prune(const std::string& host, std::vector<Held>& held) const {
  std::erase_if(held, [&](const Held& one) {
    const auto peer = PeerOf(one.fd);
    return !peer || peer->first != host || peer->second != one.port;
  });
}

}  // namespace datawire::directory
