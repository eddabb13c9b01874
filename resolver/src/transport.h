#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "datawire/directory/v1/directory.pb.h"
#include "datawire/status.h"
#include "datawire/tls_files.h"

namespace datawire::resolver {

namespace pb = ::datawire::directory::v1;

struct StreamEvent {
  enum class Kind { kRead, kWritten, kEnded };
  uint64_t stream = 0;
  Kind kind = Kind::kEnded;
  pb::SubscribeResponse response;  ///< kRead
  Status status;                   ///< kEnded; never OK
};

struct CallEvent {
  uint64_t call = 0;
  Status status;
  pb::ResolveResponse response;
};

/// Where the transport tells what happened: on gRPC's threads. Must not block or call back.
class TransportSink {
 public:
  virtual ~TransportSink() = default;
  virtual void OnStream(StreamEvent event) = 0;
  virtual void OnCall(CallEvent event) = 0;
};

/// The gRPC side: one Subscribe stream at a time, on a connection of its own, and unary Resolve
/// calls. Whoever uses it numbers streams and calls, and ignores events of numbers that are past.
/// Bound to one thread.
class Transport {
 public:
  static std::unique_ptr<Transport> Create(std::chrono::milliseconds connect_timeout,
                                           const TlsFiles& tls,
                                           std::shared_ptr<TransportSink> sink);
  /// Cancels everything and waits until gRPC has let go (milliseconds; at most 5 s).
  virtual ~Transport() = default;

  /// Ends the stream before, if there is one.
  virtual void Open(uint64_t stream, const std::string& server) = 0;
  /// The peer has spoken HTTP/2.
  virtual bool Connected() const = 0;
  /// Asks for one message: a kRead or kEnded follows. One at a time.
  virtual void Read() = 0;
  /// One at a time: kWritten or kEnded follows.
  virtual void Write(const pb::SubscribeRequest& request) = 0;
  virtual void Close() = 0;

  virtual void Resolve(uint64_t call, const std::string& server, const pb::ResolveRequest& request,
                       std::chrono::milliseconds timeout) = 0;
};

}  // namespace datawire::resolver
