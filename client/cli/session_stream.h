#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "datawire/clock.h"
#include "datawire/directory/v1/directory.pb.h"
#include "datawire/result.h"
#include "datawire/tls_files.h"

namespace datawire::cli {

/// Connections that many streams share. Thread-safe.
class Connections {
 public:
  /// `count` of them, over the servers in turn; nothing is sent yet.
  Connections(const std::vector<std::string>& servers, size_t count, const TlsFiles& tls);
  ~Connections();
  /// Makes them, all within `timeout`. Not left to the first messages: gRPC 1.51 takes an errno of
  /// malloc for that of connect when a thread that is new does it, and tries again only later.
  Status Connect(std::chrono::milliseconds timeout);

 private:
  friend class SessionStream;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One Tether stream as it is, for `bench`: it neither reconnects nor heartbeats by itself. Write
/// and Read block. One thread at a time, but for CancelIfSilent.
class SessionStream {
 public:
  /// On connection `number`, modulo how many there are; connects with the first message.
  SessionStream(Connections& connections, size_t number);
  /// Cuts the stream; without a bye the session lives on until its TTL is over.
  ~SessionStream();
  SessionStream(const SessionStream&) = delete;
  SessionStream& operator=(const SessionStream&) = delete;

  Status Write(const directory::v1::TetherRequest& request);
  /// The next message. A session that ended, or a server that stops, is a Status, as is a stream
  /// that broke.
  Result<directory::v1::TetherResponse> Read();
  /// Cuts it if a Read or Write waits since before then: kTimeout. Any thread.
  void CancelIfSilent(BootTime since);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace datawire::cli
