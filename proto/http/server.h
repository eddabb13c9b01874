#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "datawire/endpoint_url.h"
#include "datawire/result.h"

namespace datawire {

/// What the ops pages show. Called on the server's threads.
struct HttpPages {
  std::function<std::string()> metrics;  ///< Prometheus text format
  std::function<Status()> ready;         ///< not OK: 503 with the message
};

/// `/metrics`, `/healthz` (the process is alive), `/readyz` (it serves). Four threads, requests of
/// at most 8 KiB, 2 s to read or write; further connections wait in the kernel. Thread-safe.
class HttpServer {
 public:
  /// kUnavailable when it cannot listen at `at`.
  static Result<std::unique_ptr<HttpServer>> Start(const HostPort& at, HttpPages pages);
  ~HttpServer();

  uint16_t port() const;
  /// Within the time-out of what is being read or written. Idempotent.
  void Stop();

 private:
  struct Running;
  explicit HttpServer(std::unique_ptr<Running> running);
  std::unique_ptr<Running> running_;
};

}  // namespace datawire
