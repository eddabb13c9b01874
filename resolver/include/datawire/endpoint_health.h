#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "datawire/answer.h"
#include "datawire/clock.h"
#include "datawire/selection.h"
#include "datawire/selector.h"

namespace datawire {

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
