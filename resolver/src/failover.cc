#include "failover.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// A stream that ends sooner is a failure, not a success: two servers that both send us away must
// not make us turn in circles.
constexpr std::chrono::seconds kLasting{1};
constexpr milliseconds kNudgeLeast{1000};

}  // namespace

Failover::Failover(std::vector<Server> servers, const ResolverPolicy& policy, uint64_t seed)
    : policy_(policy), seed_(seed) {
  next_at_ = BootTime::max();
  if (!servers.empty()) Set(std::move(servers), BootTime{});
}

bool Failover::Set(std::vector<Server> servers, BootTime now) {
  servers = Ordered(std::move(servers), seed_);
  const auto names = std::exchange(names_, {});
  const auto peers = std::exchange(peers_, {});
  const std::string kept = names.empty() ? std::string() : names[present_];
  present_ = servers.size();
  for (const Server& server : servers) {
    const auto at =
        static_cast<size_t>(std::find(names.begin(), names.end(), server.name) - names.begin());
    if (server.name == kept) present_ = names_.size();
    names_.push_back(server.name);
    peers_.push_back(at < peers.size() ? peers[at] : Peer{});
    peers_.back().priority = server.priority;
  }
  if (present_ < names_.size()) {
    const auto known = [&](const std::string& name) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    if (!std::all_of(names_.begin(), names_.end(), known)) next_at_ = std::min(next_at_, now);
    return true;
  }
  opened_at_.reset();
  present_ = 0;
  rounds_ = 0;
  StartAnew();
  next_at_ = std::max(now, peers_[present_].not_before);
  return false;
}

void Failover::StartAnew() {
  attempts_ = 0;
  for (Peer& peer : peers_) peer.tried = false;
}

void Failover::Opened(BootTime now) {
  opened_at_ = now;
}

void Failover::Lost(BootTime now, std::optional<milliseconds> retry_after,
                    std::mt19937_64& random) {
  if (opened_at_ && now - *opened_at_ >= kLasting) {
    StartAnew();
    rounds_ = 0;
  }
  opened_at_.reset();
  attempts_++;
  peers_[present_].tried = true;
  if (retry_after)
    peers_[present_].not_before = now + std::min<nanoseconds>(*retry_after, policy_.reconnect_most);
  nanoseconds wait{0};
  if (attempts_ >= std::min(kRound, peers_.size())) {
    const nanoseconds most = std::min<nanoseconds>(
        policy_.reconnect_most, policy_.reconnect_least * (int64_t{1} << std::min(rounds_, 20u)));
    wait = nanoseconds(std::uniform_int_distribution<int64_t>(0, most.count())(random));
    nudge_from_ = now + std::max<nanoseconds>(std::min<nanoseconds>(kNudgeLeast, most), most / 8);
    attempts_ = 0;
    rounds_++;
  }
  next_at_ = now + wait;
  if (std::all_of(peers_.begin(), peers_.end(), [](const Peer& p) { return p.tried; }))
    for (Peer& peer : peers_) peer.tried = false;
  present_ = Next();
  next_at_ = std::max(next_at_, peers_[present_].not_before);
}

// One that need not wait, before all others; one not tried; the lowest priority; the next in turn.
size_t Failover::Next() const {
  const auto rank = [&](size_t i) {
    const Peer& peer = peers_[i];
    const size_t turn = (i + peers_.size() - present_ - 1) % peers_.size();
    return std::tuple(peer.not_before > next_at_ ? peer.not_before : BootTime::min(), peer.tried,
                      peer.priority, turn);
  };
  size_t next = 0;
  for (size_t i = 1; i < peers_.size(); i++)
    if (rank(i) < rank(next)) next = i;
  return next;
}

bool Failover::MayRace(BootTime now) {
  if (names_.size() < 2) return false;
  const BootTime full = now - kRaceEach * kRaceBurst;
  races_from_ = std::max(races_from_, full);
  if (races_from_ + kRaceEach > now) return false;
  races_from_ += kRaceEach;
  return true;
}

void Failover::Nudge(BootTime now) {
  if (rounds_ == 0) return;
  next_at_ = std::min(next_at_, std::max({now, nudge_from_, peers_[present_].not_before}));
}

}  // namespace datawire::resolver
