#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "datawire/mutex.h"
#include "grpc/outflow.h"

namespace datawire::directory {

/// The verbs as metrics name them.
enum class Verb {
  kResolve,
  kSubscribe,
  kTether,
  kRegister,
  kWithdraw,
  kList,
  kWatch,
  kExplain,
  kStatus,
  kSetPolicy,
  kGetPolicy,
  kListSessions,
  kEndSession,
  kReleaseBrake,
  kDrain,
  kHistory,
  kExport,
  kSnapshot,
  kAuditTail,
  kAuditVerify,
  kMembers,
  kAcknowledged,
  kCompare,
  kForgetNode
};
inline constexpr std::array<std::string_view, 24> kVerbNames = {
    "resolve",     "subscribe",     "tether",  "register",     "withdraw",   "list",
    "watch",       "explain",       "status",  "set_policy",   "get_policy", "list_sessions",
    "end_session", "release_brake", "drain",   "history",      "export",     "snapshot",
    "audit_tail",  "audit_verify",  "members", "acknowledged", "compare",    "forget_node"};

/// Finished calls and streams by verb and code. Thread-safe.
class CallCounts {
 public:
  void Count(Verb verb, Code code) {
    counts_[static_cast<size_t>(verb)][static_cast<size_t>(code)].fetch_add(
        1, std::memory_order_relaxed);
  }
  uint64_t Read(size_t verb, size_t code) const {
    return counts_[verb][code].load(std::memory_order_relaxed);
  }
  static constexpr size_t kCodes = 17;

 private:
  std::array<std::array<std::atomic<uint64_t>, kCodes>, kVerbNames.size()> counts_{};
};

/// The open streams: what a stop ends, and the deadlines some have. Thread-safe.
class OpenStreams {
 public:
  /// False: the server stops, the stream must be refused.
  bool Add(Verb verb, std::shared_ptr<Outflow> stream);
  void Remove(const Outflow* stream);
  /// From `at` on Tick closes the stream with `status`.
  void SetDeadline(const Outflow* stream, BootTime at, Status status);
  void ClearDeadline(const Outflow* stream);
  /// Looks at what is due alone: of 10,000 streams none has a deadline most of the time.
  void Tick(BootTime now);
  /// Each stream ends once what is there has been written; further ones are refused.
  void Stop(const Status& status);
  size_t Count(Verb verb) const;

 private:
  struct Entry {
    Verb verb;
    std::shared_ptr<Outflow> stream;
    BootTime deadline;
    Status status;
  };
  void Forget(const Outflow* stream, const Entry& entry) DW_REQUIRES(mutex_) {
    deadlines_.erase({entry.deadline, stream});
  }

  mutable Mutex mutex_;
  std::map<const Outflow*, Entry> entries_ DW_GUARDED_BY(mutex_);
  std::set<std::pair<BootTime, const Outflow*>> deadlines_ DW_GUARDED_BY(mutex_);  // soonest first
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
};

}  // namespace datawire::directory
