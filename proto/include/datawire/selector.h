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

/// One endpoint as a chooser sees it. Value.
struct Candidate {
  const Endpoint* endpoint = nullptr;
  bool usable = true;      ///< not ejected, not known to be refused or failing
  bool has_credit = true;  ///< its link can take a message now (or no link is open yet)
  uint32_t unsettled = 0;  ///< messages sent there and not yet settled
};

/// Picks an endpoint for one message (client), redirect (AMQP) or record (DNS): index into
/// `candidates`, or nothing if none is usable.
/// balanced: lowest priority value that has a usable up endpoint; two drawn in proportion to
/// weight, free credit first, then the lower unsettled / weight, tie to the first drawn ("power of
/// two choices", Mitzenmacher 2001). ordered: priority, then the oldest registration. consistent:
/// weighted rendezvous hash of (key, URL) (Thaler & Ravishankar 1998; weights by -w / ln(u),
/// Schindelhauer & Schomaker 2005). Suspect endpoints are drawn only when no up one is usable,
/// draining ones never for new work. Weight 0 is a last resort inside its priority group.
std::optional<size_t> Select(Policy policy, std::span<const Candidate> candidates,
                             std::string_view key, Random& random);

/// At most `most` endpoints that a sender opens links to, by rendezvous of (seed, URL) within the
/// order of Select's groups, so that many senders spread evenly over many endpoints.
std::vector<size_t> ChooseLinks(std::span<const Candidate> candidates, size_t most, uint64_t seed);

/// FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/); stable across machines, versions.
uint64_t StableHash(std::string_view bytes, uint64_t basis = 0xcbf29ce484222325u);

}  // namespace datawire
