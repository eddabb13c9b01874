#include "sender_core_fixture.h"

namespace datawire {
namespace {

TEST_F(SenderCoreTest, AcceptedIsDone) {
  Answer({At(1)});
  Give(1);
  EXPECT_EQ(Where(1), 0);
  Open(1);
  EXPECT_EQ(Where(1), 1);
  Settle(1, Kind::kAccepted);
  EXPECT_EQ(Ended(1), End::kAccepted);
  EXPECT_EQ(ends_[1].peer, "amqp://h1:1");
  EXPECT_EQ(ends_[1].attempts, 1u);
  EXPECT_EQ(core_->counters().accepted, 1u);
}

TEST_F(SenderCoreTest, RejectedIsFinalWithItsCondition) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1);
  Open(2);
  Settle(1, {Kind::kRejected, "datawire:rejected", "no such order", false, false});
  EXPECT_EQ(Ended(1), End::kRejected);
  EXPECT_EQ(ends_[1].condition, "datawire:rejected");
  EXPECT_EQ(ends_[1].description, "no such order");
  EXPECT_EQ(ends_[1].attempts, 1u);
}

TEST_F(SenderCoreTest, ReleasedGoesToAnotherEndpointNow) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1);
  Open(2);
  for (uint64_t id = 1; id <= 20; ++id) {
    if (id > 1) Give(id);
    const int first = Where(id);
    Settle(id, Kind::kReleased);
    EXPECT_EQ(Where(id), first == 1 ? 2 : 1);
    EXPECT_EQ(redelivered_[id], 0u) << "released says: nothing was tried";
    Settle(id, Kind::kAccepted);
  }
}

TEST_F(SenderCoreTest, ReleasedWithNobodyElseGoesAgainAfterAGrowingPause) {
  Answer({At(1)});
  Give(1);
  Open(1);
  for (const auto pause : {50ms, 100ms, 200ms, 400ms, 800ms, 1000ms, 1000ms}) {
    Settle(1, Kind::kReleased);
    EXPECT_EQ(Where(1), 0);
    Pass(pause - 1ms);
    EXPECT_EQ(Where(1), 0);
    Pass(1ms);
    ASSERT_EQ(Where(1), 1);
  }
}

TEST_F(SenderCoreTest, ModifiedUndeliverableHereIsHonoured) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1);
  Open(2);
  const int first = Where(1);
  Settle(1, {Kind::kModified, "", "", true, true});
  EXPECT_NE(Where(1), 0);
  EXPECT_NE(Where(1), first);
  EXPECT_EQ(redelivered_[1], 1u);
  Settle(1, {Kind::kModified, "", "", false, true});
  EXPECT_EQ(Where(1), 0) << "nobody else: a pause";
  Pass(50ms);
  EXPECT_NE(Where(1), 0);
  EXPECT_EQ(redelivered_[1], 1u) << "not failed: not counted";
}

TEST_F(SenderCoreTest, ModifiedFailedNeverLoopsHot) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1);
  Open(2);
  for (int i = 0; i < 10'000 && !Ended(1); ++i) {
    if (Where(1))
      Settle(1, {Kind::kModified, "", "", true, false});
    else
      Pass(10ms);
  }
  EXPECT_EQ(Ended(1), End::kOutcomeUnknown);
  EXPECT_LT(ends_[1].attempts, 80u);
}

TEST_F(SenderCoreTest, LostLinkSendsAgainToAnotherInOrderWithDeliveryCount) {
  Answer({At(1), At(2, EndpointState::kUp, 1)});
  for (uint64_t id = 1; id <= 20; ++id) Give(id);
  Open(1);
  EXPECT_EQ(Where(20), 1);
  Settle(1, Kind::kAccepted);
  order_.clear();
  Lose(1);
  Open(2);
  std::vector<uint64_t> expected;
  for (uint64_t id = 2; id <= 20; ++id) expected.push_back(id);
  EXPECT_EQ(order_, expected);
  EXPECT_EQ(Where(7), 2);
  EXPECT_EQ(redelivered_[7], 1u);
  EXPECT_EQ(core_->counters().redelivered, 19u);
  EXPECT_EQ(core_->counters().links_lost, 1u);
}

TEST_F(SenderCoreTest, LostLinkWithNobodyElseReopensAndSendsAgain) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Lose(1);
  EXPECT_EQ(LinkTo(1), 0u);
  Pass(250ms);
  Open(1);
  EXPECT_EQ(Where(1), 1);
  EXPECT_EQ(redelivered_[1], 1u);
}

TEST_F(SenderCoreTest, DeadlineOfWhatWasNeverOnALinkIsNotSent) {
  Give(1, 100ms);
  core_->AnswerFailed("127.0.0.1:7400: connection refused");
  Pass(100ms);
  EXPECT_EQ(Ended(1), End::kNotSent);
  EXPECT_NE(ends_[1].description.find("connection refused"), std::string::npos);
  Answer({}, AnswerStatus::kNotFound);
  Give(2, 100ms);
  Pass(100ms);
  EXPECT_EQ(Ended(2), End::kNotSent);
  EXPECT_EQ(ends_[2].condition, "amqp:not-found");
}

TEST_F(SenderCoreTest, DeadlineOfWhatWasSentIsOutcomeUnknownAndForgotten) {
  Answer({At(1)});
  Give(1, 100ms);
  Open(1);
  Pass(99ms);
  EXPECT_EQ(Ended(1), std::nullopt);
  Pass(1ms);
  EXPECT_EQ(Ended(1), End::kOutcomeUnknown);
  EXPECT_TRUE(forgotten_.contains(1));
  core_->Settled(LinkTo(1), 1, {}, now_);  // too late: means nothing
  Pump();
  EXPECT_EQ(core_->counters().accepted, 0u);
}

TEST_F(SenderCoreTest, DeadlineAfterALossIsOutcomeUnknownAndAfterReleaseNotSent) {
  Answer({At(1)});
  Give(1, 200ms);
  Open(1);
  Lose(1);
  Pass(200ms);
  EXPECT_EQ(Ended(1), End::kOutcomeUnknown) << "the peer may have had it";
  Pass(1s);
  Give(2, 30ms);
  Pass(0ms);
  Open(1);
  Settle(2, Kind::kReleased);
  Pass(30ms);
  EXPECT_EQ(Ended(2), End::kNotSent) << "the peer said that it did nothing";
}

TEST_F(SenderCoreTest, PresettledIsAcceptedWhenWrittenAndLostWithItsLink) {
  Make({.presettled = true});
  Answer({At(1)});
  Give(1);
  Give(2);
  Open(1);
  core_->Written(on_[1], 1, now_);
  Pump();
  EXPECT_EQ(Ended(1), End::kAccepted);
  Lose(1);
  EXPECT_EQ(Ended(2), std::nullopt) << "not written: not lost";
  Pass(250ms);
  Open(1);
  EXPECT_EQ(Where(2), 1);
  EXPECT_FALSE(on_.contains(1));
}

TEST_F(SenderCoreTest, WithoutCreditNothingIsSentAndABouncedOneStays) {
  Answer({At(1)});
  for (uint64_t id = 1; id <= 3; ++id) Give(id);
  Open(1, 2);
  EXPECT_EQ(Where(2), 1);
  EXPECT_EQ(Where(3), 0);
  core_->Bounced(LinkTo(1), 2);  // a drain took the credit
  on_.erase(2);
  core_->Credit(LinkTo(1), 1);
  Pump();
  EXPECT_EQ(Where(2), 0);
  core_->Credit(LinkTo(1), 3);
  Pump();
  EXPECT_EQ(Where(2), 1);
  EXPECT_EQ(Where(3), 1);
  Settle(2, Kind::kAccepted);
  EXPECT_EQ(ends_[2].attempts, 1u);
}

TEST_F(SenderCoreTest, ABouncedOneThatEndedMeanwhileKeepsNoCredit) {
  Answer({At(1)});
  Give(1, 100ms);
  Open(1, 1);
  Pass(100ms);
  EXPECT_EQ(Ended(1), End::kOutcomeUnknown);
  core_->Bounced(LinkTo(1), 1);
  Give(2);
  EXPECT_EQ(Where(2), 1);
}

TEST_F(SenderCoreTest, PresettledThatMayBeWrittenAtItsDeadlineIsOutcomeUnknown) {
  Make({.presettled = true});
  Answer({At(1)});
  Give(1, 100ms);
  Open(1);
  Pass(100ms);
  EXPECT_EQ(Ended(1), End::kOutcomeUnknown) << "it is on its way to the link";
}

TEST_F(SenderCoreTest, MessagesWaitForDirectoryAndServiceInAnyOrder) {
  Give(1);
  Pass(10s);
  Answer({}, AnswerStatus::kUnavailable);
  Pass(5s);
  Answer({}, AnswerStatus::kNotFound);
  Pass(5s);
  Answer({At(1)});
  Open(1);
  EXPECT_EQ(Where(1), 1);
}

TEST_F(SenderCoreTest, ARequestIsSentAgainOnlyWhenReleasedOrNeverOpened) {
  Make({.again = false});
  Answer({At(1), At(2, EndpointState::kUp, 1)});
  Give(1);
  Lose(1);  // never opened
  Open(2);
  EXPECT_EQ(Where(1), 2);
  Settle(1, Kind::kReleased);
  Pass(300ms);
  Open(1);
  ASSERT_NE(Where(1), 0);
  Lose(Where(1));
  EXPECT_EQ(Ended(1), End::kOutcomeUnknown);
  Give(2);
  Pass(300ms);
  if (Where(2) == 0) Open(LinkTo(1) ? 1 : 2);
  ASSERT_NE(Where(2), 0);
  Settle(2, {Kind::kModified, "", "", true, false});
  EXPECT_EQ(Ended(2), End::kOutcomeUnknown);
}

TEST_F(SenderCoreTest, AbandonEndsAllInTheOrderGiven) {
  Answer({At(1)});
  for (uint64_t id = 1; id <= 5; ++id) Give(id);
  Open(1, 2);
  EXPECT_EQ(core_->Abandon("closed"), (std::vector<uint64_t>{1, 2, 3, 4, 5}));
  Pump();
  EXPECT_EQ(Ended(1), End::kOutcomeUnknown);
  EXPECT_EQ(Ended(3), End::kNotSent);
  EXPECT_EQ(core_->live(), 0u);
}

TEST_F(SenderCoreTest, EveryMessageEndsOnceUnderRandomFaults) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    std::mt19937_64 random(seed);
    Make({.presettled = seed % 7 == 0, .seed = seed, .random_seed = seed});
    links_.clear();
    on_.clear();
    ends_.clear();
    const Policy policy = static_cast<Policy>(seed % 3);
    std::vector<Endpoint> all{At(1), At(2), At(3, EndpointState::kSuspect), At(4)};
    Answer(all, AnswerStatus::kFound, policy);
    uint64_t given = 0;
    for (int step = 0; step < 400; ++step) {
      const auto any_link = [&] {
        auto it = links_.begin();
        std::advance(it, random() % links_.size());
        return it->second;
      };
      switch (random() % 8) {
        case 0:
        case 1:
          Give(++given, std::chrono::milliseconds(random() % 3000), "k");
          break;
        case 2:
          if (!links_.empty()) Open(any_link(), random() % 50);
          break;
        case 3:
          if (!links_.empty()) Lose(any_link());
          break;
        case 4:
          Pass(std::chrono::milliseconds(random() % 300));
          break;
        case 5: {
          auto some = all;
          std::erase_if(some, [&](const auto&) { return random() % 3 == 0; });
          Answer(some, AnswerStatus::kFound, policy);
          break;
        }
        default:
          if (on_.empty()) break;
          auto it = on_.begin();
          std::advance(it, random() % on_.size());
          const uint64_t id = it->first;
          if (seed % 7 == 0) {
            core_->Written(it->second, id, now_);
            Pump();
          } else {
            Settle(id, static_cast<Kind>(random() % 4));
          }
      }
    }
    Pass(4s);
    EXPECT_EQ(ends_.size(), given) << "seed " << seed;
    EXPECT_EQ(core_->live(), 0u) << "seed " << seed;
    const Sender::Counters counters = core_->counters();
    EXPECT_EQ(counters.accepted + counters.rejected + counters.not_sent + counters.unknown, given);
    Pass(120s);
    EXPECT_TRUE(
        std::all_of(links_.begin(), links_.end(), [&](auto& l) { return LinkTo(l.second); }));
  }
}

TEST_F(SenderCoreTest, WhatOutlivesItsTimeToLiveIsPutOnNoLink) {
  Answer({At(1)});
  Give(9);  // waits before it, for ever
  core_->Give(1, "", now_ + 30s, now_ + 100ms);
  Pump();
  Pass(100ms);
  EXPECT_EQ(Ended(1), End::kNotSent);
  EXPECT_NE(ends_[1].description.find("time to live"), std::string::npos);
  Open(1);
  EXPECT_EQ(order_, std::vector<uint64_t>{9});
}

TEST_F(SenderCoreTest, OnALinkItIsStillSettledAfterItsTimeToLive) {
  Answer({At(1)});
  Give(9);
  Open(1);
  core_->Give(1, "", now_ + 30s, now_ + 100ms);
  core_->Give(2, "", now_ + 30s, now_ + 100ms);
  Pump();
  EXPECT_EQ(ttl_left_[1], 100ms);
  EXPECT_EQ(ttl_left_[9], 0ms) << "lives for ever: its header stays as it is";
  Pass(150ms);
  EXPECT_FALSE(Ended(1));
  Settle(1, Kind::kAccepted);
  EXPECT_EQ(Ended(1), End::kAccepted);
  Settle(2, Kind::kReleased);
  EXPECT_EQ(Ended(2), End::kNotSent) << "given back too late for another link";
}

TEST_F(SenderCoreTest, ALostLinkSendsNoMessageAgainThatHasExpired) {
  Answer({At(1), At(2)});
  Give(9);
  Open(1);
  Open(2);
  core_->Give(1, "", now_ + 30s, now_ + 100ms);
  Pump();
  const int at = Where(1);
  Pass(150ms);
  Lose(at);
  EXPECT_EQ(Ended(1), End::kOutcomeUnknown);
}

TEST_F(SenderCoreTest, CancelEndsWhatNobodyHasAsNotSentAndForgetsWhatAPeerHas) {
  Answer({At(1)});
  Give(1);
  core_->Cancel(1);
  Pump();
  EXPECT_EQ(Ended(1), End::kNotSent);
  Give(2);
  Open(1);
  ASSERT_EQ(Where(2), 1);
  core_->Cancel(2);
  core_->Cancel(77);
  Pump();
  EXPECT_EQ(Ended(2), End::kOutcomeUnknown);
  EXPECT_TRUE(forgotten_.contains(2));
  Give(3);
  EXPECT_EQ(Where(3), 1) << "the link works on";
}

TEST_F(SenderCoreTest, TheOldestThatNoPeerHasIsDropped) {
  Answer({At(1)});
  Give(1);
  Open(1, 1);
  Give(2);
  Give(3);
  core_->DropOldest("full");
  Pump();
  EXPECT_FALSE(Ended(1)) << "the peer has it";
  EXPECT_EQ(Ended(2), End::kNotSent);
  EXPECT_FALSE(Ended(3));
}

}  // namespace
}  // namespace datawire
