#pragma once

#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "datawire/answer.h"
#include "datawire/clock.h"
#include "datawire/result.h"

namespace datawire::resolver {

/// The clocks at one moment. `boot` names the run of the machine in which `now` counts. Value.
struct Moment {
  BootTime now{};
  int64_t wall_ms = 0;
  std::string boot;
};

/// One answer of a snapshot, as of its Moment: `answer.age` since it was known to be current,
/// `received` since the directory last told or confirmed it.
struct SnapshotEntry {
  Answer answer;
  std::chrono::milliseconds received{0};
};

/// All of a cache that a later process can use. Value.
struct SnapshotContent {
  std::string cluster;
  Revision revision;  ///< the greatest of its entries
  Moment saved;
  std::vector<SnapshotEntry> entries;
};

/// The bytes of a snapshot file; their form: resolver/README.md "Snapshot file". Pure.
std::string EncodeSnapshot(const SnapshotContent& content);
/// kCorrupt, with the byte and the rule, unless `bytes` is exactly what EncodeSnapshot gave.
Result<SnapshotContent> DecodeSnapshot(std::string_view bytes);

/// How long ago it was saved. In the same run of the machine CLOCK_BOOTTIME says so; after a
/// restart of it the wall clock, which nobody vouches for, but at least the time since the start.
/// kInvalid when that is in the future.
Result<std::chrono::nanoseconds> SinceSaved(const Moment& saved, const Moment& present);

/// What a process may start with: not of another cluster than `cluster` (empty: any), not from the
/// future, not saved longer ago than `max_stale`; the refusal says which. Returns SinceSaved.
Result<std::chrono::nanoseconds> Usable(const SnapshotContent& content, std::string_view cluster,
                                        const Moment& present, std::chrono::milliseconds max_stale);

/// When to save: a change at once, then at most each kSnapshotApart (and in a twentieth of the
/// time, where saving takes long); without changes each kSnapshotEach +-20 %, since ages went on.
/// No clock. Thread-compatible.
class SnapshotSchedule {
 public:
  SnapshotSchedule(BootTime now, std::mt19937_64& random) : random_(random) { Next(now); }
  bool Due(BootTime now, uint64_t changes) const {
    return now >= each_at_ || (changes != changes_ && now >= not_before_);
  }
  /// `changes`: as read before what was saved was collected.
  void Tried(BootTime now, std::chrono::nanoseconds took, bool saved, uint64_t changes);

 private:
  void Next(BootTime now);

  std::mt19937_64& random_;
  BootTime each_at_{}, not_before_ = BootTime::min();
  uint64_t changes_ = 0;
};

inline constexpr std::chrono::seconds kSnapshotApart{5}, kSnapshotEach{60};

}  // namespace datawire::resolver
