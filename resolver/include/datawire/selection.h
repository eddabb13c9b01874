#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "datawire/answer.h"
#include "datawire/clock.h"
#include "datawire/limits.h"
#include "datawire/selector.h"
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

/// What a sender knows of the endpoints of one address beyond the answer: who failed, who is new,
/// who is near. Thread-compatible.
class EndpointHealth {
 public:
  EndpointHealth(const SelectionPolicy& policy, Locality own)
      : policy_(policy), own_(std::move(own)) {}

  /// The endpoints of a new answer. Of those that are in it no more nothing is kept; a newer
  /// registration of a URL is a new endpoint.
  void Listed(std::span<const Endpoint> endpoints, BootTime now);

  enum class Failure {
    kRefused,  ///< answered with no, or as somebody else
    kLost,     ///< no answer, or it broke
    kTask,     ///< works, but fails at what it is given
  };
  /// For how long it is ejected, if this failure ejected it.
  std::optional<std::chrono::milliseconds> Failed(const std::string& url, Failure how,
                                                  BootTime now);
  /// Ends what was held against it, its ejection too: who is tried in panic and works is back.
  void Worked(const std::string& url, BootTime now);
  bool Ejected(const std::string& url, BootTime now) const;

  struct Lineup {
    std::vector<Candidate>
        candidates;  ///< one an endpoint, in the order given; no credit looked at
    std::optional<BootTime> next_change;  ///< when one that is not usable may be again
  };
  /// The endpoints as candidates; ones that were never listed are as good as any.
  Lineup LineUp(std::span<const Endpoint* const> endpoints, BootTime now) const;

 private:
  struct Record {
    uint64_t created = 0;
    bool up = true, draining = false;
    std::optional<BootTime> since;        // none: since ever
    uint32_t failures = 0, refusals = 0;  // in a row, since its last ejection
    uint32_t out_times = 0;               // in a row
    BootTime failed_at{}, out_until{};    // passed by
    uint32_t ejections = 0;
    BootTime ejected_until{};
  };
  struct Standing;

  bool MayEject(const Record& one, BootTime now) const;
  Standing StandingOf(const Endpoint& endpoint, BootTime now) const;
  double RampOf(const Record& record, BootTime now) const;
  uint8_t DistanceTo(const Endpoint& endpoint) const;
  void Spill(std::span<const Standing> all, std::vector<Candidate>& candidates) const;

  const SelectionPolicy policy_;
  const Locality own_;
  std::unordered_map<std::string, Record> records_;  // by URL, as many as the answer has
  bool any_listed_ = false;
};

}  // namespace datawire
