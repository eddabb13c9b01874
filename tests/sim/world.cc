#include "world.h"

#include <algorithm>

namespace datawire::sim {

std::vector<Address> Addresses() {
  std::vector<Address> out;
  for (const char* text :
       {"//sim/a", "//sim/b", "//sim/c", "//sim/tree", "//sim/tree/leaf/1", "//sim/nowhere"})
    out.push_back(Address::Parse(text).value());
  return out;
}

World::World(uint64_t seed, bool trace, const Shape& shape) : scheduler(seed, trace) {
  const auto clock = [&] {
    const double rate = 1 + shape.drift * (2 * scheduler.Real() - 1);
    return MachineClock(rate, BootTime(std::chrono::seconds(1000 + scheduler.Below(1'000'000))));
  };
  network.delay_most = shape.delay_most;
  leader_clock = clock();
  oracle = std::make_unique<Oracle>(scheduler, leader_clock, Addresses());
  oracle->keep_events = shape.watchers > 0;
  oracle->keep_log = shape.replica;
  nodes.push_back(std::make_unique<DirectoryNode>(network, *oracle, "directory", false));
  nodes.front()->clock = leader_clock;
  oracle->tick_most = nodes.front()->tick_every * 5 / 4;  // on its clock
  if (shape.replica) {
    nodes.push_back(std::make_unique<DirectoryNode>(network, *oracle, "replica", true));
    nodes.back()->clock = clock();
  }
  std::vector<DirectoryNode*> servers;
  for (const auto& node : nodes) servers.push_back(node.get());
  std::vector<Address> served = Addresses();
  served.erase(served.begin() + 4, served.end());
  for (size_t i = 0; i < shape.services; ++i) {
    services.push_back(std::make_unique<ServiceProcess>(
        network, *oracle, servers, "s" + std::to_string(i),
        ServiceProcess::Options{shape.ttl, served, shape.duplicates}));
    services.back()->clock = clock();
  }
  for (size_t i = 0; i < shape.resolvers; ++i) {
    resolvers.push_back(
        std::make_unique<ResolverProcess>(network, *oracle, servers, "r" + std::to_string(i)));
    resolvers.back()->clock = clock();
    // Held by a cut path, a message may be nearly as old as a stream may be silent.
    resolvers.back()->age_slack = 10s * 5 / 4 + 2 * shape.delay_most + 2s;
  }
  for (size_t i = 0; i < shape.watchers; ++i) {
    watchers.push_back(
        std::make_unique<WatchProcess>(network, *oracle, servers, "w" + std::to_string(i)));
    watchers.back()->clock = clock();
  }
}

World::~World() {
  for (const auto& resolver : resolvers) resolver->Kill();
}

void World::Start() {
  for (const auto& node : nodes) node->Start();
  for (const auto& service : services) service->Start();
  for (const auto& resolver : resolvers) resolver->Start();
  for (const auto& watcher : watchers) scheduler.As(*watcher, [&] { watcher->Start(); });
}

void World::Heal() {
  if (scheduler.tracing()) scheduler.Say("all heals");
  network.HealAll();
  network.delay_most = 5ms;
  std::vector<Process*> all;
  for (const auto& node : nodes) {
    if (node->paused) scheduler.Resume(*node);
    node->CrashAfterCommit({});
    node->Lag(0s);
    node->Start();
  }
  for (const auto& service : services) {
    if (service->paused) scheduler.Resume(*service);
    service->Start();
  }
  for (const auto& resolver : resolvers) {
    if (resolver->paused) scheduler.Resume(*resolver);
    resolver->Start();
  }
  for (const auto& watcher : watchers)
    if (watcher->paused) scheduler.Resume(*watcher);
}

std::string World::Unsettled() {
  for (const auto& service : services)
    if (std::string why = service->Settled(); !why.empty()) return why;
  // What was committed a moment ago is still on its way.
  if (scheduler.now() - oracle->last_commit() < 3s) return "the directory still changes";
  for (const auto& resolver : resolvers)
    if (std::string why = resolver->Settled(); !why.empty()) return why;
  for (const auto& watcher : watchers)
    if (std::string why = watcher->Settled(); !why.empty()) return why;
  return "";
}

void World::DemandSettled(Time bound) {
  const Time end = scheduler.now() + bound;
  std::string why;
  while (!scheduler.failed()) {
    why = Unsettled();
    if (why.empty()) return;
    if (scheduler.now() >= end) break;
    RunFor(1s);
  }
  scheduler.Fail("not well after " + std::to_string(bound / 1s) + " s without faults: " + why);
}

}  // namespace datawire::sim
