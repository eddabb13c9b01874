#include "failover.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

namespace datawire::resolver {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

class ResolverFailover : public ::testing::Test {
 protected:
  void Lose() { failover->Lost(now, {}, random); }
  ResolverPolicy policy;
  std::mt19937_64 random{3};
  BootTime now{hours(1)};
  std::unique_ptr<Failover> failover;
};

TEST_F(ResolverFailover, TriesEveryServerBeforeItWaits) {
  failover = std::make_unique<Failover>(Equals({"a:1", "b:1", "c:1"}), policy, 1);
  std::vector<std::string> tried;
  for (int i = 0; i < 3; i++) {
    EXPECT_LE(failover->next_at(), now);
    EXPECT_FALSE(failover->down());
    tried.push_back(failover->server());
    Lose();
  }
  EXPECT_TRUE(failover->down());
  std::sort(tried.begin(), tried.end());
  EXPECT_EQ(tried, (std::vector<std::string>{"a:1", "b:1", "c:1"}));
}

TEST_F(ResolverFailover, SpreadsProcessesOverServers) {
  std::map<std::string, int> first;
  for (uint64_t seed = 0; seed < 300; seed++)
    first[Failover(Equals({"a:1", "b:1", "c:1"}), policy, seed).server()]++;
  for (const auto& [server, count] : first) EXPECT_NEAR(count, 100, 40) << server;
  EXPECT_EQ(first.size(), 3u);
}

TEST_F(ResolverFailover, BackOffDoublesToItsMostAndAStreamThatLastedResetsIt) {
  failover = std::make_unique<Failover>(Equals({"a:1"}), policy, 1);
  std::chrono::nanoseconds longest{0};
  for (int i = 0; i < 40; i++) {
    Lose();
    const auto wait = failover->next_at() - now;
    EXPECT_LE(wait, std::min<std::chrono::nanoseconds>(
                        policy.reconnect_most, policy.reconnect_least * (1ll << std::min(i, 20))));
    longest = std::max(longest, wait);
    now += wait;
  }
  EXPECT_GT(longest, seconds(15));
  failover->Opened(now);
  now += seconds(5);
  Lose();
  EXPECT_LE(failover->next_at() - now, policy.reconnect_least);
}

TEST_F(ResolverFailover, ProcessesThatLostTheirServerTogetherDoNotComeBackTogether) {
  std::set<int64_t> tenths;
  for (uint64_t seed = 0; seed < 200; seed++) {
    std::mt19937_64 own(seed);
    Failover process(Equals({"a:1"}), policy, seed);
    process.Lost(now, {}, own);
    tenths.insert((process.next_at() - now) * 10 / (policy.reconnect_least + milliseconds(1)));
  }
  EXPECT_EQ(tenths.size(), 10u) << "some part of the back-off is never used";
}

TEST_F(ResolverFailover, AStreamThatEndsAtOnceDoesNotResetTheBackOff) {
  failover = std::make_unique<Failover>(Equals({"a:1"}), policy, 1);
  std::chrono::nanoseconds longest{0};
  for (int i = 0; i < 40; i++) {
    failover->Opened(now);
    Lose();
    longest = std::max(longest, failover->next_at() - now);
    now = std::max(now, failover->next_at());
  }
  EXPECT_GT(longest, seconds(15));
}

TEST_F(ResolverFailover, NudgeShortensALongBackOffButNotToAHammer) {
  failover = std::make_unique<Failover>(Equals({"a:1"}), policy, 1);
  for (int i = 0; i < 200 && failover->next_at() - now < seconds(10); i++) {
    now = std::max(now, failover->next_at());
    Lose();
  }
  ASSERT_GE(failover->next_at() - now, seconds(10));
  failover->Nudge(now);
  EXPECT_LE(failover->next_at() - now, policy.reconnect_most / 8);
  EXPECT_GE(failover->next_at() - now, seconds(1));
}

TEST_F(ResolverFailover, HonoursRetryAfterOfTheOnlyServer) {
  failover = std::make_unique<Failover>(Equals({"a:1"}), policy, 1);
  failover->Lost(now, seconds(7), random);
  failover->Nudge(now);
  EXPECT_GE(failover->next_at() - now, seconds(7));
}

TEST_F(ResolverFailover, PassesByAServerThatAskedToWaitUntilThen) {
  failover = std::make_unique<Failover>(Equals({"a:1", "b:1", "c:1"}), policy, 1);
  const std::string busy = failover->server();
  const BootTime start = now;
  failover->Lost(now, seconds(20), random);
  int tries = 0;
  for (; now < start + seconds(20) && tries < 1000; tries++) {
    EXPECT_NE(failover->server(), busy);
    Lose();
    now = std::max(now + milliseconds(100), failover->next_at());
  }
  EXPECT_GT(tries, 3);
  std::set<std::string> tried;
  for (int i = 0; i < 6; i++) {
    tried.insert(failover->server());
    Lose();
    now = std::max(now, failover->next_at());
  }
  EXPECT_EQ(tried.size(), 3u);  // its turn again
}

TEST_F(ResolverFailover, WaitsForTheFirstWhenAllAskedToWait) {
  failover = std::make_unique<Failover>(Equals({"a:1", "b:1"}), policy, 1);
  failover->Lost(now, seconds(7), random);
  const std::string sooner = failover->server();
  failover->Lost(now, seconds(3), random);
  failover->Nudge(now);
  EXPECT_EQ(failover->server(), sooner);
  EXPECT_EQ(failover->next_at(), now + seconds(3));
}

TEST_F(ResolverFailover, ALowerPriorityGoesFirstInEveryRoundAndAfterALoss) {
  failover = std::make_unique<Failover>(
      std::vector<Server>{{"far:1", 20}, {"near:1", 10}, {"near:2", 10}}, policy, 1);
  for (int round = 0; round < 5; round++) {
    std::vector<std::string> tried;
    for (int i = 0; i < 3; i++) {
      tried.push_back(failover->server());
      Lose();
      now = std::max(now, failover->next_at());
    }
    EXPECT_EQ(tried.back(), "far:1") << "round " << round;
  }
  Lose();
  Lose();
  ASSERT_EQ(failover->server(), "far:1");
  failover->Opened(now);
  now += seconds(5);
  Lose();
  EXPECT_NE(failover->server(), "far:1");
}

TEST_F(ResolverFailover, ARoundIsThreeServersAndTheNextGoesOnWithTheOthers) {
  failover = std::make_unique<Failover>(Equals({"a:1", "b:1", "c:1", "d:1", "e:1"}), policy, 1);
  std::set<std::string> tried;
  for (int i = 0; i < 5; i++) {
    EXPECT_EQ(failover->down(), i >= 3);
    tried.insert(failover->server());
    Lose();
  }
  EXPECT_EQ(tried.size(), 5u);
}

TEST_F(ResolverFailover, AnotherListKeepsTheServerThatIsInIt) {
  failover = std::make_unique<Failover>(Equals({"a:1", "b:1", "c:1"}), policy, 1);
  const std::string mine = failover->server();
  failover->Opened(now);
  EXPECT_TRUE(failover->Set({{"x:1", 1}, {mine, 9}, {"y:1", 1}}, now));
  EXPECT_EQ(failover->server(), mine);
  now += seconds(5);
  Lose();
  EXPECT_NE(failover->server(), mine);
}

TEST_F(ResolverFailover, AnotherListWithoutTheServerIsTriedAtOnceAlsoInABackOff) {
  failover = std::make_unique<Failover>(Equals({"a:1"}), policy, 1);
  for (int i = 0; i < 30; i++) Lose();
  ASSERT_TRUE(failover->down());
  EXPECT_FALSE(failover->Set({{"far:1", 2}, {"near:1", 1}}, now));
  EXPECT_EQ(failover->server(), "near:1");
  EXPECT_LE(failover->next_at(), now);
  EXPECT_FALSE(failover->down());
}

TEST_F(ResolverFailover, AServerThatIsNewEndsABackOff) {
  failover = std::make_unique<Failover>(Equals({"a:1"}), policy, 1);
  for (int i = 0; i < 30; i++) Lose();
  EXPECT_TRUE(failover->Set(Equals({"a:1", "b:1"}), now));
  EXPECT_LE(failover->next_at(), now);
  Lose();
  EXPECT_EQ(failover->server(), "b:1");
  EXPECT_LE(failover->next_at(), now);
}

TEST_F(ResolverFailover, WithoutServersThereIsNothingToTryUntilThereAreSome) {
  failover = std::make_unique<Failover>(std::vector<Server>{}, policy, 1);
  failover->Nudge(now);
  EXPECT_EQ(failover->next_at(), BootTime::max());
  EXPECT_FALSE(failover->Set(Equals({"a:1"}), now));
  EXPECT_EQ(failover->next_at(), now);
  EXPECT_EQ(failover->server(), "a:1");
}

TEST_F(ResolverFailover, RacesAreABurstThenTwoASecondAndNoneWithoutAnotherServer) {
  failover = std::make_unique<Failover>(Equals({"a:1", "b:1"}), policy, 1);
  int races = 0;
  for (int i = 0; i < 30'000; i++, now += milliseconds(1)) races += failover->MayRace(now);
  EXPECT_GE(races, 16 + 59);
  EXPECT_LE(races, 16 + 60);  // of the 90 that P26 gives in 30 s
  Failover alone(Equals({"a:1"}), policy, 1);
  EXPECT_FALSE(alone.MayRace(now));
}

}  // namespace
}  // namespace datawire::resolver
