#pragma once

#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "datawire/clock.h"
#include "datawire/result.h"

namespace datawire::resolver {

/// One of the directory's servers. Value.
struct Server {
  std::string name;       ///< `host:port`
  uint32_t priority = 0;  ///< lower first
  uint32_t weight = 1;    ///< its share of the processes, within its priority
  friend bool operator==(const Server&, const Server&) = default;
};

std::vector<Server> Equals(const std::vector<std::string>& names);

/// By priority; within one, in weighted rendezvous order of the process's seed: who is first is
/// drawn in proportion to weight, as RFC 2782 asks, and stays first when others come or go. (Scores
/// -ln(u) / w: Schindelhauer & Schomaker 2005.) Weight 0 is RFC 2782's "very small chance". A name
/// that is there twice counts with its lower priority.
std::vector<Server> Ordered(std::vector<Server> servers, uint64_t seed);

/// What one SRV record says. Value.
struct SrvRecord {
  uint16_t priority = 0, weight = 0, port = 0;
  std::string target;
};

/// What a look-up brought. `status` is OK with records, also unusable ones.
struct SrvReply {
  Status status;
  std::vector<SrvRecord> records;
  std::chrono::seconds ttl{0};  ///< the least of the records'
};

/// The name that is asked for: `_datawire._tcp.<domain>`.
std::string SrvName(std::string_view domain);

/// The servers that a reply names, Ordered, as many as limits::kDirectoryServers lets. Records that
/// name no server (`.`, port 0, no host name) are passed by; kUnavailable when no other is left, as
/// when the look-up failed.
Result<std::vector<Server>> ServersOf(const SrvReply& reply, std::string_view domain,
                                      uint64_t seed);

/// When to look the servers up again: at U(0.9, 1) of the TTL, which is taken for 5 s to 10 min;
/// after a failure in 1 s, doubling to 60 s, +-20 %; when all servers failed at once, but 5 s after
/// the last time at the soonest. No clock, no thread. Thread-compatible.
class SrvSchedule {
 public:
  BootTime next_at() const { return next_at_; }
  void Asked(BootTime now);  ///< no next time until Learnt or Failed
  void Learnt(std::chrono::seconds ttl, BootTime now, std::mt19937_64& random);
  void Failed(BootTime now, std::mt19937_64& random);
  void AllServersFailed();

 private:
  BootTime next_at_{}, asked_at_{};
  uint32_t failures_ = 0;
  bool asking_ = false;
};

}  // namespace datawire::resolver
