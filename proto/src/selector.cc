#include "datawire/selector.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace datawire {
namespace {

/// Candidates of equal rank are one group; the lowest is the one drawn from.
struct Rank {
  bool suspect = false;
  uint32_t priority = 0;
  bool last_resort = false;  // weight 0
  bool no_credit = false;    // told apart by `balanced` only

  friend auto operator<=>(const Rank&, const Rank&) = default;
};

bool Eligible(const Candidate& candidate) {
  return candidate.usable && candidate.endpoint->state != EndpointState::kDraining;
}

Rank RankOf(const Candidate& candidate, bool by_credit) {
  const Endpoint& endpoint = *candidate.endpoint;
  return {endpoint.state == EndpointState::kSuspect, endpoint.priority, endpoint.weight == 0,
          by_credit && !candidate.has_credit};
}

/// Inside a group of weight 0 all count the same.
uint32_t ShareOf(const Candidate& candidate) {
  return std::max(candidate.endpoint->weight, 1u);
}

/// The finaliser of splitmix64 (Steele, Lea & Flood 2014): FNV alone spreads its last bytes poorly.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Higher wins. 52 bits of hash make `u` exact and strictly between 0 and 1.
double Score(const Candidate& candidate, uint64_t mixed_key) {
  const uint64_t hash = Mix(StableHash(candidate.endpoint->url.text()) ^ mixed_key);
  const double u = (static_cast<double>(hash >> 12) + 0.5) * 0x1p-52;
  return -static_cast<double>(ShareOf(candidate)) / std::log(u);
}

size_t DrawByShare(std::span<const Candidate> candidates, const Rank& rank, uint64_t total,
                   Random& random) {
  uint64_t ticket = random() % total;  // total <= 2^40: the bias is below 2^-24
  size_t last = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!Eligible(candidates[i]) || RankOf(candidates[i], true) != rank) continue;
    last = i;
    const uint64_t share = ShareOf(candidates[i]);
    if (ticket < share) break;
    ticket -= share;
  }
  return last;
}

size_t SelectBalanced(std::span<const Candidate> candidates, const Rank& rank, Random& random) {
  uint64_t total = 0;
  for (const Candidate& candidate : candidates) {
    if (Eligible(candidate) && RankOf(candidate, true) == rank) total += ShareOf(candidate);
  }
  const size_t first = DrawByShare(candidates, rank, total, random);
  const size_t second = DrawByShare(candidates, rank, total, random);
  // a/b < c/d without division.
  const Candidate& a = candidates[first];
  const Candidate& b = candidates[second];
  const bool second_is_freer =
      uint64_t{b.unsettled} * ShareOf(a) < uint64_t{a.unsettled} * ShareOf(b);
  return second_is_freer ? second : first;
}

template <typename Better>
size_t Best(std::span<const Candidate> candidates, const Rank& rank, Better better) {
  std::optional<size_t> best;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!Eligible(candidates[i]) || RankOf(candidates[i], false) != rank) continue;
    if (!best || better(candidates[i], candidates[*best])) best = i;
  }
  return *best;
}

}  // namespace

std::optional<size_t> Select(Policy policy, std::span<const Candidate> candidates,
                             std::string_view key, Random& random) {
  const bool by_credit = policy == Policy::kBalanced;
  std::optional<Rank> rank;
  for (const Candidate& candidate : candidates) {
    if (!Eligible(candidate)) continue;
    const Rank its = RankOf(candidate, by_credit);
    if (!rank || its < *rank) rank = its;
  }
  if (!rank) return std::nullopt;

  switch (policy) {
    case Policy::kBalanced:
      return SelectBalanced(candidates, *rank, random);
    case Policy::kOrdered:
      return Best(candidates, *rank, [](const Candidate& a, const Candidate& b) {
        return std::tie(a.endpoint->created, a.endpoint->url) <
               std::tie(b.endpoint->created, b.endpoint->url);
      });
    case Policy::kConsistent: {
      const uint64_t mixed_key = Mix(StableHash(key));
      return Best(candidates, *rank, [&](const Candidate& a, const Candidate& b) {
        const double score_a = Score(a, mixed_key), score_b = Score(b, mixed_key);
        return score_a != score_b ? score_a > score_b : a.endpoint->url < b.endpoint->url;
      });
    }
  }
  return std::nullopt;
}

std::vector<size_t> ChooseLinks(std::span<const Candidate> candidates, size_t most, uint64_t seed) {
  struct Entry {
    Rank rank;
    double score;
    size_t index;
  };
  std::vector<Entry> entries;
  entries.reserve(candidates.size());
  bool any_up = false;
  const uint64_t mixed_key = Mix(seed + 0x9e3779b97f4a7c15u);  // Mix(0) is 0
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!Eligible(candidates[i])) continue;
    entries.push_back({RankOf(candidates[i], false), Score(candidates[i], mixed_key), i});
    any_up |= !entries.back().rank.suspect;
  }
  if (any_up) std::erase_if(entries, [](const Entry& e) { return e.rank.suspect; });

  const size_t count = std::min(most, entries.size());
  std::partial_sort(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(count),
                    entries.end(), [&](const Entry& a, const Entry& b) {
                      if (a.rank != b.rank) return a.rank < b.rank;
                      if (a.score != b.score) return a.score > b.score;
                      return candidates[a.index].endpoint->url < candidates[b.index].endpoint->url;
                    });
  std::vector<size_t> chosen;
  chosen.reserve(count);
  for (size_t i = 0; i < count; ++i) chosen.push_back(entries[i].index);
  return chosen;
}

uint64_t StableHash(std::string_view bytes, uint64_t basis) {
  uint64_t hash = basis;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace datawire
