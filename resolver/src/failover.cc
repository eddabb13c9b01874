#include "failover.h"

#include <absl/hash/hash.h>

#include <algorithm>

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// A stream that ends sooner is a failure, not a success: two servers that both send us away must
// not make us turn in circles.
constexpr std::chrono::seconds kLasting{1};
constexpr milliseconds kNudgeLeast{1000};

uint64_t Mixed(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

uint64_t Fnv1a(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

}  // namespace

Failover::Failover(std::vector<std::string> servers, const ResolverPolicy& policy, uint64_t seed)
    : policy_(policy), servers_(std::move(servers)) {
  std::sort(servers_.begin(), servers_.end());
  servers_.erase(std::unique(servers_.begin(), servers_.end()), servers_.end());
  const auto weight = [&](const std::string& server) { return Mixed(Fnv1a(server) ^ Mixed(seed)); };
  std::sort(servers_.begin(), servers_.end(),
            [&](const std::string& a, const std::string& b) { return weight(a) > weight(b); });
  not_before_.resize(servers_.size());
}

void Failover::Opened(BootTime now) {
  opened_at_ = now;
}

void Failover::Lost(BootTime now, std::optional<milliseconds> retry_after,
                    std::mt19937_64& random) {
  if (opened_at_ && now - *opened_at_ >= kLasting) {
    tried_ = 0;
    rounds_ = 0;
  }
  opened_at_.reset();
  tried_++;
  if (retry_after)
    not_before_[present_] = now + std::min<nanoseconds>(*retry_after, policy_.reconnect_most);
  nanoseconds wait{0};
  if (tried_ >= servers_.size()) {
    const nanoseconds most = std::min<nanoseconds>(
        policy_.reconnect_most, policy_.reconnect_least * (int64_t{1} << std::min(rounds_, 20u)));
    wait = nanoseconds(std::uniform_int_distribution<int64_t>(0, most.count())(random));
    nudge_from_ = now + std::max<nanoseconds>(std::min<nanoseconds>(kNudgeLeast, most), most / 8);
    tried_ = 0;
    rounds_++;
  }
  next_at_ = now + wait;
  size_t next = (present_ + 1) % servers_.size();
  for (size_t i = 2; i <= servers_.size() && not_before_[next] > next_at_; i++)
    if (const size_t other = (present_ + i) % servers_.size();
        not_before_[other] < not_before_[next])
      next = other;
  present_ = next;
  next_at_ = std::max(next_at_, not_before_[present_]);
}

bool Failover::MayRace(BootTime now) {
  if (servers_.size() < 2) return false;
  const BootTime full = now - kRaceEach * kRaceBurst;
  races_from_ = std::max(races_from_, full);
  if (races_from_ + kRaceEach > now) return false;
  races_from_ += kRaceEach;
  return true;
}

void Failover::Nudge(BootTime now) {
  if (rounds_ == 0) return;
  next_at_ = std::min(next_at_, std::max({now, nudge_from_, not_before_[present_]}));
}

}  // namespace datawire::resolver
