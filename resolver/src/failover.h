#pragma once

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "datawire/clock.h"
#include "datawire/resolver.h"

namespace datawire::resolver {

/// Which directory server next, and when. Servers are taken in rendezvous order of the process's
/// seed, so that a fleet spreads; the one that works is kept. A server is tried at once while the
/// round holds one that was not tried; after a round without success comes a back-off with full
/// jitter. One that asked to wait is passed by until then. No clock, no thread. Thread-compatible.
class Failover {
 public:
  Failover(std::vector<std::string> servers, const ResolverPolicy& policy, uint64_t seed);

  const std::string& server() const { return servers_[present_]; }
  const std::vector<std::string>& servers() const { return servers_; }
  /// When server() may be tried.
  BootTime next_at() const { return next_at_; }
  /// A whole round failed since the last success.
  bool down() const { return rounds_ > 0; }

  void Opened(BootTime now);
  /// The attempt, or the stream that was open, failed.
  void Lost(BootTime now, std::optional<std::chrono::milliseconds> retry_after,
            std::mt19937_64& random);
  /// Somebody waits for an answer: shortens a long back-off, at most once in its eighth part or 1
  /// s.
  void Nudge(BootTime now);
  /// Whether one look-up more, which the stream has owed for kRaceAfter, may go to another server:
  /// 16 at once, 2/s after that, which leaves P26's 3/s room.
  bool MayRace(BootTime now);

 private:
  const ResolverPolicy policy_;
  std::vector<std::string> servers_;
  size_t present_ = 0;
  size_t tried_ = 0;     // in this round
  uint32_t rounds_ = 0;  // failed since the last stream that lasted
  std::optional<BootTime> opened_at_;
  BootTime next_at_{}, nudge_from_{};
  std::vector<BootTime> not_before_;       // of each server: its retry-after
  BootTime races_from_ = BootTime::min();  // the next kRaceEach not spent yet
};

inline constexpr std::chrono::milliseconds kRaceAfter{250}, kRaceEach{500};
inline constexpr int kRaceBurst = 16;
/// Marks come each 1 s: a server whose mark is overdue by half of one is left when another answered
/// what it owes. (Nobody else proven to work: only after the policy's stream_silence.)
inline constexpr std::chrono::milliseconds kRacedSilence{1500};

}  // namespace datawire::resolver
