#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

#include "datawire/clock.h"

namespace datawire::directory {

/// How many may begin in a time: `burst` at once, then `per_second`. Who comes too early is told
/// when its turn is, one after the other, so that a crowd comes back spread over the time it needs
/// (PROMISES P18). `now` comes in. Thread-compatible.
class Pace {
 public:
  Pace(size_t burst, size_t per_second, BootTime now)
      : each_(std::chrono::nanoseconds(std::chrono::seconds(1)) / per_second),
        burst_(each_ * burst),
        next_(now - burst_) {}

  /// Nothing: begin. Else how long to wait, then ask again.
  std::optional<std::chrono::milliseconds> Ask(BootTime now) {
    next_ = std::max(next_, now - burst_);
    if (next_ + each_ <= now) {
      next_ += each_;
      return std::nullopt;
    }
    told_ = std::max(told_, now) + each_;
    return std::chrono::ceil<std::chrono::milliseconds>(told_ - now);
  }

 private:
  const BootClock::duration each_, burst_;
  BootTime next_;    // all before it is used up
  BootTime told_{};  // the turn of the last one that was told to wait
};

}  // namespace datawire::directory
