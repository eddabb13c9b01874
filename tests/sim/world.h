#pragma once

#include <memory>
#include <string>
#include <vector>

#include "directory_node.h"
#include "resolver_process.h"
#include "service_process.h"
#include "watch_process.h"

namespace datawire::sim {

/// Who takes part, and how their clocks go. Value.
struct Shape {
  size_t services = 5, resolvers = 1, watchers = 1;
  bool replica = false;
  std::chrono::milliseconds ttl{15'000};
  double drift = 0;       ///< clocks go at 1 +- drift
  double duplicates = 0;  ///< chance that a message of a tether arrives twice
  Time delay_most = 5ms;
};

/// One run: a directory, perhaps a replica, services, resolvers, watchers, on one Scheduler.
class World {
 public:
  World(uint64_t seed, bool trace, const Shape& shape);
  ~World();

  /// Everything starts.
  void Start();
  void RunFor(Time span) { scheduler.RunUntil(scheduler.now() + span); }
  /// All faults end, all that is down starts.
  void Heal();
  /// Whatever is left to happen has happened within `bound`, or the run fails and says what not.
  void DemandSettled(Time bound);
  /// The first of what is not as it will be in a healthy system; empty: none.
  std::string Unsettled();

  DirectoryNode& leader() { return *nodes.front(); }

  Scheduler scheduler;
  Network network{scheduler};
  MachineClock leader_clock;
  std::unique_ptr<Oracle> oracle;
  std::vector<std::unique_ptr<DirectoryNode>> nodes;
  std::vector<std::unique_ptr<ServiceProcess>> services;
  std::vector<std::unique_ptr<ResolverProcess>> resolvers;
  std::vector<std::unique_ptr<WatchProcess>> watchers;
};

/// The addresses of every run; services register at the first ones.
std::vector<Address> Addresses();

/// A random run of 10 simulated minutes: 7 with faults, then 3 in which all must become well.
/// False: a promise was broken, `failure` says which and when.
struct RunResult {
  bool ok = true;
  std::string failure;
  uint64_t revisions = 0, events = 0, expired = 0, suspected = 0, answers = 0;
};
RunResult RunSeed(uint64_t seed, bool trace);

}  // namespace datawire::sim
