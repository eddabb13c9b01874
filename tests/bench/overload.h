#pragma once

#include <chrono>
#include <string>

namespace datawire::bench {

/// What a directory did with far more asked of it than it can do. Value.
struct Overload {
  double peak = 0;           ///< names a second resolved in time by as many callers as it can serve
  double good = 0;           ///< the same under overload
  double refused = 0;        ///< calls a second that were refused or came too late
  int sessions_lost = 0;     ///< of those that went on with their heartbeats
  double heartbeat_p99 = 0;  ///< seconds, under overload
  double resolve_p99 = 0;    ///< seconds: one name, by somebody else, under overload
  double resolve_p99_peak = 0;  ///< at the peak
  double recovery = 0;          ///< seconds until such a resolve is as quick as before the load
};

/// Large resolves (256 names a call) at `address`, `span` long each: first from 20 callers, more
/// than it serves at once, then from 2,000, all the streams that 20 connections may open, who come
/// again at once when they are refused. Sessions of the shortest TTL heartbeat meanwhile.
/// Registers what it resolves. Aborts with a message when the directory cannot be used.
Overload MeasureOverload(const std::string& address, std::chrono::seconds span);

/// Acknowledged registrations a second from 100 sessions with 60 in flight each, as a part of what
/// 10 sessions with 6 each get, which is all it can do.
double RegistersOfPeak(const std::string& address, std::chrono::seconds span);

}  // namespace datawire::bench
