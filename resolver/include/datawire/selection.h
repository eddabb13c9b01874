#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "datawire/limits.h"
#include "datawire/status.h"

namespace datawire {

/// Where a process is. Empty: it does not say, and all endpoints are equally near.
struct Locality {
  std::string region, zone;
};

/// How a sender picks among the endpoints of an answer: every number of PROMISES, table "Resolver:
/// entry states and rules", ejection to slow start. Value.
struct SelectionPolicy {
  /// So many failures in a row eject an endpoint. Envoy: consecutive_5xx.
  uint32_t failures = 5;
  /// Fewer when its host or the peer itself says no, or shows another identity: nobody is there.
  uint32_t refusals = 2;
  /// Out for so long, x 2, x 3, ... the next times, at most `ejection_most`; one of the times is
  /// forgotten for each `ejection` spent inside. Envoy: base_ejection_time, max_ejection_time.
  std::chrono::milliseconds ejection{30'000}, ejection_most{300'000};
  /// At most max(1, so many percent) of the endpoints are out at a time, and never the last one.
  /// Envoy: max_ejection_percent, which is 10 there.
  uint32_t ejected_percent = 33;
  /// With fewer usable of the priority in use, more likely the measure is wrong than they all are,
  /// and the rest would drown: ejected ones are used, and suspect ones as if up. Envoy:
  /// healthy_panic_threshold.
  uint32_t panic_percent = 50;
  /// Messages stay in the zone while the healthy share of its weight x this is at least 1; then so
  /// much of them as it is, the rest goes to the region, then elsewhere. Envoy:
  /// overprovisioning_factor, weighted_priority_health.
  double overprovisioning = 1.4;
  /// An endpoint that was not in the first answer gets slow_start_percent of its weight, growing
  /// to all of it in this time, where there are more than slow_start_above. Envoy:
  /// slow_start_window, min_weight_percent.
  std::chrono::milliseconds slow_start{30'000};
  uint32_t slow_start_percent = 10;
  size_t slow_start_above = 3;
  /// Who did not open or lost a link is passed by so long, doubled each time in a row; at most
  /// retry_when_all while all are passed by: the last ones are never given up. P29.
  std::chrono::milliseconds retry_least = limits::kOutLeast, retry_most = limits::kOutMost;
  std::chrono::milliseconds retry_when_all = limits::kOutWhenAll;

  /// kInvalid with the knob that is out of range.
  Status Check() const;
};

}  // namespace datawire
