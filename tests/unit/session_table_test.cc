#include "core/session_table.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;
using Verdict = SessionTable::Verdict;

// Time is a number that the test moves; ends and marks are committed at once unless it says not to.
class SessionTableTest : public ::testing::Test {
 protected:
  static record::v1::Session Facts(uint64_t ttl_ms = 15'000, const std::string& secret = "hash") {
    record::v1::Session session;
    session.set_ttl_ms(ttl_ms);
    session.set_secret_sha256(secret);
    session.set_identity("spiffe://a");
    return session;
  }
  void Open(const std::string& id, uint64_t ttl_ms = 15'000) {
    table_.Opened(id, Facts(ttl_ms), 1, ++streams_, now_);
    streams_of_[id] = streams_;
  }
  void OpenMany(int count) {
    for (int i = 0; i < count; ++i) Open(Name(i));
  }
  static std::string Name(int i) { return "s" + std::to_string(1000 + i); }
  bool Beat(const std::string& id) {
    return table_.Heartbeat(id, streams_of_[id], now_).has_value();
  }
  // Ticks of 500 ms, as the shell makes them; commits what the table asks for.
  void Pass(BootClock::duration span, bool healthy = true) {
    for (const BootTime end = now_ + span; now_ < end;) {
      now_ += 500ms;
      table_.Tick(now_, healthy);
      Commit();
    }
  }
  void Commit() {
    for (const std::string& id : table_.TakeEnds()) {
      ended_.push_back(id);
      table_.Ended(id);
    }
    for (const std::string& id : table_.TakeMarks())
      table_.Marked(id, true, SessionTable::Wanted(*table_.Find(id)));
  }
  size_t Marked(SessionMark mark) const {
    size_t count = 0;
    for (int i = 0; i < 1000; ++i) {
      const Session* session = table_.Find(Name(i));
      if (session != nullptr && session->marked == mark) ++count;
    }
    return count;
  }

  BootTime now_{1000s};
  SessionTable table_{now_};
  uint64_t streams_ = 0;
  std::map<std::string, uint64_t> streams_of_;
  std::vector<std::string> ended_;
};

TEST_F(SessionTableTest, EndsASessionItsTtlAfterTheLastHeartbeat) {
  Open("a");
  Pass(10s);
  EXPECT_TRUE(Beat("a"));
  Pass(14s);
  EXPECT_TRUE(ended_.empty());
  Pass(1s);
  EXPECT_EQ(ended_, std::vector<std::string>{"a"});
  EXPECT_EQ(table_.size(), 0u);
}

TEST_F(SessionTableTest, KeepsEachSessionsOwnTtl) {
  Open("short", 3'000);
  Open("long", 60'000);
  Pass(3s);
  EXPECT_EQ(ended_, std::vector<std::string>{"short"});
  Pass(56s);
  EXPECT_EQ(ended_.size(), 1u);
  Pass(1s);
  EXPECT_EQ(ended_.size(), 2u);
}

TEST_F(SessionTableTest, TellsTheAgeAtWhichItLastSawTheSession) {
  Open("a");
  Pass(5s);
  EXPECT_EQ(table_.Heartbeat("a", streams_of_["a"], now_), 5s);
  EXPECT_EQ(table_.Heartbeat("a", streams_of_["a"], now_), 0s);
}

TEST_F(SessionTableTest, ALostStreamAloneEndsNothing) {
  Open("a");
  table_.Lost("a", streams_of_["a"]);
  Pass(14s);
  EXPECT_TRUE(ended_.empty());
}

TEST_F(SessionTableTest, GivesGraceOfSixtySecondsAfterARestart) {
  table_.Recover("a", Facts(), 7, SessionMark::kNone, now_);
  table_.Recover("long", Facts(120'000), 7, SessionMark::kNone, now_);
  Pass(59s);
  EXPECT_TRUE(ended_.empty());
  Pass(1s);
  EXPECT_EQ(ended_, std::vector<std::string>{"a"});
  Pass(60s);
  EXPECT_EQ(ended_.size(), 2u);
}

TEST_F(SessionTableTest, AHeartbeatDoesNotShortenAGrace) {
  table_.Recover("a", Facts(), 7, SessionMark::kNone, now_);
  table_.Resumed("a", 2, 8, 99, now_);
  Pass(59s);
  EXPECT_TRUE(ended_.empty());
}

TEST_F(SessionTableTest, ATickGapGivesGrace) {
  Open("a");
  Pass(10s);
  now_ += 3600s;  // the process itself was stopped
  table_.Tick(now_, true);
  Commit();
  Pass(59s);
  EXPECT_TRUE(ended_.empty());
  Pass(1500ms);
  EXPECT_EQ(ended_.size(), 1u);
}

TEST_F(SessionTableTest, AShortStallDelaysAnExpiryByItsLengthOnly) {
  Open("a");
  Pass(5s);
  now_ += 2900ms;  // a loaded machine did not run the tick
  table_.Tick(now_, true);
  Pass(3s);
  Pass(1500ms, /*healthy=*/false);  // and a commit was slow
  Pass(6s);
  EXPECT_TRUE(ended_.empty());
  Pass(2s);
  EXPECT_EQ(ended_, std::vector<std::string>{"a"});
}

TEST_F(SessionTableTest, StallsWithNothingInBetweenAreOneAbsence) {
  Open("a");
  Pass(10s);
  for (int i = 0; i < 3; ++i) table_.Tick(now_ += 1100ms, true);
  Pass(59s);
  EXPECT_TRUE(ended_.empty());
  Pass(1500ms);
  EXPECT_EQ(ended_.size(), 1u);
}

TEST_F(SessionTableTest, NobodyExpiresWhileTheNodeIsNotHealthyAndAllGetGraceAfterwards) {
  Open("a");
  Open("long", 600'000);
  Pass(10s);
  Pass(300s, /*healthy=*/false);
  EXPECT_TRUE(ended_.empty());
  Pass(60s);
  EXPECT_TRUE(ended_.empty()) << "a grace of 60 s from the recovery on";
  Pass(1s);
  EXPECT_EQ(ended_, std::vector<std::string>{"a"});
  Pass(538s);
  EXPECT_EQ(ended_.size(), 1u) << "a longer TTL is its own grace";
  Pass(2s);
  EXPECT_EQ(ended_.size(), 2u);
}

TEST_F(SessionTableTest, ItsClockStandsStillWhileTheNodeIsAway) {
  const BootTime before = table_.clock();
  Pass(10s);
  EXPECT_EQ(table_.clock() - before, 10s);
  Pass(300s, /*healthy=*/false);
  EXPECT_EQ(table_.clock() - before, 10s);
  now_ += 300s;
  table_.Tick(now_, true);
  EXPECT_EQ(table_.clock() - before, 10s);
  Pass(10s);
  EXPECT_EQ(table_.clock() - before, 20s);
}

TEST_F(SessionTableTest, ResumeNeedsSecretIdentityAndAGreaterAttachNumber) {
  Open("a");
  table_.Resumed("a", 5, 2, 77, now_);
  EXPECT_EQ(table_.MayResume("b", "hash", "spiffe://a", 9), Verdict::kUnknown);
  EXPECT_EQ(table_.MayResume("a", "other", "spiffe://a", 9), Verdict::kForeignSecret);
  EXPECT_EQ(table_.MayResume("a", "hash", "spiffe://b", 9), Verdict::kForeignIdentity);
  EXPECT_EQ(table_.MayResume("a", "hash", "spiffe://a", 5), Verdict::kFenced);
  EXPECT_EQ(table_.MayResume("a", "hash", "spiffe://a", 4), Verdict::kFenced);
  EXPECT_EQ(table_.MayResume("a", "hash", "spiffe://a", 6), Verdict::kOk);
}

TEST_F(SessionTableTest, AResumeFencesTheFormerStream) {
  Open("a");
  const uint64_t former = streams_of_["a"];
  EXPECT_EQ(table_.Resumed("a", 1, 2, 77, now_), former);
  Pass(10s);
  EXPECT_FALSE(table_.Heartbeat("a", former, now_).has_value());
  table_.Lost("a", former);
  EXPECT_EQ(table_.Find("a")->stream, 77u);
  Pass(5s);
  EXPECT_EQ(ended_.size(), 1u) << "a fenced holder's heartbeat counts for nothing";
}

TEST_F(SessionTableTest, CloseEndsItAtOnceAndTriesAgainWhenTheCommitFails) {
  Open("a");
  table_.Close("a");
  EXPECT_EQ(table_.TakeEnds(), std::vector<std::string>{"a"});
  table_.EndFailed("a");
  EXPECT_TRUE(table_.TakeEnds().empty()) << "not in a hot loop";
  Pass(500ms);
  EXPECT_EQ(ended_, std::vector<std::string>{"a"});
}

TEST_F(SessionTableTest, AHeartbeatDuringTheCommitOfItsEndCountsOnlyIfThatFails) {
  Open("a");
  for (int i = 0; i < 30; ++i) table_.Tick(now_ += 500ms, true);
  ASSERT_EQ(table_.TakeEnds(), std::vector<std::string>{"a"});
  EXPECT_FALSE(Beat("a")) << "no reply while the commit decides";
  table_.EndFailed("a");
  Pass(14s);
  EXPECT_TRUE(ended_.empty());
  Pass(1s);
  EXPECT_EQ(ended_.size(), 1u);
}

TEST_F(SessionTableTest, ExpiresWithinTheBudget) {
  OpenMany(30);
  Pass(10s);
  for (int i = 10; i < 30; ++i) Beat(Name(i));
  Pass(6s);
  EXPECT_EQ(ended_.size(), 10u);
  EXPECT_EQ(table_.brake(), BrakeState::kOff);
}

TEST_F(SessionTableTest, TheBudgetIsFifteenPercentOfManySessions) {
  OpenMany(200);
  EXPECT_EQ(table_.budget(), 30u);
  Pass(10s);
  for (int i = 30; i < 200; ++i) Beat(Name(i));
  Pass(6s);
  EXPECT_EQ(ended_.size(), 30u);
  EXPECT_EQ(table_.budget(), 30u) << "those that just ended are part of the population";
}

TEST_F(SessionTableTest, MassExpiryTripsTheBrakeAndEndsNobody) {
  OpenMany(30);
  Pass(10s);
  for (int i = 11; i < 30; ++i) Beat(Name(i));
  Pass(6s);
  EXPECT_TRUE(ended_.empty());
  EXPECT_EQ(table_.brake(), BrakeState::kOn);
  EXPECT_EQ(table_.brake_trips(), 1u);
  EXPECT_EQ(Marked(SessionMark::kSuspect), 11u);
}

TEST_F(SessionTableTest, ASlowMassExpiryTripsItToo) {
  OpenMany(30);
  for (int i = 0; i < 30; ++i) {
    for (int j = i + 1; j < 30; ++j) Beat(Name(j));
    Pass(2s);  // one dies every 2 s
  }
  EXPECT_LE(ended_.size(), 10u);
  EXPECT_EQ(table_.brake(), BrakeState::kOn);
}

TEST_F(SessionTableTest, ASuspectIsUpAgainAtItsNextHeartbeat) {
  OpenMany(30);
  Pass(16s);
  ASSERT_EQ(Marked(SessionMark::kSuspect), 30u);
  EXPECT_TRUE(Beat(Name(3)));
  Commit();
  EXPECT_EQ(Marked(SessionMark::kSuspect), 29u);
  EXPECT_EQ(table_.Find(Name(3))->marked, SessionMark::kNone);
}

TEST_F(SessionTableTest, ReleasesTheBrakeWhenNoMoreThanTheBudgetIsDue) {
  OpenMany(30);
  Pass(16s);
  ASSERT_EQ(table_.brake(), BrakeState::kOn);
  for (int i = 4; i < 30; ++i) Beat(Name(i));
  Pass(500ms);
  EXPECT_EQ(table_.brake(), BrakeState::kOff);
  EXPECT_EQ(ended_.size(), 4u);
  EXPECT_EQ(Marked(SessionMark::kSuspect), 0u);
}

TEST_F(SessionTableTest, AfterFifteenMinutesSuspectsEndAtTheBudgetsRate) {
  OpenMany(30);
  Pass(16s);
  Pass(15min - 2s);
  EXPECT_TRUE(ended_.empty());
  Pass(2s);
  EXPECT_EQ(ended_.size(), 10u);
  Pass(58s);
  EXPECT_EQ(ended_.size(), 10u);
  Pass(2s);
  EXPECT_EQ(ended_.size(), 20u);
  Pass(61s);
  EXPECT_EQ(ended_.size(), 30u);
  EXPECT_EQ(table_.brake(), BrakeState::kOff);
}

TEST_F(SessionTableTest, ARecoveredSuspectIsUpAgainAtItsNextHeartbeat) {
  table_.Recover(Name(1), Facts(), 7, SessionMark::kSuspect, now_);
  table_.Resumed(Name(1), 2, 8, 99, now_);
  Commit();
  EXPECT_EQ(table_.Find(Name(1))->marked, SessionMark::kNone);
}

TEST_F(SessionTableTest, ASuspectThatWasDrainingIsDrainingAgainAfterARestart) {
  table_.Recover(Name(1), Facts(), 7, SessionMark::kSuspectDraining, now_);
  table_.Resumed(Name(1), 2, 8, 99, now_);
  Commit();
  EXPECT_EQ(table_.Find(Name(1))->marked, SessionMark::kDraining);
}

TEST_F(SessionTableTest, ADrainingSessionIsDrainingAgainAfterItWasSuspect) {
  OpenMany(30);
  table_.SetDraining(Name(0), true);
  Commit();
  EXPECT_EQ(table_.Find(Name(0))->marked, SessionMark::kDraining);
  Pass(16s);
  EXPECT_EQ(table_.Find(Name(0))->marked, SessionMark::kSuspectDraining);
  Beat(Name(0));
  Commit();
  EXPECT_EQ(table_.Find(Name(0))->marked, SessionMark::kDraining);
}

TEST_F(SessionTableTest, TheLastMarkCommittedIsTheLastOneWanted) {
  Open("a");
  table_.SetDraining("a", true);
  ASSERT_EQ(table_.TakeMarks().size(), 1u);
  table_.SetDraining("a", false);
  table_.SetDraining("a", true);
  EXPECT_TRUE(table_.TakeMarks().empty()) << "one at a time";
  table_.SetDraining("a", false);
  table_.Marked("a", true, SessionMark::kDraining);
  EXPECT_EQ(table_.TakeMarks().size(), 1u);
  table_.Marked("a", false, SessionMark::kNone);
  EXPECT_TRUE(table_.TakeMarks().empty()) << "a failed one waits for the next tick";
  Pass(500ms);
  EXPECT_EQ(table_.Find("a")->marked, SessionMark::kNone);
}

}  // namespace
}  // namespace datawire::directory
