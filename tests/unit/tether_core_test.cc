#include "tether_core.h"

#include <gtest/gtest.h>

#include <set>

#include "tether_fixture.h"

namespace datawire {
namespace {

using namespace tether_testing;  // NOLINT
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kAddress[] = "//demo/upper";
constexpr char kUrl[] = "amqp://127.0.0.1:4001";

// A core with its outgoing actions sorted into lists; time moves by hand.
class TetherCoreTest : public testing::Test {
 protected:
  TetherCore::Options options_{.servers = 1, .ttl = seconds(15), .host = "h", .program = "p"};
  std::unique_ptr<TetherCore> core_;
  BootTime now_{seconds(1000)};
  std::vector<size_t> connects_;
  std::vector<pb::TetherRequest> sent_;
  std::vector<Result<Revision>> results_;
  std::vector<std::string> lines_;
  int disconnects_ = 0;

  TetherCore& core() {
    if (!core_) core_ = std::make_unique<TetherCore>(options_, 42);
    return *core_;
  }

  void Collect() {
    for (TetherAction& action : core().TakeActions()) {
      if (auto* connect = std::get_if<TetherConnect>(&action)) connects_.push_back(connect->server);
      if (auto* send = std::get_if<TetherSend>(&action)) sent_.push_back(send->message);
      if (auto* finish = std::get_if<TetherFinish>(&action)) finish->done(finish->result);
      if (auto* observe = std::get_if<TetherObserve>(&action)) lines_.push_back(observe->line);
      if (std::holds_alternative<TetherDisconnect>(action)) ++disconnects_;
    }
  }

  TetherClient::Done Keep() {
    return [this](const Result<Revision>& result) { results_.push_back(result); };
  }
  void Register(std::string_view url = kUrl, uint32_t weight = 100) {
    auto spec = Spec(kAddress, url);
    spec.weight = weight;
    core().Register(std::move(spec), Keep(), now_);
    Collect();
  }
  void Withdraw() {
    core().Withdraw(*Address::Parse(kAddress), *EndpointUrl::Parse(kUrl), Keep(), now_);
    Collect();
  }
  void Receive(const pb::TetherResponse& message) {
    core().OnMessage(message, now_);
    Collect();
  }
  void Lose() {
    core().OnLost(Status(Code::kUnavailable, "gone"), now_);
    Collect();
  }
  void Advance(milliseconds by) {
    now_ += by;
    core().Tick(now_);
    Collect();
  }
  // Waits out the back-off; returns how long it was.
  milliseconds WaitForConnect() {
    const size_t before = connects_.size();
    const BootTime from = now_;
    for (int i = 0; i < 100 && connects_.size() == before; ++i) {
      now_ = std::max(now_, core().NextDue().value_or(now_));
      core().Tick(now_);
      Collect();
    }
    EXPECT_EQ(connects_.size(), before + 1);
    return std::chrono::duration_cast<milliseconds>(now_ - from);
  }
  const pb::TetherRequest& last() const { return sent_.back(); }
  size_t Registers() const {
    return std::count_if(sent_.begin(), sent_.end(), [](auto& m) { return m.has_register_(); });
  }
  // Registered and acknowledged.
  void Attach() {
    Register();
    Receive(Welcome(0, false));
    Receive(Acknowledged(last().register_().op_id()));
  }
};

TEST_F(TetherCoreTest, SaysHelloFirstAndRegistersAfterTheWelcome) {
  Register();
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_TRUE(last().hello().session_id().empty());
  EXPECT_EQ(last().hello().ttl_ms(), 15000u);
  Receive(Welcome(0, false));
  ASSERT_EQ(sent_.size(), 2u);
  EXPECT_EQ(last().register_().registrations(0).address(), kAddress);
  EXPECT_EQ(last().register_().registrations(0).endpoint().url(), kUrl);
  Receive(Acknowledged(last().register_().op_id(), 9));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].value(), (Revision{1, 9}));
}

TEST_F(TetherCoreTest, EveryAttemptToResumeHasAGreaterAttachNumberAnsweredOrNot) {
  Attach();
  uint64_t former = 0;
  for (int i = 0; i < 5; ++i) {
    Lose();
    WaitForConnect();
    ASSERT_TRUE(last().has_hello());
    EXPECT_EQ(last().hello().session_id(), std::string(16, 'i'));
    EXPECT_EQ(last().hello().secret(), std::string(32, 's'));
    EXPECT_GT(last().hello().attach_number(), former);
    former = last().hello().attach_number();
  }
}

TEST_F(TetherCoreTest, AnOpWhoseAckWasLostIsSentAgainWithItsOpId) {
  Register();
  Receive(Welcome(0, false));
  const uint64_t op = last().register_().op_id();
  Lose();
  WaitForConnect();
  Receive(Welcome(1, true));
  EXPECT_EQ(last().register_().op_id(), op);
  EXPECT_EQ(Registers(), 2u);
  Receive(Acknowledged(op));
  Receive(Acknowledged(op));
  EXPECT_EQ(results_.size(), 1u);
}

TEST_F(TetherCoreTest, WhatWasAcknowledgedIsNotSentAgainOnResume) {
  Attach();
  Lose();
  WaitForConnect();
  Receive(Welcome(1, true));
  EXPECT_EQ(Registers(), 1u);
}

TEST_F(TetherCoreTest, FencedRaisesAboveThePresentNumber) {
  Attach();
  Lose();
  WaitForConnect();
  Receive(Ended(pb::FENCED, 17));
  WaitForConnect();
  EXPECT_EQ(last().hello().attach_number(), 18u);
}

TEST_F(TetherCoreTest, AnExpiredSessionIsFollowedAtOnceByANewOneWithEverythingRegistered) {
  Attach();
  Register("amqp://127.0.0.1:4002");
  Receive(Acknowledged(last().register_().op_id()));
  sent_.clear();
  Receive(Ended(pb::SESSION_EXPIRED, 0, "expired"));
  ASSERT_EQ(connects_.size(), 2u);  // without waiting
  EXPECT_TRUE(last().hello().session_id().empty());
  EXPECT_EQ(last().hello().attach_number(), 0u);
  Receive(Welcome(0, false, std::string(16, 'j')));
  EXPECT_EQ(Registers(), 2u);
  EXPECT_EQ(core().session_id(), std::string(16, 'j'));
}

TEST_F(TetherCoreTest, AProcessStoppedLongerThanItsTtlRegistersAgainWithinTwoSeconds) {
  Attach();
  Advance(seconds(5));
  ASSERT_TRUE(last().has_heartbeat());
  sent_.clear();
  const BootTime woken = now_ + seconds(40);
  Advance(seconds(40));  // the heartbeat was never answered: it connects again
  WaitForConnect();
  Receive(Ended(pb::SESSION_EXPIRED, 0, "expired"));
  Receive(Welcome(0, false, std::string(16, 'j')));
  EXPECT_EQ(Registers(), 1u);
  EXPECT_LE(now_ - woken, seconds(2));
}

TEST_F(TetherCoreTest, AServerThatEndsEachNewSessionMeetsTheBackOff) {
  Attach();
  const BootTime from = now_;
  for (int i = 0; i < 20; ++i) {
    if (i > 0) WaitForConnect();
    Receive(Welcome(0, false));
    Receive(Ended(pb::SESSION_EXPIRED, 0, "expired"));
  }
  EXPECT_GT(now_ - from, seconds(10));
}

TEST_F(TetherCoreTest, ADeniedResumeOpensANewSession) {
  Attach();
  Lose();
  WaitForConnect();
  Receive(Ended(pb::DENIED));
  EXPECT_TRUE(last().hello().session_id().empty());
}

TEST_F(TetherCoreTest, AnAckOwedOverTheEndOfASessionComesFromTheNewOne) {
  Register();
  Receive(Welcome(0, false));
  Receive(Ended(pb::SESSION_EXPIRED, 0, "expired"));
  EXPECT_TRUE(results_.empty());
  Receive(Welcome(0, false, std::string(16, 'j')));
  Receive(Acknowledged(last().register_().op_id(), 12));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].value().number, 12u);
}

TEST_F(TetherCoreTest, AnInvalidHelloFailsWhatWaitsAndIsNotTriedAgain) {
  Register();
  Receive(Ended(pb::INVALID));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].status().code(), Code::kInvalid);
  EXPECT_FALSE(core().NextDue());
  Advance(seconds(60));
  EXPECT_EQ(connects_.size(), 1u);
}

TEST_F(TetherCoreTest, ADeniedRegistrationIsReportedOnceAndDropped) {
  Register();
  Receive(Welcome(0, false));
  Receive(Refused(last().register_().op_id(), pb::DENIED));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].status().code(), Code::kDenied);
  Receive(Ended(pb::SESSION_EXPIRED, 0, "expired"));
  sent_.clear();
  Receive(Welcome(0, false));
  EXPECT_EQ(Registers(), 0u);
}

TEST_F(TetherCoreTest, AnOverloadedRegistrationIsSentAgainAfterTheTimeGiven) {
  Register();
  Receive(Welcome(0, false));
  const uint64_t op = last().register_().op_id();
  Receive(Refused(op, pb::OVERLOADED, 700));
  Advance(milliseconds(699));
  EXPECT_EQ(Registers(), 1u);
  Advance(milliseconds(1));
  EXPECT_EQ(Registers(), 2u);
  EXPECT_EQ(last().register_().op_id(), op);
  EXPECT_TRUE(results_.empty());
}

TEST_F(TetherCoreTest, ARegistrationRefusedForNowDoesNotComeBackAfterItsWithdrawal) {
  Register();
  Receive(Welcome(0, false));
  Receive(Refused(last().register_().op_id(), pb::OVERLOADED, 700));
  Withdraw();
  EXPECT_TRUE(last().has_withdraw());
  Receive(Acknowledged(last().withdraw().op_id()));
  ASSERT_EQ(results_.size(), 2u);
  EXPECT_EQ(results_[0].status().code(), Code::kCancelled);
  EXPECT_TRUE(results_[1].ok());
  Advance(seconds(2));
  EXPECT_EQ(Registers(), 1u);
}

TEST_F(TetherCoreTest, ARefusalOvertakenByALaterCallIsNotSentAgain) {
  Register(kUrl, 10);
  Receive(Welcome(0, false));
  const uint64_t first = last().register_().op_id();
  Register(kUrl, 20);
  Receive(Refused(first, pb::OVERLOADED, 100));
  Receive(Acknowledged(last().register_().op_id()));
  Advance(seconds(1));
  EXPECT_EQ(Registers(), 2u);
  EXPECT_EQ(last().register_().registrations(0).endpoint().weight(), 20u);
}

// Its refusal may have been lost with the stream, while the later one was done.
TEST_F(TetherCoreTest, AnUnansweredOpThatALaterOneOvertookIsNotSentAgain) {
  Register();
  Receive(Welcome(0, false));
  Withdraw();
  Lose();
  WaitForConnect();
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].status().code(), Code::kCancelled);
  sent_.clear();
  Receive(Welcome(1, true));
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_TRUE(sent_[0].has_withdraw());
}

TEST_F(TetherCoreTest, HeartbeatsComeEachThirdOfTheTtl) {
  Attach();
  sent_.clear();
  for (int i = 1; i <= 4; ++i) {
    Advance(milliseconds(4999));
    EXPECT_EQ(sent_.size(), static_cast<size_t>(i - 1));
    Advance(milliseconds(1));
    ASSERT_EQ(sent_.size(), static_cast<size_t>(i));
    Receive(HeartbeatAnswer(last().heartbeat().number()));
  }
  EXPECT_EQ(disconnects_, 0);
}

TEST_F(TetherCoreTest, ASilentServerIsLeftWithinTheTtl) {
  Attach();
  const BootTime from = now_;
  Advance(seconds(5));
  WaitForConnect();
  EXPECT_GE(disconnects_, 1);
  EXPECT_LT(now_ - from, seconds(15));
  EXPECT_TRUE(last().has_hello());
}

TEST_F(TetherCoreTest, AServerThatAcceptsAndNeverAnswersIsPassedByAfterThreeSeconds) {
  options_.servers = 2;
  Register();
  const size_t first = connects_.back();
  Advance(milliseconds(2999));
  EXPECT_EQ(disconnects_, 0);
  Advance(milliseconds(1));
  EXPECT_EQ(disconnects_, 1);
  WaitForConnect();
  EXPECT_NE(connects_.back(), first);
}

TEST_F(TetherCoreTest, TheBackOffGrowsAndNeverExceedsAThirdOfTheTtl) {
  Attach();
  milliseconds most{0};
  for (int i = 0; i < 200; ++i) {
    Lose();
    const milliseconds waited = WaitForConnect();
    if (i == 0) {
      EXPECT_LE(waited, milliseconds(250));
    }
    most = std::max(most, waited);
  }
  EXPECT_LE(most, milliseconds(5000));
  EXPECT_GT(most, milliseconds(4000));
}

TEST_F(TetherCoreTest, TheBackOffIsDrawnFromAllOfItsRange) {
  Attach();
  std::set<int64_t> tenths;
  for (int i = 0; i < 210; ++i) {
    Lose();
    const milliseconds waited = WaitForConnect();
    if (i >= 10) tenths.insert(waited * 10 / milliseconds(5001));
  }
  EXPECT_EQ(tenths.size(), 10u) << "some part of the back-off is never used";
}

TEST_F(TetherCoreTest, TheBackOffOfALongTtlNeverExceedsThirtySeconds) {
  options_.ttl = std::chrono::hours(1);
  Attach();
  milliseconds most{0};
  for (int i = 0; i < 200; ++i) {
    Lose();
    most = std::max(most, WaitForConnect());
  }
  EXPECT_LE(most, milliseconds(30000));
  EXPECT_GT(most, milliseconds(20000));
}

TEST_F(TetherCoreTest, FailsOverThroughAllServers) {
  options_.servers = 3;
  Register();
  Lose();
  WaitForConnect();
  Lose();
  WaitForConnect();
  std::sort(connects_.begin(), connects_.end());
  EXPECT_EQ(connects_, (std::vector<size_t>{0, 1, 2}));
}

TEST_F(TetherCoreTest, WithoutServersItConnectsWhenThereAreSome) {
  options_.servers = 0;
  Register();
  Advance(seconds(60));
  EXPECT_TRUE(connects_.empty());
  core().SetServers(2, std::nullopt, now_);
  Collect();
  EXPECT_EQ(connects_, std::vector<size_t>{0});
  EXPECT_TRUE(last().has_hello());
}

TEST_F(TetherCoreTest, AServerThatIsListedNoLongerIsLeftAtOnceAndTheSessionResumed) {
  options_.servers = 2;
  Attach();
  core().SetServers(3, connects_.back() + 1, now_);  // it has another place now
  Collect();
  EXPECT_EQ(connects_.size(), 1u);
  core().SetServers(2, std::nullopt, now_);
  Collect();
  EXPECT_EQ(disconnects_, 1);
  ASSERT_EQ(connects_.size(), 2u);
  EXPECT_EQ(connects_.back(), 0u);
  EXPECT_EQ(last().hello().attach_number(), 1u);
}

TEST_F(TetherCoreTest, OfServersInOrderTheFirstIsTriedFirstAfterALoss) {
  options_.servers = 0;
  Register();
  core().SetServers(3, std::nullopt, now_);
  Collect();
  Lose();
  WaitForConnect();
  Lose();
  WaitForConnect();
  EXPECT_EQ(connects_, (std::vector<size_t>{0, 1, 2}));
  Receive(Welcome(0, false));
  Lose();
  WaitForConnect();
  EXPECT_EQ(connects_.back(), 0u);
}

TEST_F(TetherCoreTest, AMoveResumesElsewhere) {
  options_.servers = 2;
  Attach();
  pb::TetherResponse move;
  move.mutable_move()->set_reason("this node stops");
  Receive(move);
  EXPECT_EQ(disconnects_, 1);
  EXPECT_LE(WaitForConnect(), milliseconds(250));
  EXPECT_NE(connects_[0], connects_[1]);
  EXPECT_EQ(last().hello().attach_number(), 1u);
}

TEST_F(TetherCoreTest, CloseSaysByeAndIsClosedWhenTheServerConfirms) {
  Attach();
  core().Close(now_);
  Collect();
  EXPECT_TRUE(last().has_bye());
  EXPECT_FALSE(core().closed());
  Receive(Ended(pb::SESSION_EXPIRED, 0, "closed"));
  EXPECT_TRUE(core().closed());
  EXPECT_FALSE(core().NextDue());
}

TEST_F(TetherCoreTest, CloseWhileAwayResumesAtOnceToSayBye) {
  Attach();
  Lose();
  core().Close(now_);
  Collect();
  EXPECT_EQ(last().hello().attach_number(), 1u);
  Receive(Welcome(1, true));
  EXPECT_TRUE(last().has_bye());
}

TEST_F(TetherCoreTest, AbandonCancelsWhatIsPending) {
  Register();
  core().Abandon();
  Collect();
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].status().code(), Code::kCancelled);
  EXPECT_TRUE(core().closed());
}

TEST_F(TetherCoreTest, ADrainIsCarriedOverToANewSession) {
  Attach();
  core().Drain(false, Keep(), now_);
  Collect();
  Receive(Acknowledged(last().drain().op_id()));
  Receive(Ended(pb::SESSION_EXPIRED, 0, "expired"));
  sent_.clear();
  Receive(Welcome(0, false));
  ASSERT_EQ(sent_.size(), 2u);
  EXPECT_TRUE(sent_[0].has_register_());
  EXPECT_TRUE(sent_[1].has_drain());
  EXPECT_FALSE(sent_[1].drain().undo());
}

TEST_F(TetherCoreTest, AnUndoneDrainIsNotCarriedOver) {
  Attach();
  core().Drain(false, nullptr, now_);
  core().Drain(true, nullptr, now_);
  Collect();
  Receive(Ended(pb::SESSION_EXPIRED, 0, "expired"));
  sent_.clear();
  Receive(Welcome(0, false));
  for (const auto& message : sent_) EXPECT_FALSE(message.has_drain());
}

TEST_F(TetherCoreTest, KeepsABoundedNumberOfOpsInFlight) {
  Register();
  Receive(Welcome(0, false));
  for (int port = 5000; port < 5200; ++port) Register("amqp://127.0.0.1:" + std::to_string(port));
  EXPECT_EQ(Registers(), 64u);
  while (results_.size() < 201u) {
    const size_t before = results_.size();
    for (const auto& message : std::vector(sent_))
      if (message.has_register_()) Receive(Acknowledged(message.register_().op_id()));
    ASSERT_GT(results_.size(), before);
  }
  EXPECT_EQ(Registers(), 201u);
}

TEST_F(TetherCoreTest, ASessionRefusesMoreThanAThousandRegistrations) {
  for (int port = 1; port <= 1001; ++port) Register("amqp://127.0.0.1:" + std::to_string(port));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].status().code(), Code::kOverloaded);
}

pb::TetherResponse WelcomeAt(uint64_t epoch, uint64_t attach_number, bool resumed) {
  pb::TetherResponse response = Welcome(attach_number, resumed);
  response.mutable_welcome()->mutable_revision()->set_epoch(epoch);
  return response;
}

TEST_F(TetherCoreTest, AfterARestoreItSaysAgainWhatWasAcknowledged) {
  Register();
  Receive(WelcomeAt(1, 0, false));
  Receive(Acknowledged(1));
  Register("amqp://127.0.0.1:4002");
  Receive(Acknowledged(2));
  Withdraw();
  Receive(Acknowledged(3));
  core().Drain(false, Keep(), now_);
  core().Drain(true, Keep(), now_);
  Collect();
  Receive(Acknowledged(4));
  Receive(Acknowledged(5));
  ASSERT_EQ(results_.size(), 5u);
  const auto resumed_at = [this](uint64_t epoch, uint64_t attach_number) {
    core().OnLost(Status(Code::kUnavailable, "away"), now_);
    now_ += seconds(10);
    core().Tick(now_);
    Collect();
    sent_.clear();
    Receive(WelcomeAt(epoch, attach_number, true));
  };
  resumed_at(1, 1);
  EXPECT_TRUE(sent_.empty()) << "the same epoch: the directory has it all";
  resumed_at(2, 2);
  ASSERT_EQ(sent_.size(), 3u);
  EXPECT_EQ(sent_[0].register_().registrations(0).endpoint().url(), "amqp://127.0.0.1:4002");
  EXPECT_EQ(sent_[0].register_().op_id(), 6u) << "a new op: the restored one may know an old id";
  EXPECT_EQ(sent_[1].withdraw().withdrawals(0).url(), kUrl) << "it may be back in the answers";
  ASSERT_TRUE(sent_[2].has_drain());
  EXPECT_TRUE(sent_[2].drain().undo());
  Receive(Acknowledged(6));
  Receive(Refused(7, pb::NOT_FOUND));
  Receive(Acknowledged(8));
  resumed_at(2, 3);
  EXPECT_TRUE(sent_.empty());
  EXPECT_EQ(results_.size(), 5u) << "nobody is told twice";
}

}  // namespace
}  // namespace datawire
