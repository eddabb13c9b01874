#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "datawire/limits.h"
#include "datawire/mutex.h"
#include "datawire/result.h"

namespace datawire::directory {

/// What one principal may hold at a time. Value.
struct QuotaOptions {
  size_t registrations = limits::kQuotaRegistrations;  ///< static ones and those of its sessions
  size_t sessions = limits::kQuotaSessions;
  size_t watches = limits::kQuotaWatches;
  size_t streams = limits::kQuotaStreams;  ///< tethers and Subscribe streams
};

/// What each principal holds on this node in streams, watches and sessions, and the registrations
/// it has on their way. A principal is view/principal.h's; an empty one holds what it likes.
/// Thread-safe.
class Quotas : public std::enable_shared_from_this<Quotas> {
 public:
  enum class Kind { kRegistrations, kSessions, kWatches, kStreams };
  /// Held until it is destroyed; null where nothing is counted. Thread-compatible.
  using Held = std::shared_ptr<void>;

  explicit Quotas(const QuotaOptions& most);

  /// kOverloaded with a retry-after when `already`, what is held here and `count` more are too
  /// many. `already`: what is counted elsewhere, the view's count of committed registrations.
  Result<Held> Take(Kind kind, const std::string& principal, size_t count = 1, size_t already = 0);
  uint64_t refusals() const { return refusals_; }
  /// What is there anyway: sessions found at the start.
  Held Charge(Kind kind, const std::string& principal, size_t count = 1);

 private:
  using Counts = std::unordered_map<std::string, size_t>;
  Held Add(Kind kind, const std::string& principal, size_t count) DW_REQUIRES(mutex_);
  void Release(Kind kind, const std::string& principal, size_t count);

  const std::array<size_t, 4> most_;
  std::atomic<uint64_t> refusals_{0};
  Mutex mutex_;
  std::array<Counts, 4> held_ DW_GUARDED_BY(mutex_);
};

}  // namespace datawire::directory
