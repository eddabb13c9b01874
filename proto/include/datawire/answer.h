#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datawire/address.h"
#include "datawire/endpoint_url.h"
#include "datawire/revision.h"

namespace datawire {

/// Status of an answer. A failure to know never looks like an empty answer.
enum class AnswerStatus { kUnavailable = 0, kFound = 1, kNoEndpoint = 2, kNotFound = 3 };
/// A committed fact, the same on every node. The order is the order in a row.
enum class EndpointState { kUp = 0, kDraining = 1, kSuspect = 2 };
/// How a client picks.
enum class Policy { kBalanced = 0, kOrdered = 1, kConsistent = 2 };

std::string_view AnswerStatusName(AnswerStatus status);   ///< `FOUND`, `NO_ENDPOINT`, ...
std::string_view EndpointStateName(EndpointState state);  ///< `up`, `draining`, `suspect`
std::string_view PolicyName(Policy policy);               ///< `balanced`, ...

/// One endpoint of an answer. Value.
struct Endpoint {
  EndpointUrl url;
  EndpointState state = EndpointState::kUp;
  uint32_t priority = 0;  ///< lower first, as in SRV
  uint32_t weight = 100;  ///< 0-1000, share within a priority; 0 = last resort
  std::string region, zone;
  std::map<std::string, std::string> labels;
  bool is_static = false;
  uint64_t created = 0;  ///< revision number of the registration: `ordered` takes the oldest
  std::string identity;  ///< SPIFFE ID that its certificate must name; empty: any its CA signed

  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

/// What a resolve returns. Value; shared as `std::shared_ptr<const Answer>`.
struct Answer {
  Address address;
  AnswerStatus status = AnswerStatus::kUnavailable;
  std::optional<Address> matched;  ///< the address or ancestor whose registrations these are
  Policy policy = Policy::kBalanced;
  Revision revision;  ///< applied revision at which it was computed or last confirmed
  Revision modified;  ///< last change of the matched records
  std::chrono::milliseconds age{0};  ///< server age + time since receipt
  bool stale = false;                ///< age > 5 s, in any state
  std::chrono::milliseconds ttl{0};
  std::string source;  ///< "directory", "cache" or "snapshot"
  std::vector<Endpoint> endpoints;
  uint32_t total = 0;  ///< registrations there are; may exceed endpoints.size()
  uint64_t hash = 0;   ///< of status, matched, policy and endpoints; equal hash = equal content
};

}  // namespace datawire
