#include <algorithm>

#include "world.h"

namespace datawire::sim {
namespace {

constexpr Time kFaults = 420s, kWhole = 600s, kBound = 100s;

/// What happens to a world while it is not well: each kind by itself, at random times. A run has
/// some of the kinds: rare combinations are seen alone too.
class Faults {
 public:
  Faults(World& world, Time end) : world_(world), scheduler_(world.scheduler), end_(end) {}

  void Begin() {
    using Kind = void (Faults::*)();
    const std::pair<Kind, Time> kinds[] = {
        {&Faults::CrashDirectory, 150s}, {&Faults::PauseDirectory, 100s},
        {&Faults::DiscTrouble, 80s},     {&Faults::CutPath, 40s},
        {&Faults::ResetStreams, 40s},    {&Faults::KillService, 80s},
        {&Faults::PauseService, 80s},    {&Faults::StopService, 100s},
        {&Faults::StepWallClock, 100s},  {&Faults::Replay, 40s},
        {&Faults::TroubleReplica, 60s},  {&Faults::RestartResolver, 150s},
        {&Faults::LoseMany, 200s},       {&Faults::PauseReader, 60s},
    };
    const double share = 0.15 + 0.6 * scheduler_.Real();
    for (const auto& [kind, every] : kinds)
      if (scheduler_.Chance(share)) Repeat(kind, every);
  }

 private:
  void Repeat(void (Faults::*kind)(), Time every) {
    scheduler_.After(scheduler_.Between(0s, 2 * every), nullptr, [this, kind, every] {
      if (scheduler_.now() >= end_) return;
      (this->*kind)();
      Repeat(kind, every);
    });
  }
  /// Mostly short, sometimes long.
  Time Span(Time most) {
    const double x = scheduler_.Real();
    return Time(static_cast<int64_t>(x * x * double(most.count())));
  }
  void Later(Time wait, std::function<void()> task) {
    scheduler_.After(wait, nullptr, std::move(task));
  }
  void Say(const std::string& line) {
    if (scheduler_.tracing()) scheduler_.Say(line);
  }
  ServiceProcess& SomeService() {
    return *world_.services[scheduler_.Below(world_.services.size())];
  }
  Process& SomeClient() {
    const size_t services = world_.services.size(), resolvers = world_.resolvers.size();
    const size_t i = scheduler_.Below(services + resolvers + world_.watchers.size());
    if (i < services) return *world_.services[i];
    if (i < services + resolvers) return *world_.resolvers[i - services];
    return *world_.watchers[i - services - resolvers];
  }
  DirectoryNode& SomeNode() { return *world_.nodes[scheduler_.Below(world_.nodes.size())]; }

  void CrashDirectory() {
    DirectoryNode& node = world_.leader();
    const Time away = scheduler_.Chance(0.3) ? 0s : Span(120s);
    if (scheduler_.Chance(0.3)) return node.CrashAfterCommit(away);
    const bool reboots = scheduler_.Chance(0.3);
    node.Crash(reboots);
    // The oracle's clock goes on: it only measures spans.
    if (reboots) node.clock.Reboot(scheduler_.now());
    Later(away, [&node] { node.Start(); });
  }
  void PauseDirectory() {
    const Time span = scheduler_.Chance(0.5) ? Span(3s) : Span(120s);
    Say("directory sleeps for " + std::to_string(span / 1ms) + " ms");
    world_.leader().Pause(span);
  }
  void DiscTrouble() {
    const Time span = Span(30s);
    const bool fails = scheduler_.Chance(0.4);
    Say(std::string(fails ? "writes fail for " : "the disc stalls for ") +
        std::to_string(span / 1ms) + " ms");
    fails ? world_.leader().FailWrites(span) : world_.leader().Stall(span);
  }
  void CutPath() {
    Process& client = SomeClient();
    DirectoryNode& node = SomeNode();
    const size_t way = scheduler_.Below(3);
    const Time span = Span(90s);
    Say(client.name +
        (way == 0   ? " -> "
         : way == 1 ? " <- "
                    : " <-> ") +
        node.name + " cut for " + std::to_string(span / 1ms) + " ms");
    if (way != 1) world_.network.Cut(client, node);
    if (way != 0) world_.network.Cut(node, client);
    Later(span, [this, &client, &node, way] {
      if (way != 1) world_.network.Heal(client, node);
      if (way != 0) world_.network.Heal(node, client);
    });
  }
  void ResetStreams() {
    Process& process = scheduler_.Chance(0.2) ? SomeNode() : SomeClient();
    Say("streams of " + process.name + " reset");
    world_.network.BreakAll(process);
  }
  void KillService() {
    ServiceProcess& service = SomeService();
    service.Kill(scheduler_.Chance(0.5));
    StartLater(service);
  }
  void StopService() {
    ServiceProcess& service = SomeService();
    Say(service.name + " stops");
    service.Stop();
    StartLater(service);
  }
  void StartLater(ServiceProcess& service) {
    Later(1s + Span(120s), [this, &service] {
      if (service.up) return;
      service.Start();
      service.Play(end_);
    });
  }
  void PauseService() {
    ServiceProcess& service = SomeService();
    if (!service.up || service.paused) return;
    const Time span = Span(150s);
    Say(service.name + " sleeps for " + std::to_string(span / 1ms) + " ms");
    scheduler_.Pause(service, span);
  }
  void PauseReader() {
    Process& process = SomeClient();
    if (!process.up || process.paused) return;
    scheduler_.Pause(process, Span(40s));
  }
  void StepWallClock() {
    const int64_t hour = 3'600'000, steps[] = {hour, -hour, 24 * 3650 * hour, -24 * 3650 * hour};
    Process& process = scheduler_.Chance(0.5) ? SomeNode() : SomeClient();
    process.clock.wall_step_ms += steps[scheduler_.Below(4)];
  }
  void Replay() { SomeService().Replay(); }
  void TroubleReplica() {
    if (world_.nodes.size() < 2) return;
    DirectoryNode& replica = *world_.nodes[1];
    if (scheduler_.Chance(0.6)) return replica.Lag(Span(60s));
    replica.Crash(false);
    Later(Span(60s), [&replica] { replica.Start(); });
  }
  void RestartResolver() {
    if (world_.resolvers.empty()) return;
    ResolverProcess& resolver = *world_.resolvers[scheduler_.Below(world_.resolvers.size())];
    resolver.Kill();
    Later(Span(10s), [this, &resolver] {
      resolver.Start();
      resolver.Play(kWhole, 3s);
    });
  }
  void LoseMany() {
    const double share = scheduler_.Real();
    Say("many services are lost at once");
    for (const auto& service : world_.services) {
      if (!scheduler_.Chance(share)) continue;
      service->Kill(scheduler_.Chance(0.5));
      StartLater(*service);
    }
  }

  World& world_;
  Scheduler& scheduler_;
  const Time end_;
};

Shape RandomShape(std::mt19937_64& random) {
  const auto below = [&](uint64_t bound) { return random() % bound; };
  Shape shape;
  shape.services = 2 + below(5);
  const bool crowd = below(20) == 0;
  if (crowd) shape.services = 14 + below(10);
  shape.resolvers = 1 + (below(4) == 0);
  shape.watchers = below(2);
  shape.replica = below(3) == 0;
  const int ttls[] = {15'000, 15'000, 15'000, 40'000, 6'000, 3'000};
  shape.ttl = std::chrono::milliseconds(ttls[below(crowd ? 3 : 6)]);
  if (below(2) == 0) shape.drift = 0.2 * double(below(1000)) / 1000;
  if (below(3) == 0) shape.duplicates = 0.05;
  if (below(4) == 0) shape.delay_most = std::chrono::milliseconds(below(1500));
  return shape;
}

}  // namespace

RunResult RunSeed(uint64_t seed, bool trace) {
  std::mt19937_64 random(seed);
  World world(random(), trace, RandomShape(random));
  world.Start();
  for (const auto& service : world.services) service->Play(kFaults);
  for (const auto& resolver : world.resolvers) resolver->Play(kWhole, 3s);
  Faults faults(world, kFaults);
  faults.Begin();
  world.scheduler.RunUntil(kFaults);
  if (!world.scheduler.failed()) {
    world.Heal();
    for (const auto& resolver : world.resolvers) resolver->Play(kWhole, 3s);
    world.RunFor(20s);  // what an earlier fault still has to start or to heal
    world.Heal();
    world.DemandSettled(kBound);
  }
  world.scheduler.RunUntil(kWhole);
  RunResult result;
  result.ok = !world.scheduler.failed();
  result.failure = world.scheduler.failure();
  result.revisions = world.oracle->applied();
  result.events = world.scheduler.events();
  result.expired = world.oracle->expired();
  result.suspected = world.oracle->suspected();
  for (const auto& resolver : world.resolvers) result.answers += resolver->answers;
  return result;
}

}  // namespace datawire::sim
