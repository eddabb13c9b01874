#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <proton/connection.hpp>
#include <proton/io/connection_driver.hpp>
#include <string>
#include <vector>

#include "amqp/guard.h"

namespace datawire::amqp {

/// The AMQP half of a connection: bytes in, bytes out, callbacks. No socket, clock or thread.
/// Bound to the strand.
class Driver {
 public:
  enum class Role { kClient, kServer };
  using Now = std::chrono::steady_clock::time_point;

  /// A client's open is written at once; links may be opened from here on.
  Driver(const ConnectionOptions& options, Role role,
         std::shared_ptr<proton::messaging_handler> handler);

  /// What the peer sent; ignored once failed.
  void Read(const char* data, size_t size);
  /// Appends what is to be sent until `out` holds about `most` bytes. Nothing appended: there is
  /// nothing now.
  void Write(std::vector<char>& out, size_t most);
  /// Runs the callbacks that are due.
  void Dispatch();
  /// Idle time-outs of both directions; when to call again at the latest.
  std::optional<Now> Tick(Now now);
  /// Starts an orderly close.
  void Close();
  /// Ends it from our side: the peer gets a close with this error, the handler hears no more.
  void Fail(Failure failure);
  /// The socket is lost, or the end is decided: last callbacks.
  void Finish(const std::string& reason);

  bool opened() const { return guard_.opened(); }
  bool remote_closed() const { return guard_.remote_closed(); }
  bool failed() const { return failure_.has_value() || transport_failed_; }
  /// Nothing more to read or to write.
  bool finished() const { return finished_; }
  /// The reason it ended by itself; nullopt if it did not or ended well.
  std::optional<Status> reason() const;

  proton::connection connection() { return driver_.connection(); }

 private:
  void DispatchOnce();
  void CheckBytes();
  void BoundSessions();

  const ConnectionOptions options_;
  Guard guard_;
  proton::io::connection_driver driver_;
  std::optional<Failure> failure_;
  std::optional<Status> transport_error_;
  bool transport_failed_ = false;
  bool finished_ = false;
};

}  // namespace datawire::amqp
