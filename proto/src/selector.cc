#include "datawire/selector.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

namespace datawire {
namespace {

/// Candidates of equal rank are one group; the lowest is the one drawn from.
struct Rank {
  bool suspect = false;
  uint32_t priority = 0;
  bool last_resort = false;  // weight 0
  // Told apart by `balanced` only:
  uint8_t far = 0;  // of a distance without load: the nearer first
  bool no_credit = false;

  friend auto operator<=>(const Rank&, const Rank&) = default;
};

bool Eligible(const Candidate& candidate) {
  return candidate.usable && candidate.endpoint->state != EndpointState::kDraining;
}

Rank RankOf(const Candidate& candidate, bool balanced) {
  const Endpoint& endpoint = *candidate.endpoint;
  Rank rank{endpoint.state == EndpointState::kSuspect && !candidate.trusted, endpoint.priority,
            endpoint.weight == 0, 0, false};
  if (balanced && candidate.load <= 0) rank.far = static_cast<uint8_t>(candidate.distance + 1);
  rank.no_credit = balanced && !candidate.has_credit;
  return rank;
}

/// Inside a group of weight 0 all count the same.
double WeightOf(const Candidate& candidate) {
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
  return -WeightOf(candidate) / std::log(u);
}

/// The candidates of one rank, each with the part of the messages it is to get.
class Shares {
 public:
  Shares(std::span<const Candidate> candidates, const Rank& rank)
      : candidates_(candidates), rank_(rank) {
    std::array<double, kDistances> sums{}, loads{};
    for (const Candidate& candidate : candidates) {
      if (!Has(candidate)) continue;
      sums[candidate.distance] += Part(candidate);
      loads[candidate.distance] = rank.far > 0 ? 1 : candidate.load;
      total_ += Part(candidate);
    }
    double given = 0;
    for (size_t d = 0; d < kDistances; ++d) {
      if (sums[d] > 0) scale_[d] = total_ / sums[d] * loads[d];
      given += sums[d] * scale_[d];
    }
    total_ = given;
  }

  double Of(const Candidate& candidate) const {
    return Part(candidate) * scale_[candidate.distance];
  }
  size_t Draw(Random& random) const {
    double ticket = static_cast<double>(random() >> 11) * 0x1p-53 * total_;
    size_t last = 0;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      if (!Has(candidates_[i])) continue;
      last = i;
      ticket -= Of(candidates_[i]);
      if (ticket < 0) break;
    }
    return last;
  }

 private:
  bool Has(const Candidate& candidate) const {
    return Eligible(candidate) && RankOf(candidate, true) == rank_;
  }
  static double Part(const Candidate& candidate) { return WeightOf(candidate) * candidate.ramp; }

  const std::span<const Candidate> candidates_;
  const Rank rank_;
  std::array<double, kDistances> scale_{};
  double total_ = 0;
};

size_t SelectBalanced(std::span<const Candidate> candidates, const Rank& rank, Random& random) {
  const Shares shares(candidates, rank);
  const size_t first = shares.Draw(random), second = shares.Draw(random);
  // a/b < c/d without division.
  const Candidate& a = candidates[first];
  const Candidate& b = candidates[second];
  return b.unsettled * shares.Of(a) < a.unsettled * shares.Of(b) ? second : first;
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
  const bool balanced = policy == Policy::kBalanced;
  std::optional<Rank> rank;
  for (const Candidate& candidate : candidates) {
    if (!Eligible(candidate)) continue;
    const Rank its = RankOf(candidate, balanced);
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
    bool spare;  // beyond its distance's part of the links
    double score;
    size_t index;
  };
  std::vector<Entry> entries;
  entries.reserve(candidates.size());
  bool any_up = false;
  const uint64_t mixed_key = Mix(seed + 0x9e3779b97f4a7c15u);  // Mix(0) is 0
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!Eligible(candidates[i])) continue;
    Rank rank = RankOf(candidates[i], true);
    rank.no_credit = false;
    entries.push_back({rank, false, Score(candidates[i], mixed_key), i});
    any_up |= !entries.back().rank.suspect;
  }
  if (any_up) std::erase_if(entries, [](const Entry& e) { return e.rank.suspect; });

  const auto before = [&](const Entry& a, const Entry& b) {
    if (a.rank != b.rank) return a.rank < b.rank;
    if (a.spare != b.spare) return b.spare;
    if (a.score != b.score) return a.score > b.score;
    return candidates[a.index].endpoint->url < candidates[b.index].endpoint->url;
  };
  const auto distance = [&](const Entry& e) { return candidates[e.index].distance; };
  if (std::any_of(entries.begin(), entries.end(),
                  [&](const Entry& e) { return distance(e) != distance(entries.front()); })) {
    std::sort(entries.begin(), entries.end(), before);
    std::array<size_t, kDistances> links{};
    for (Entry& entry : entries) {
      if (entry.rank != entries.front().rank || entry.rank.far > 0) break;
      const auto part = std::lround(static_cast<double>(most) * candidates[entry.index].load);
      entry.spare = ++links[distance(entry)] > static_cast<size_t>(std::max(part, 1l));
    }
  }
  const size_t count = std::min(most, entries.size());
  std::partial_sort(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(count),
                    entries.end(), before);

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
