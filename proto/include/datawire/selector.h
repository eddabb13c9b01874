#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <vector>

#include "datawire/answer.h"

namespace datawire {

/// The generator passed into everything that draws lots; seeded by tests.
using Random = std::mt19937_64;

/// How near an endpoint is: same zone, same region, elsewhere.
inline constexpr uint8_t kDistances = 3;

/// One endpoint as a chooser sees it; the resolver's EndpointHealth knows all but credit and load
/// of its link. Value.
struct Candidate {
  const Endpoint* endpoint = nullptr;
  bool usable = true;      ///< not ejected, not known to be refused or failing
  bool has_credit = true;  ///< its link can take a message now (or no link is open yet)
  uint32_t unsettled = 0;  ///< messages sent there and not yet settled
  bool trusted = false;    ///< panic: a suspect one counts as up
  // Of `balanced` only:
  double ramp = 1;       ///< the part of its weight that counts (slow start)
  uint8_t distance = 0;  ///< below kDistances
  double load = 1;  ///< what all at this distance take together; 0: only if none of the others can
};

/// Picks an endpoint for one message (client), redirect (AMQP) or record (DNS): index into
/// `candidates`, or nothing if none is usable.
/// balanced: lowest priority value that has a usable up endpoint; two drawn in proportion to
/// weight (each distance by its load, inside it by weight x ramp), free credit first, then the
/// lower unsettled / weight, tie to the first drawn ("power of two choices", Mitzenmacher 2001).
/// ordered: priority, then the oldest registration. consistent: weighted rendezvous hash of (key,
/// URL) (Thaler & Ravishankar 1998; weights by -w / ln(u), Schindelhauer & Schomaker 2005).
/// Suspect endpoints are drawn only when no up one is usable, draining ones never for new work.
/// Weight 0 is a last resort inside its priority group. Lack of credit does not spill over to a
/// later priority, nor to a distance without load.
std::optional<size_t> Select(Policy policy, std::span<const Candidate> candidates,
                             std::string_view key, Random& random);

/// At most `most` endpoints that a sender opens links to, by rendezvous of (seed, URL) within the
/// order of Select's groups, so that many senders spread evenly over many endpoints. Each distance
/// that has load gets its part of the links, at least one.
std::vector<size_t> ChooseLinks(std::span<const Candidate> candidates, size_t most, uint64_t seed);

/// FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/); stable across machines, versions.
uint64_t StableHash(std::string_view bytes, uint64_t basis = 0xcbf29ce484222325u);

}  // namespace datawire
