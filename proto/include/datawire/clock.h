#pragma once

#include <chrono>
#include <cstdint>

namespace datawire {

/// CLOCK_BOOTTIME: it goes on while the machine sleeps and no one can step it (P22). All durations
/// and deadlines inside the program are on it; pure code gets a `BootTime now` as an argument.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
  static time_point now();
};
using BootTime = BootClock::time_point;

/// Milliseconds since 1970, for people to read (tombstones, logs, ids). Never compared, never a
/// duration.
int64_t WallMillis();

}  // namespace datawire
