#pragma once

#include <chrono>
#include <cstdint>

#include "datawire/clock.h"

namespace datawire::sim {

/// Time of the simulation, from the start of the run: what no process can see.
using Time = std::chrono::nanoseconds;

/// What one machine's clocks show: they drift, the wall clock is stepped besides. Value.
class MachineClock {
 public:
  MachineClock() = default;
  MachineClock(double rate, BootTime at_start) : rate_(rate), base_(at_start) {}

  BootTime At(Time t) const { return base_ + Span(t); }
  /// How much of its own time passes in `t` of the simulation.
  Time Span(Time t) const { return Time(static_cast<int64_t>(double(t.count()) * rate_)); }
  /// The moment at which it shows `local`, or a little later.
  Time When(BootTime local) const {
    return Time(static_cast<int64_t>(double((local - base_).count()) / rate_) + 2000);
  }
  int64_t WallAt(Time t) const {
    return 1'700'000'000'000 + wall_step_ms +
           std::chrono::duration_cast<std::chrono::milliseconds>(Span(t)).count();
  }
  /// The machine starts again: CLOCK_BOOTTIME begins anew.
  void Reboot(Time t) { base_ = BootTime(std::chrono::seconds(20)) - Span(t); }

  int64_t wall_step_ms = 0;

 private:
  double rate_ = 1;
  BootTime base_{};
};

/// While it lives, BootClock::now() and WallMillis() show that machine's clocks at `t`: clock.cc
/// stands in for proto/src/clock.cc in this program. Outside of one they may not be read.
class ClockScope {
 public:
  ClockScope(const MachineClock& clock, Time t);
  ~ClockScope();
  ClockScope(const ClockScope&) = delete;
  ClockScope& operator=(const ClockScope&) = delete;

 private:
  const MachineClock* const before_;
  const Time before_at_;
};

}  // namespace datawire::sim
