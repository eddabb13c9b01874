#include "srv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "datawire/limits.h"

namespace datawire::resolver {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::vector<std::string> Names(const std::vector<Server>& servers) {
  std::vector<std::string> names;
  for (const Server& server : servers) names.push_back(server.name);
  return names;
}

Result<std::vector<Server>> Of(std::vector<SrvRecord> records, uint64_t seed = 1) {
  return ServersOf({.status = {}, .records = std::move(records), .ttl = seconds(60)},
                   "example.test", seed);
}

TEST(ResolverSrv, TheLowestPriorityComesFirst) {
  for (uint64_t seed = 0; seed < 100; seed++) {
    const auto servers =
        Of({{30, 1000, 1, "last."}, {10, 0, 1, "first."}, {20, 5, 1, "second."}}, seed);
    EXPECT_EQ(Names(*servers), (std::vector<std::string>{"first:1", "second:1", "last:1"}));
  }
}

TEST(ResolverSrv, WithinAPriorityProcessesAreSpreadByWeight) {
  std::map<std::string, int> first, second;
  constexpr int kProcesses = 12'000;
  for (uint64_t seed = 0; seed < kProcesses; seed++) {
    const auto servers =
        Of({{1, 60, 1, "a"}, {1, 30, 1, "b"}, {1, 10, 1, "c"}, {1, 0, 1, "z"}}, seed);
    first[servers->at(0).name]++;
    if (servers->at(0).name == "a:1") second[servers->at(1).name]++;
  }
  EXPECT_NEAR(first["a:1"], kProcesses * 0.6, kProcesses * 0.02);
  EXPECT_NEAR(first["b:1"], kProcesses * 0.3, kProcesses * 0.02);
  EXPECT_NEAR(first["c:1"], kProcesses * 0.1, kProcesses * 0.02);
  EXPECT_LT(first["z:1"], kProcesses * 0.01);  // weight 0: RFC 2782's very small chance
  // Whose first has failed are spread by the weights that are left: 30 to 10.
  EXPECT_NEAR(second["b:1"], first["a:1"] * 0.75, kProcesses * 0.02);
}

TEST(ResolverSrv, AServerThatComesOrGoesMovesNobodyElse) {
  for (uint64_t seed = 0; seed < 500; seed++) {
    const std::string before =
        Of({{1, 5, 1, "a"}, {1, 5, 1, "b"}, {1, 5, 1, "c"}}, seed)->at(0).name;
    const std::string more =
        Of({{1, 5, 1, "a"}, {1, 5, 1, "b"}, {1, 5, 1, "c"}, {1, 5, 1, "d"}}, seed)->at(0).name;
    EXPECT_TRUE(more == before || more == "d:1");
  }
}

TEST(ResolverSrv, ANameThatIsThereTwiceCountsOnceWithItsLowerPriority) {
  const auto servers = Of({{9, 1, 1, "a."}, {5, 1, 1, "b"}, {1, 1, 1, "A"}, {1, 1, 2, "a"}});
  EXPECT_EQ(servers->size(), 3u);
  EXPECT_EQ(servers->back().name, "b:1");
}

TEST(ResolverSrv, RecordsThatNameNoServerArePassedBy) {
  const auto servers = Of({{0, 0, 1, "."},
                           {0, 0, 1, ""},
                           {0, 0, 0, "port-zero"},
                           {0, 0, 1, "with space"},
                           {0, 0, 1, "sla/sh"},
                           {0, 0, 1, "a:b"},
                           {0, 0, 1, std::string("n\0l", 3)},
                           {9, 0, 7400, "good.example.test."}});
  EXPECT_EQ(Names(*servers), std::vector<std::string>{"good.example.test:7400"});
}

TEST(ResolverSrv, NoServerIsAnErrorThatSaysSoNeverAnEmptyList) {
  for (const std::vector<SrvRecord>& records :
       {std::vector<SrvRecord>{}, std::vector<SrvRecord>{{0, 0, 0, "."}}}) {
    const auto servers = Of(records);
    ASSERT_FALSE(servers.ok());
    EXPECT_EQ(servers.status().code(), Code::kUnavailable);
    EXPECT_NE(servers.status().message().find("_datawire._tcp.example.test names no"),
              std::string::npos);
  }
  const auto failed =
      ServersOf({.status = Status(Code::kUnavailable, "DNS: why"), .records = {{1, 1, 1, "a"}}},
                "example.test", 1);
  EXPECT_EQ(failed.status().message(), "DNS: why");
}

TEST(ResolverSrv, AThousandRecordsAreBoundedAndTheFleetStillUsesThemAll) {
  std::vector<SrvRecord> records;
  for (uint16_t i = 0; i < 1000; i++) records.push_back({5, 1, 7400, "s" + std::to_string(i)});
  for (uint16_t i = 0; i < 1000; i++) records.push_back({i, 1, 7401, "t" + std::to_string(i)});
  records.push_back({0, 1, 7400, "near"});
  std::set<std::string> used;
  for (uint64_t seed = 0; seed < 100; seed++) {
    const auto servers = Of(records, seed);
    ASSERT_EQ(servers->size(), limits::kDirectoryServers);
    for (const Server& server : *servers) used.insert(server.name);
    EXPECT_EQ(servers->back().priority, 7u);  // those of 5 leave room
  }
  EXPECT_GT(used.size(), 500u);
}

class ResolverSrvSchedule : public ::testing::Test {
 protected:
  std::chrono::nanoseconds Learn(seconds ttl) {
    schedule.Asked(now);
    schedule.Learnt(ttl, now, random);
    return schedule.next_at() - now;
  }
  std::chrono::nanoseconds Fail() {
    schedule.Asked(now);
    schedule.Failed(now, random);
    return schedule.next_at() - now;
  }
  std::mt19937_64 random{7};
  BootTime now{hours(1)};
  SrvSchedule schedule;
};

TEST_F(ResolverSrvSchedule, AsksAtOnceAndThenOncePerTtl) {
  EXPECT_LE(schedule.next_at(), now);
  schedule.Asked(now);
  EXPECT_EQ(schedule.next_at(), BootTime::max());
  std::chrono::nanoseconds least = hours(1), most{0};
  for (int i = 0; i < 200; i++) {
    const auto wait = Learn(seconds(100));
    least = std::min(least, wait);
    most = std::max(most, wait);
  }
  EXPECT_GE(least, seconds(90));
  EXPECT_LE(most, seconds(100));
  EXPECT_GT(most - least, seconds(7));  // a fleet does not ask together
}

TEST_F(ResolverSrvSchedule, AbsurdTtlsAreBounded) {
  for (int i = 0; i < 50; i++) {
    EXPECT_GE(Learn(seconds(0)), milliseconds(4500));
    EXPECT_LE(Learn(seconds(0)), seconds(5));
    EXPECT_GE(Learn(seconds(UINT32_MAX)), seconds(540));
    EXPECT_LE(Learn(seconds(UINT32_MAX)), seconds(600));
  }
}

TEST_F(ResolverSrvSchedule, FailuresAreFartherAndFartherApart) {
  for (int i = 0; i < 100; i++) {
    const double nominal = std::min(60.0, static_cast<double>(1 << std::min(i, 10)));
    const double wait = std::chrono::duration<double>(Fail()).count();
    EXPECT_GE(wait, nominal * 0.799) << i;
    EXPECT_LE(wait, nominal * 1.201) << i;
  }
  Learn(seconds(60));
  EXPECT_LE(Fail(), milliseconds(1200));
}

TEST_F(ResolverSrvSchedule, WhenAllServersFailItAsksSoonerButNotAgainAndAgain) {
  Learn(seconds(600));
  schedule.AllServersFailed();
  EXPECT_EQ(schedule.next_at(), now + seconds(5));
  schedule.Asked(now += seconds(5));
  schedule.AllServersFailed();
  EXPECT_EQ(schedule.next_at(), BootTime::max());  // it is asking
}

}  // namespace
}  // namespace datawire::resolver
