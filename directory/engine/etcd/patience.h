#pragma once

#include <algorithm>
#include <chrono>

#include "datawire/clock.h"

namespace datawire::directory::etcd {

/// A view that lacks for so long what etcd has is behind.
inline constexpr std::chrono::seconds kBehind{1};

/// How long a member may owe its watch something. A frozen one is left after kBehind; but one that
/// has a backlog to read and to send needs longer, and the next one no less: each move that did not
/// help doubles the time, up to 16 s. Thread-compatible.
class Patience {
 public:
  explicit Patience(BootTime now) : moved_(now) {}

  /// True: it ends now for this member. `behind`: since when the view is.
  bool Over(BootTime behind, BootTime now) {
    if (now - std::max(behind, moved_) <= most_) return false;
    moved_ = now;
    most_ = std::min(2 * most_, kMost);
    return true;
  }
  /// The view has got there, or no member can be blamed.
  void Renew() { most_ = kBehind; }

 private:
  static constexpr std::chrono::seconds kMost{16};

  BootTime moved_;
  std::chrono::seconds most_ = kBehind;
};

}  // namespace datawire::directory::etcd
