#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "datawire/endpoint_url.h"
#include "datawire/result.h"

namespace datawire::directory {

/// Listens and hands connections on. gRPC's own listener (1.51) stops for good when it cannot
/// accept once, as when files run out, and knows no bound a client. This one keeps some files for
/// the store, and at most limits::kHostConnections for each client IP (loopback: no bound); what is
/// more is reset at once. Thread-safe.
class Acceptor {
 public:
  /// Bound, not yet accepting. kUnavailable, one line with the address and the system's reason.
  static Result<std::unique_ptr<Acceptor>> Listen(const HostPort& at);
  ~Acceptor();

  uint16_t port() const { return port_; }
  /// `take` owns the descriptor it gets; called on the acceptor's thread.
  void Start(std::function<void(int fd)> take);
  /// No `take` runs or follows. Idempotent.
  void Stop();
  uint64_t refused() const { return refused_; }

 private:
  struct Held {
    int fd;
    uint16_t port;
  };
  explicit Acceptor(std::vector<int> listeners);
  void Run();
  void AcceptFrom(int listener);
  bool Admit(int fd);
  /// Takes out those that are closed by now.
  void Prune(const std::string& host, std::vector<Held>& held) const;

  std::vector<int> listeners_;
  int stop_ = -1;  // an eventfd
  uint16_t port_ = 0;
  int files_ = 0;  // descriptors below it are for connections
  std::function<void(int)> take_;
  std::map<std::string, std::vector<Held>> hosts_;  // accept thread only
  std::atomic<uint64_t> refused_{0};
  std::thread thread_;
};

}  // namespace datawire::directory
