#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <map>
#include <mutex>
#include <proton/message.hpp>
#include <string>
#include <vector>

#include "datawire/client.h"
#include "datawire/clock.h"

/// For stages of pipelines: what comes in goes on, and nothing is lost in between.
namespace datawire {

/// A message that goes to a sender.
struct Output {
  Sender* to;
  proton::message message;
};

/// Sends `outputs` and settles `input` when all of them have ended: accepted if all were accepted,
/// rejected with the peer's words if one was rejected, else released, so that its source sends it
/// again (and outputs that were accepted before are sent twice). Blocks as Sender::Send does while
/// a buffer is full; a handler that waits gives no more credit, so a stopped sink stops the source.
/// An output without a message-id gets the input's (the second one `ID/2` and so on), one without a
/// trace context the input's. No outputs: accepted. The senders outlive their messages.
void Forward(Exchange input, std::vector<Output> outputs);

/// W3C Trace Context (https://www.w3.org/TR/trace-context/), in the message annotations
/// `traceparent` and `tracestate`. Replies and outputs of Forward carry on that of their input.
std::string NewTraceparent();                               ///< of a new, sampled trace
std::string TraceparentOf(const proton::message& message);  ///< empty: none, or malformed
void SetTraceparent(proton::message& message, const std::string& traceparent);
/// Gives `to` the trace context of `from`, unless it has one.
void CarryTrace(const proton::message& from, proton::message& to);

/// When the time to live of a message that came at `now` ends; without one, never.
BootTime ExpiryOf(const proton::message& message, BootTime now = BootClock::now());

/// The message as it goes to a dead-letter address: with the annotations `x-opt-dead-reason`,
/// `x-opt-dead-address` (whose message it was) and `x-opt-dead-tries`; it lives for ever.
proton::message DeadLetter(const proton::message& message, const std::string& address,
                           const std::string& reason);

/// Lets a consumer pass over messages that it has worked on: the ids of the last `most`, each for
/// `age`. Together with at-least-once that is effectively once, as long as the second delivery
/// comes to this process within these bounds. A message without an id is always new. Thread-safe.
///   if (!recent.Begin(message)) return exchange.Accept();   // worked on before
///   ... on failure: recent.Forget(message)
class RecentMessages {
 public:
  explicit RecentMessages(size_t most = 100'000,
                          std::chrono::milliseconds age = std::chrono::minutes(10))
      : most_(most), age_(age) {}
  /// True the first time; then the message is the caller's to work on.
  bool Begin(const proton::message& message, BootTime now = BootClock::now());
  /// It was not worked on after all.
  void Forget(const proton::message& message);
  size_t size() const;

 private:
  using Ids = std::list<std::pair<std::string, BootTime>>;

  const size_t most_;
  const std::chrono::milliseconds age_;
  mutable std::mutex mutex_;
  Ids ids_;                                     // guarded by mutex_; oldest first
  std::map<std::string, Ids::iterator> by_id_;  // guarded by mutex_
};

}  // namespace datawire
