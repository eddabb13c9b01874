#pragma once

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "datawire/clock.h"
#include "datawire/resolver.h"
#include "srv.h"

namespace datawire::resolver {

/// Which directory server next, and when. Servers are taken by priority, and within one in
/// rendezvous order of the process's seed, so that a fleet spreads; the one that works is kept. A
/// server is tried at once while the round of three holds one that was not tried; after a round
/// without success comes a back-off with full jitter. One that asked to wait is passed by until
/// then. No clock, no thread. Thread-compatible.
class Failover {
 public:
  Failover(std::vector<Server> servers, const ResolverPolicy& policy, uint64_t seed);

  /// There may be none, until Set: then server() must not be asked.
  const std::vector<std::string>& servers() const { return names_; }
  const std::string& server() const { return names_[present_]; }
  /// Other servers from now on. False: server() is another one, to be tried at once.
  bool Set(std::vector<Server> servers, BootTime now);
  /// When server() may be tried; the end of time if there is none.
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
  struct Peer {
    uint32_t priority = 0;
    bool tried = false;     // since all were, or since one worked
    BootTime not_before{};  // its retry-after
  };
  void StartAnew();
  size_t Next() const;

  const ResolverPolicy policy_;
  const uint64_t seed_;
  std::vector<std::string> names_;
  std::vector<Peer> peers_;  // of each name
  size_t present_ = 0;
  size_t attempts_ = 0;  // in this round
  uint32_t rounds_ = 0;  // failed since the last stream that lasted
  std::optional<BootTime> opened_at_;
  BootTime next_at_{}, nudge_from_{};
  BootTime races_from_ = BootTime::min();  // the next kRaceEach not spent yet
};

inline constexpr std::chrono::milliseconds kRaceAfter{250}, kRaceEach{500};
inline constexpr int kRaceBurst = 16;
inline constexpr size_t kRound = 3;  ///< servers tried in a round, or asked in a race
/// Marks come each 1 s: a server whose mark is overdue by half of one is left when another answered
/// what it owes. (Nobody else proven to work: only after the policy's stream_silence.)
inline constexpr std::chrono::milliseconds kRacedSilence{1500};

}  // namespace datawire::resolver
