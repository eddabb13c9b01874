#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

#include "amqp/driver.h"
#include "amqp_fixture.h"

namespace datawire::amqp {

/// A plain blocking socket on loopback. Bound to one thread.
class Plain {
 public:
  explicit Plain(int fd) : fd_(fd) {}
  Plain(Plain&& other) : fd_(std::exchange(other.fd_, -1)) {}
  ~Plain() {
    if (fd_ >= 0) close(fd_);
  }

  static sockaddr_in At(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  static Plain Connect(uint16_t port) {
    const sockaddr_in address = At(port);
    Plain socket(::socket(AF_INET, SOCK_STREAM, 0));
    EXPECT_EQ(::connect(socket.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
    return socket;
  }
  /// A listening socket that nobody accepts from.
  static Plain Listening(int backlog = 16) {
    const sockaddr_in address = At(0);
    Plain socket(::socket(AF_INET, SOCK_STREAM, 0));
    EXPECT_EQ(::bind(socket.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(socket.fd_, backlog), 0);
    return socket;
  }
  uint16_t port() const {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
  }
  Plain Accept() const { return Plain(::accept(fd_, nullptr, nullptr)); }

  /// False when the peer is gone.
  bool Send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  /// Sends the same bytes until the kernel takes no more for `wait`, or `most` are sent; how many.
  size_t Flood(std::string_view bytes, size_t most, std::chrono::milliseconds wait) const {
    size_t sent = 0;
    while (sent < most) {
      pollfd p{fd_, POLLOUT, 0};
      if (poll(&p, 1, static_cast<int>(wait.count())) <= 0) break;
      const size_t from = sent % bytes.size();
      const ssize_t n =
          ::send(fd_, bytes.data() + from, bytes.size() - from, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) break;
      sent += static_cast<size_t>(n);
    }
    return sent;
  }
  /// What comes within `wait`; empty: nothing came. `ended` tells end of file and reset.
  std::string Receive(std::chrono::milliseconds wait, bool& ended) const {
    ended = false;
    pollfd p{fd_, POLLIN, 0};
    if (poll(&p, 1, static_cast<int>(wait.count())) <= 0) return {};
    char buffer[65536];
    const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
    ended = n <= 0;
    return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : std::string();
  }
  /// True once the peer has closed; what it sends before is dropped.
  bool AwaitEnd(std::chrono::milliseconds deadline = Board::kDeadline) const {
    const auto until = std::chrono::steady_clock::now() + deadline;
    for (bool ended = false; std::chrono::steady_clock::now() < until;) {
      Receive(20ms, ended);
      if (ended) return true;
    }
    return false;
  }

 private:
  int fd_;
};

/// A peer whose engine is proton's and whose socket the test holds in its hand: it reads, writes
/// and hangs as told. Bound to one thread.
class Peer {
 public:
  explicit Peer(uint16_t port, ConnectionOptions options = {})
      : socket(Plain::Connect(port)), driver(options, Driver::Role::kClient, hooks) {}

  std::string Output() {
    std::vector<char> out;
    driver.Dispatch();
    driver.Write(out, 64 << 20);
    return {out.begin(), out.end()};
  }
  bool Flush() { return socket.Send(Output()); }
  /// Reads and writes until `condition`; false at the deadline or when the peer closes first.
  bool RunUntil(const std::function<bool()>& condition) {
    const auto until = std::chrono::steady_clock::now() + Board::kDeadline;
    while (std::chrono::steady_clock::now() < until) {
      driver.Dispatch();
      if (condition()) return true;
      if (!Flush()) return condition();
      bool ended = false;
      const std::string bytes = socket.Receive(5ms, ended);
      driver.Read(bytes.data(), bytes.size());
      if (ended) return condition();
    }
    return false;
  }
  /// The error of the close that the other side sent.
  std::string CloseError() {
    RunUntil([&] { return driver.remote_closed(); });
    return driver.connection().error().name();
  }

  std::shared_ptr<Hooks> hooks = std::make_shared<Hooks>();
  Plain socket;
  Driver driver;
};

}  // namespace datawire::amqp
