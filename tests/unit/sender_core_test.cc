#include "sender_core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace datawire {
namespace {

using namespace std::chrono_literals;
using Kind = SenderCore::Outcome::Kind;
using End = DeliveryEnd;

Endpoint At(int port, EndpointState state = EndpointState::kUp, uint32_t priority = 0) {
  Endpoint endpoint{
      EndpointUrl::Parse("amqp://h" + std::to_string(port) + ":" + std::to_string(port)).value()};
  endpoint.state = state;
  endpoint.priority = priority;
  endpoint.created = static_cast<uint64_t>(port);
  return endpoint;
}

/// A sender whose network is this test: links open, give credit and settle when told.
class SenderCoreTest : public testing::Test {
 protected:
  void Make(SenderCore::Options options = {}) { core_.emplace(options); }

  void Answer(std::vector<Endpoint> endpoints, AnswerStatus status = AnswerStatus::kFound,
              Policy policy = Policy::kBalanced) {
    datawire::Answer answer{Address::Parse("//demo/x").value()};
    answer.status = status;
    answer.policy = policy;
    answer.endpoints = std::move(endpoints);
    core_->AnswerChanged(std::make_shared<const datawire::Answer>(std::move(answer)));
    Pump();
  }
  void Give(uint64_t id, std::chrono::milliseconds deadline = 30s, std::string key = "") {
    core_->Give(id, std::move(key), now_ + deadline);
    Pump();
  }
  void Pump() {
    core_->Pump(now_);
    for (SenderCore::Action& action : core_->TakeActions()) {
      if (auto* open = std::get_if<SenderCore::OpenLink>(&action)) {
        links_[open->link] = open->url.port();
        ++opened_[open->url.port()];
      } else if (auto* close = std::get_if<SenderCore::CloseLink>(&action)) {
        links_.erase(close->link);
      } else if (auto* send = std::get_if<SenderCore::Transmit>(&action)) {
        on_[send->id] = send->link;
        order_.push_back(send->id);
        redelivered_[send->id] = send->redelivered;
      } else if (auto* forget = std::get_if<SenderCore::Forget>(&action)) {
        forgotten_.insert(forget->id);
      } else if (auto* finish = std::get_if<SenderCore::Finish>(&action)) {
        on_.erase(finish->id);
        ends_[finish->id] = finish->outcome;
      }
    }
  }
  uint64_t LinkTo(int port) const {
    for (const auto& [link, to] : links_) {
      if (to == port) return link;
    }
    return 0;
  }
  void Open(int port, uint64_t credit = 100) {
    core_->LinkOpened(LinkTo(port));
    core_->Credit(LinkTo(port), credit);
    Pump();
  }
  void Lose(int port) {
    const uint64_t link = LinkTo(port);
    ASSERT_NE(link, 0u);
    links_.erase(link);
    std::erase_if(on_, [link](const auto& entry) { return entry.second == link; });
    core_->LinkLost(link, "amqp:connection:forced", "gone", now_);
    Pump();
  }
  void Settle(uint64_t id, SenderCore::Outcome outcome) {
    const uint64_t link = std::exchange(on_[id], 0);
    on_.erase(id);
    core_->Settled(link, id, outcome, now_);
    Pump();
  }
  void Settle(uint64_t id, Kind kind) {
    Settle(id, SenderCore::Outcome{kind, "", "", false, false});
  }
  void Pass(std::chrono::milliseconds time) {
    const BootTime until = now_ + time;
    while (true) {
      const auto wake = core_->NextWake(now_);
      if (!wake || *wake > until) break;
      now_ = *wake;
      Pump();
      ASSERT_LT(++wakes_, 10'000u);
    }
    now_ = until;
    Pump();
  }
  /// Port of the endpoint that has it now; 0: none.
  int Where(uint64_t id) const {
    const auto it = on_.find(id);
    return it == on_.end() ? 0 : links_.at(it->second);
  }
  std::optional<End> Ended(uint64_t id) const {
    const auto it = ends_.find(id);
    return it == ends_.end() ? std::nullopt : std::optional<End>(it->second.end);
  }

  std::optional<SenderCore> core_{std::in_place, SenderCore::Options{}};
  BootTime now_{1000s};
  std::map<uint64_t, int> links_, opened_;
  std::map<uint64_t, uint64_t> on_;
  std::vector<uint64_t> order_;
  std::map<uint64_t, uint32_t> redelivered_;
  std::set<uint64_t> forgotten_;
  std::map<uint64_t, DeliveryOutcome> ends_;
  size_t wakes_ = 0;
};

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
  const int first = Where(1);
  Settle(1, Kind::kReleased);
  EXPECT_EQ(Where(1), first == 1 ? 2 : 1);
  EXPECT_EQ(redelivered_[1], 0u) << "released says: nothing was tried";
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
  core_->Written(on_[1], 1);
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

TEST_F(SenderCoreTest, WeightDecidesTheShare) {
  Endpoint light = At(1), heavy = At(2);
  light.weight = 100;
  heavy.weight = 300;
  Answer({light, heavy});
  Give(1);
  Open(1, 10'000);
  Open(2, 10'000);
  std::map<int, int> share;
  for (uint64_t id = 2; id < 802; ++id) {
    Give(id);
    ++share[Where(id)];  // none is settled: unsettled / weight evens out
  }
  EXPECT_NEAR(share[2], 600, 30);
}

TEST_F(SenderCoreTest, TheFreerOneGetsTheNextMessage) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1, 1000);
  Open(2, 1000);
  for (uint64_t id = 2; id <= 100; ++id) Give(id);
  for (uint64_t id = 1; id <= 100; ++id) {
    if (Where(id) == 2) Settle(id, Kind::kAccepted);  // 1 is slow
  }
  std::map<int, int> share;
  for (uint64_t id = 101; id <= 140; ++id) {
    Give(id);
    ++share[Where(id)];
  }
  EXPECT_GT(share[2], 25);
}

TEST_F(SenderCoreTest, OneWithoutCreditIsPassedBy) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1, 3);
  Open(2, 1000);
  for (uint64_t id = 2; id <= 100; ++id) Give(id);
  std::map<int, int> share;
  for (uint64_t id = 1; id <= 100; ++id) ++share[Where(id)];
  EXPECT_EQ(share[0], 0);
  EXPECT_LE(share[1], 3);
}

TEST_F(SenderCoreTest, ALinkToANewlyChosenEndpointReplacesOneThatIsNotChosen) {
  std::vector<Endpoint> first, all;
  for (int port = 1; port <= 40; ++port) {
    all.push_back(At(port));
    if (port <= 8) first.push_back(At(port));
  }
  Answer(all);
  Give(1);
  std::set<int> chosen;  // the seed is the same each time
  for (const auto& [link, port] : links_) chosen.insert(port);

  Make();
  links_.clear();
  Answer(first);
  Give(1);
  for (int port = 1; port <= 8; ++port) Open(port);
  for (uint64_t id = 2; id <= 200; ++id) Give(id);
  const auto settle = [&](bool stays) {
    for (uint64_t id = 1; id <= 200; ++id) {
      if (Where(id) && chosen.contains(Where(id)) == stays) Settle(id, Kind::kAccepted);
    }
  };
  settle(true);
  now_ += 1s;
  settle(false);  // those that are to go were used last: age must not decide
  const auto before = links_;
  core_->Give(201, "", now_ + 30s);
  Answer(all);  // while there is something to send
  size_t stayed = 0;
  for (const auto& [link, port] : before) {
    if (!chosen.contains(port)) continue;
    ++stayed;
    EXPECT_TRUE(links_.contains(link)) << port << " was cut";
  }
  ASSERT_GT(stayed, 0u);
  ASSERT_LT(stayed, before.size());
  EXPECT_EQ(links_.size(), limits::kSenderLinks);
}

TEST_F(SenderCoreTest, ADrainingEndpointFinishesWhatItHasAndGetsNoMore) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Answer({At(1, EndpointState::kDraining), At(2)});
  Give(2);
  Open(2);
  EXPECT_EQ(Where(1), 1);
  EXPECT_EQ(Where(2), 2);
  EXPECT_NE(LinkTo(1), 0u) << "not cut: 1 is not settled";
  Settle(1, Kind::kAccepted);
  EXPECT_EQ(LinkTo(1), 0u);
  Lose(2);
  Give(3);
  EXPECT_EQ(LinkTo(1), 0u);
  EXPECT_EQ(opened_[1], 1);
}

TEST_F(SenderCoreTest, RefusedEndpointIsLeftOutForAGrowingTimeWhileAnotherWorks) {
  Answer({At(1), At(2)});
  Give(1);
  Open(2);
  EXPECT_EQ(Where(1), 2);
  Give(2);
  EXPECT_EQ(Where(2), 2) << "an endpoint without credit yet holds nothing up";
  core_->Credit(LinkTo(2), 2);
  Give(3);  // there is always work, so each return is tried at once
  int tries = 0;
  for (const auto out : {250ms, 500ms, 1000ms, 2000ms}) {
    ASSERT_NE(LinkTo(1), 0u);
    Lose(1);
    ++tries;
    Pass(out - 1ms);
    EXPECT_EQ(LinkTo(1), 0u);
    Pass(1ms);
  }
  EXPECT_EQ(opened_[1], tries + 1);
}

TEST_F(SenderCoreTest, TheLastEndpointIsTriedEachSecond) {
  Answer({At(1)});
  Give(1, 60s);
  for (int i = 0; i < 20; ++i) {
    ASSERT_NE(LinkTo(1), 0u) << i;
    Lose(1);
    Pass(1s);
  }
}

TEST_F(SenderCoreTest, RefusedIsMaskedAtOnceAndVanishedWithinThreeSeconds) {
  Answer({At(1), At(2, EndpointState::kUp, 1)});
  Give(1);
  EXPECT_EQ(LinkTo(1) != 0, true);
  Lose(1);
  Open(2);
  EXPECT_EQ(Where(1), 2);
  Make();
  links_.clear();
  Answer({At(1), At(2, EndpointState::kUp, 1)});
  Give(5);
  Open(2);
  EXPECT_EQ(Where(5), 0) << "1 comes first, as long as it may come";
  Pass(2500ms);  // no answer from 1 at all
  EXPECT_EQ(Where(5), 2);
}

TEST_F(SenderCoreTest, SuspectsOnlyWhenNoUpOneIsUsableAndDrainingNever) {
  Answer({At(1), At(2, EndpointState::kSuspect), At(3, EndpointState::kDraining)});
  Give(1);
  EXPECT_EQ(LinkTo(2), 0u);
  Open(1);
  EXPECT_EQ(Where(1), 1);
  Lose(1);
  ASSERT_NE(LinkTo(2), 0u);
  Open(2);
  EXPECT_EQ(Where(1), 2);
  EXPECT_EQ(opened_[3], 0);
}

TEST_F(SenderCoreTest, GoneFromTheAnswerButWorkingIsKeptUntilOthersWork) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Answer({}, AnswerStatus::kNotFound);
  Give(2);
  EXPECT_EQ(Where(2), 1) << "the link works, and there is nobody else";
  Answer({At(2)});
  Give(3);
  Open(2);
  Give(4);
  EXPECT_EQ(Where(4), 2);
  EXPECT_NE(LinkTo(1), 0u) << "not cut: 1 and 2 are not settled";
  Settle(1, Kind::kAccepted);
  Settle(2, Kind::kAccepted);
  if (Where(3) == 1) Settle(3, Kind::kAccepted);
  EXPECT_EQ(LinkTo(1), 0u) << "closed when settled";
}

TEST_F(SenderCoreTest, AnUnavailableAnswerChangesNothing) {
  Answer({At(1)});
  Answer({}, AnswerStatus::kUnavailable);
  Give(1);
  Open(1);
  EXPECT_EQ(Where(1), 1);
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

TEST_F(SenderCoreTest, AtMostEightLinksAndAllOfThemUsed) {
  std::vector<Endpoint> endpoints;
  for (int port = 1; port <= 30; ++port) endpoints.push_back(At(port));
  Answer(endpoints);
  Give(1);
  EXPECT_EQ(links_.size(), limits::kSenderLinks);
  const auto links = links_;
  for (const auto& [link, port] : links) Open(port);
  for (uint64_t id = 2; id <= 400; ++id) Give(id);
  std::map<uint64_t, int> count;
  for (const auto& [id, link] : on_) ++count[link];
  EXPECT_EQ(count.size(), limits::kSenderLinks);
  for (const auto& [link, messages] : count) EXPECT_GT(messages, 25);
}

TEST_F(SenderCoreTest, ANewEndpointGetsItsShareWhileTheOthersHaveCredit) {
  Answer({At(1)});
  Give(1);
  Open(1, 1000);
  Answer({At(1), At(2)});
  EXPECT_EQ(LinkTo(2), 0u);  // nothing to send
  Give(2);
  ASSERT_NE(LinkTo(2), 0u);
  Open(2, 1000);
  std::map<int, int> share;
  for (uint64_t id = 3; id < 103; ++id) {
    Give(id);
    ++share[Where(id)];
  }
  EXPECT_GT(share[1], 40);
  EXPECT_GT(share[2], 40);
}

TEST_F(SenderCoreTest, ConsistentKeepsAKeyOnItsEndpointAndTheBound) {
  std::vector<Endpoint> endpoints;
  for (int port = 1; port <= 30; ++port) endpoints.push_back(At(port));
  Answer(endpoints, AnswerStatus::kFound, Policy::kConsistent);
  std::map<std::string, int> home;
  for (uint64_t id = 1; id <= 200; ++id) {
    const std::string key = "k" + std::to_string(id % 40);
    Give(id, 30s, key);
    for (const auto& [link, port] : std::map(links_)) Open(port);
    ASSERT_NE(Where(id), 0) << id;
    EXPECT_LE(links_.size(), limits::kSenderLinks);
    EXPECT_EQ(home.emplace(key, Where(id)).first->second, Where(id));
    Settle(id, Kind::kAccepted);
  }
}

TEST_F(SenderCoreTest, OrderedWaitsForTheOldestAndFailsOver) {
  Answer({At(3), At(2)}, AnswerStatus::kFound, Policy::kOrdered);
  Give(1);
  EXPECT_EQ(links_.size(), 1u);
  Open(2);
  EXPECT_EQ(Where(1), 2);
  Lose(2);
  Open(3);
  EXPECT_EQ(Where(1), 3);
}

TEST_F(SenderCoreTest, AnIdleLinkThatWasCutReopensOnUse) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Settle(1, Kind::kAccepted);
  Lose(1);
  EXPECT_EQ(LinkTo(1), 0u) << "nothing to send";
  Give(2);
  Open(1);
  EXPECT_EQ(Where(2), 1);
}

TEST_F(SenderCoreTest, AnUnusedLinkIsClosedAfterAMinute) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Settle(1, Kind::kAccepted);
  Pass(59s);
  EXPECT_NE(LinkTo(1), 0u);
  Pass(1s);
  EXPECT_EQ(LinkTo(1), 0u);
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
            core_->Written(it->second, id);
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

}  // namespace
}  // namespace datawire
