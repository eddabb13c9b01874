#pragma once

#include <cstdint>
#include <memory>

#include "core/directory.h"
#include "datawire/endpoint_url.h"
#include "datawire/tls_files.h"

namespace datawire::directory {

/// What /metrics shows of the native API. Value.
struct GrpcUse {
  struct Finished {
    std::string_view verb, code;
    uint64_t calls;
  };
  std::vector<Finished> finished;  ///< calls and streams, only where there were any
  uint64_t tethers = 0, subscribes = 0, watches = 0;
  uint64_t connections_refused = 0;
  uint64_t resolves_shed = 0, lists_shed = 0;  ///< for lack of room or time
};

/// The native API's server, with health checking and reflection. Thread-safe. `directory` outlives
/// it.
class GrpcServer {
 public:
  /// kUnavailable when it cannot listen at `at`. With `tls` every call needs an identity: one
  /// SPIFFE ID in the caller's certificate.
  static Result<std::unique_ptr<GrpcServer>> Start(const HostPort& at, const TlsFiles& tls,
                                                   Directory& directory);
  ~GrpcServer();

  uint16_t port() const;
  /// Deadlines of streams, and `serving` to the health service. From one thread, every 100 ms or
  /// so.
  void Tick(BootTime now, bool serving);
  GrpcUse use() const;
  /// After Directory::Stop: streams get what waits for them, then UNAVAILABLE; calls and streams
  /// still open after 2 s are cut. Idempotent.
  void Stop();

 private:
  struct Running;
  explicit GrpcServer(std::unique_ptr<Running> running);
  std::unique_ptr<Running> running_;
};

}  // namespace datawire::directory
