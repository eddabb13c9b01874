#include <gtest/gtest.h>

#include "world.h"

namespace datawire::sim {
namespace {

/// A named scenario: one seed, no chance in what happens.
class Scenario : public ::testing::Test {
 protected:
  void Begin(const Shape& shape) {
    world_ = std::make_unique<World>(7, false, shape);
    world_->Start();
    world_->DemandSettled(10s);
    Fine();
  }
  /// No promise is broken so far.
  void Fine() { ASSERT_FALSE(world_->scheduler.failed()) << world_->scheduler.failure(); }
  void Pass(Time span) {
    world_->RunFor(span);
    Fine();
  }
  void Settle(Time bound) {
    world_->DemandSettled(bound);
    Fine();
  }
  std::vector<std::string> SessionIds() const {
    std::vector<std::string> out;
    for (const auto& service : world_->services) out.push_back(service->session());
    return out;
  }
  void Serve(size_t service, const std::string& address) {
    ServiceProcess& process = *world_->services[service];
    world_->scheduler.As(process, [&] { process.Register(Address::Parse(address).value()); });
  }
  size_t Expired() const { return world_->oracle->expired(); }

  std::unique_ptr<World> world_;
};

// ---- outages (P10)

struct Outage {
  const char* name;
  Time span;
};
class OutageOf : public Scenario, public ::testing::WithParamInterface<Outage> {};

TEST_P(OutageOf, ACrashedDirectoryExpiresNobody) {
  Begin({.services = 3, .resolvers = 1, .watchers = 0, .drift = 0.2});
  const auto before = SessionIds();
  world_->leader().Crash(/*silently=*/true);
  Pass(GetParam().span);
  world_->leader().Start();
  Pass(200s);
  Settle(0s);
  EXPECT_EQ(Expired(), 0u);
  EXPECT_EQ(world_->oracle->suspected(), 0u);
  EXPECT_EQ(SessionIds(), before);
}

TEST_P(OutageOf, ADirectoryOnASickDiscExpiresNobody) {
  Begin({.services = 3, .resolvers = 1, .watchers = 0, .drift = 0.2});
  const auto before = SessionIds();
  world_->leader().FailWrites(GetParam().span);
  // All of them lose their streams and cannot resume: a resume is a commit.
  world_->network.BreakAll(world_->leader());
  Pass(GetParam().span + 200s);
  Settle(0s);
  EXPECT_EQ(Expired(), 0u);
  EXPECT_EQ(SessionIds(), before);
}

INSTANTIATE_TEST_SUITE_P(Lengths, OutageOf,
                         ::testing::Values(Outage{"NoTime", 0s}, Outage{"HalfAMinute", 30s},
                                           Outage{"AnHour", 1h}, Outage{"ADay", 24h},
                                           Outage{"SevenDays", 24h * 7}),
                         [](const auto& one) { return one.param.name; });

class SleepOf : public OutageOf {};
TEST_P(SleepOf, ADirectoryThatWasStoppedExpiresNobody) {
  Begin({.services = 3, .resolvers = 1, .watchers = 0, .drift = 0.2});
  const auto before = SessionIds();
  world_->leader().Pause(GetParam().span);
  Pass(GetParam().span + 200s);
  Settle(0s);
  EXPECT_EQ(Expired(), 0u);
  EXPECT_EQ(SessionIds(), before);
}
INSTANTIATE_TEST_SUITE_P(Lengths, SleepOf,
                         ::testing::Values(Outage{"HalfAMinute", 30s}, Outage{"AnHour", 1h}),
                         [](const auto& one) { return one.param.name; });

// ---- many at once (P11, P12)

class LossOf : public Scenario, public ::testing::WithParamInterface<int> {
 protected:
  static constexpr size_t kServices = 40, kBudget = 10;
};

TEST_P(LossOf, ManySessionsAtOnceIsBraked) {
  Begin({.services = kServices, .resolvers = 1, .watchers = 0});
  const size_t lost = kServices * GetParam() / 100;
  for (size_t i = 0; i < lost; ++i) world_->services[i]->Kill(/*silently=*/true);
  Pass(60s);
  if (lost <= kBudget) {
    EXPECT_EQ(Expired(), lost);
    EXPECT_EQ(world_->oracle->suspected(), 0u);
    return;
  }
  EXPECT_EQ(Expired(), 0u) << "the brake";
  EXPECT_EQ(world_->oracle->suspected(), lost);
  // Nobody who asks finds nothing, however many are gone.
  for (const char* text : {"//sim/a", "//sim/b", "//sim/c", "//sim/tree"}) {
    const auto told = world_->resolvers[0]->told(Address::Parse(text).value());
    EXPECT_FALSE(told->endpoints.empty()) << text;
  }
  // Past its 15 minutes the suspects go, at the budget's rate: the oracle counts.
  Pass(15min);
  Pass(60s * (lost / kBudget + 2));
  EXPECT_EQ(Expired(), lost);
  EXPECT_EQ(world_->oracle->sessions().size(), kServices - lost);
}

TEST_P(LossOf, ManySessionsThatComeBackAreUpAgain) {
  Begin({.services = kServices, .resolvers = 1, .watchers = 0});
  const size_t lost = kServices * GetParam() / 100;
  const auto before = SessionIds();
  if (lost <= kBudget) return;
  for (size_t i = 0; i < lost; ++i) {
    world_->network.Cut(*world_->services[i], world_->leader());
    world_->network.Cut(world_->leader(), *world_->services[i]);
  }
  Pass(60s);
  EXPECT_EQ(world_->oracle->suspected(), lost);
  world_->network.HealAll();
  Settle(30s);
  EXPECT_EQ(Expired(), 0u);
  EXPECT_EQ(SessionIds(), before);
}

INSTANTIATE_TEST_SUITE_P(Percent, LossOf, ::testing::Values(10, 30, 60, 100));

// ---- a process asleep (P24)

TEST_F(Scenario, AProcessAsleepForHalfItsTtlKeepsItsSession) {
  Begin({.services = 3});
  const auto before = SessionIds();
  world_->scheduler.Pause(*world_->services[0], 7500ms);
  Pass(10s);
  Settle(2s);
  EXPECT_EQ(SessionIds(), before);
}

class AsleepFor : public Scenario, public ::testing::WithParamInterface<int> {};
TEST_P(AsleepFor, LongerThanItsTtlItRegistersAgainWithinTwoSecondsOfWaking) {
  Begin({.services = 3});
  ServiceProcess& sleeper = *world_->services[0];
  const std::string before = sleeper.session();
  const Time nap = 15s * GetParam() / 10;
  world_->scheduler.Pause(sleeper, nap);
  Pass(nap - 1ms);
  EXPECT_EQ(world_->oracle->Find(before), nullptr) << "expired meanwhile";
  EXPECT_EQ(sleeper.expiries_seen(), 0u) << "it still sleeps";
  Pass(1ms + 2s);
  EXPECT_EQ(sleeper.Settled(), "");
  EXPECT_NE(sleeper.session(), before);
  EXPECT_EQ(sleeper.sessions_seen(), 2u);
}
INSTANTIATE_TEST_SUITE_P(TenthsOfTtl, AsleepFor, ::testing::Values(15, 100));

TEST_F(Scenario, AKilledProcessLeavesTheHealthyAnswersAfterNineToTwentySeconds) {
  Begin({.services = 3});
  for (size_t i = 0; i < 3; ++i) Serve(i, "//sim/a");
  Settle(10s);
  Pass(11s);
  const Address address = Address::Parse("//sim/a").value();
  const auto listed = [&] { return world_->resolvers[0]->told(address)->endpoints.size(); };
  ASSERT_EQ(listed(), 3u);
  world_->services[0]->Kill(/*silently=*/true);
  Pass(9s);
  EXPECT_EQ(listed(), 3u);
  Pass(11s);
  EXPECT_EQ(listed(), 2u);
}

// ---- old requests, clocks

TEST_F(Scenario, AReplayedOldStreamChangesNothing) {
  Begin({.services = 2});
  ServiceProcess& service = *world_->services[0];
  for (int i = 0; i < 3; ++i) {
    Serve(0, i % 2 == 0 ? "//sim/a" : "//sim/b");
    Pass(1s);
    world_->network.BreakAll(service);
    Settle(20s);
  }
  const auto withdrawn = Address::Parse("//sim/a").value();
  world_->scheduler.As(service, [&] { service.Withdraw(withdrawn); });
  Settle(10s);
  const uint64_t applied = world_->oracle->applied();
  const std::string session = service.session();
  for (int i = 0; i < 20; ++i) {
    service.Replay();
    Pass(1s);
  }
  EXPECT_EQ(world_->oracle->applied(), applied);
  EXPECT_EQ(service.session(), session);
  Settle(0s);
}

TEST_F(Scenario, AStepOfTheWallClockChangesNothing) {
  const auto run = [&](int64_t step_ms) {
    Begin({.services = 4, .resolvers = 1, .watchers = 1});
    world_->oracle->keep_log = true;
    for (const auto& service : world_->services) service->Play(300s);
    std::vector<Process*> all = {&world_->leader()};
    for (const auto& service : world_->services) all.push_back(service.get());
    for (const auto& resolver : world_->resolvers) all.push_back(resolver.get());
    for (int i = 0; i < 10; ++i) {
      all[i % all.size()]->clock.wall_step_ms += i % 2 == 0 ? step_ms : -3 * step_ms;
      if (i == 3) world_->services[3]->Kill(/*silently=*/true);
      if (i == 6) {
        world_->leader().Crash(false);
        world_->leader().Start();
      }
      Pass(60s);
    }
    std::vector<std::string> happened;
    for (const auto& batch : world_->oracle->log()) {
      for (const auto& put : batch.puts) happened.push_back(batch.at.ToString() + " " + put.key);
      for (const auto& key : batch.erased) happened.push_back(batch.at.ToString() + " -" + key);
    }
    EXPECT_GE(Expired(), 1u);
    return happened;
  };
  const auto straight = run(0);
  ASSERT_GT(straight.size(), 20u);
  constexpr int64_t kHour = 3'600'000;
  EXPECT_EQ(run(kHour), straight);
  EXPECT_EQ(run(-10 * 365 * 24 * kHour), straight);
}

// ---- resolvers

TEST_F(Scenario, AResolverThatNeverReachedTheDirectoryDoesNotSayThatThereIsNothing) {
  world_ = std::make_unique<World>(7, false, Shape{.services = 0, .watchers = 0});
  ResolverProcess& resolver = *world_->resolvers[0];
  resolver.Start();
  for (int i = 0; i < 100; ++i) {
    world_->scheduler.As(resolver, [&] { resolver.Resolve(Addresses()[i % 6]); });
    Pass(3s);
  }
  EXPECT_EQ(resolver.answers, 100u);
  EXPECT_EQ(resolver.unavailable, 100u);
}

TEST_F(Scenario, WhatWasKnownIsAnsweredStaleThroughADayWithoutADirectory) {
  Begin({.services = 4, .resolvers = 1, .watchers = 0});
  ResolverProcess& resolver = *world_->resolvers[0];
  world_->leader().Crash(false);
  Pass(60s);
  const auto ask = [&] {
    const uint64_t stale = resolver.stale, unavailable = resolver.unavailable;
    world_->scheduler.As(resolver, [&] { resolver.Resolve(Addresses()[0]); });
    world_->scheduler.As(resolver, [&] { resolver.Resolve(Addresses()[5]); });
    Pass(3s);
    EXPECT_EQ(resolver.stale, stale + 1);
    EXPECT_EQ(resolver.unavailable, unavailable + 1) << "NOT_FOUND is past its 5 s";
  };
  ask();
  Pass(23h);
  ask();
}

TEST_F(Scenario, AChangeReachesEveryResolverWithinASecond) {
  Begin({.services = 3, .resolvers = 3, .watchers = 1});
  const Address address = Address::Parse("//sim/c").value();
  for (int i = 0; i < 20; ++i) {
    ServiceProcess& service = *world_->services[i % 3];
    const uint64_t before = world_->oracle->HashOf(address);
    world_->scheduler.As(service, [&] {
      service.wants(address) ? service.Withdraw(address) : service.Register(address);
    });
    Pass(1s);
    EXPECT_NE(world_->oracle->HashOf(address), before);
    for (const auto& resolver : world_->resolvers)
      EXPECT_EQ(resolver->told(address)->hash, world_->oracle->HashOf(address));
  }
}

TEST_F(Scenario, AResolverGoesOnAtAReplicaAndItsRevisionsNeverStepBack) {
  Begin({.services = 3, .resolvers = 3, .watchers = 1, .replica = true});
  for (int round = 0; round < 5; ++round) {
    DirectoryNode& lagging = *world_->nodes[1];
    lagging.Lag(40s);
    Serve(0, round % 2 == 0 ? "//sim/a" : "//sim/b");
    Pass(5s);
    world_->leader().Crash(false);
    Pass(20s);
    for (const auto& resolver : world_->resolvers) {
      EXPECT_TRUE(resolver->stats().live);
      EXPECT_EQ(resolver->stats().server, "replica");
    }
    world_->leader().Start();
    lagging.Crash(false);
    Pass(20s);
    lagging.Start();
    Settle(60s);
  }
}

}  // namespace
}  // namespace datawire::sim
