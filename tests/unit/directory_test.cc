#include "directory_fixture.h"

// Sessions, ops and verbs of the directory on the real engine and view.

namespace datawire::directory {
namespace {

constexpr char kOne[] = "amqp://127.0.0.1:5001";
constexpr char kTwo[] = "amqp://127.0.0.1:5002";

TEST_F(DirectoryTest, ARegisteredEndpointIsResolvedOnceItIsAcknowledged) {
  TestTether process(*directory_);
  const auto welcome = process.Hello();
  EXPECT_EQ(process.id.size(), 16u);
  EXPECT_EQ(process.secret.size(), 32u);
  EXPECT_EQ(welcome.welcome().ttl_ms(), 15'000u);
  EXPECT_EQ(welcome.welcome().source().cluster_id(), "test");
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound);
  const auto done = process.Register(1, "//D/a/", "amqp://127.0.0.1:5001");
  ASSERT_FALSE(done.done().has_refusal()) << done.ShortDebugString();
  const Answer answer = Resolve("//d/a");
  EXPECT_EQ(answer.status, AnswerStatus::kFound);
  ASSERT_EQ(answer.endpoints.size(), 1u);
  EXPECT_EQ(answer.endpoints[0].url.text(), kOne);
  EXPECT_EQ(answer.ttl, 30s);
  EXPECT_GE(answer.revision, FromWire(done.done().revision()));
  EXPECT_EQ(Resolve("//d/none").ttl, 5s);
}

TEST_F(DirectoryTest, AnOpSentAgainGetsItsFirstResult) {
  TestTether process(*directory_);
  process.Hello();
  const auto first = process.Register(1, "//d/a", kOne);
  const auto withdrawn = process.Withdraw(2, "//d/a", kOne);
  EXPECT_EQ(process.Register(1, "//d/a", kOne).done().revision().number(),
            first.done().revision().number());
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound) << "it was not done again";
  EXPECT_EQ(process.Withdraw(2, "//d/a", kOne).done().revision().number(),
            withdrawn.done().revision().number());
}

TEST_F(DirectoryTest, AfterARestartTheRecordTellsThatAnOpWasDone) {
  std::optional<TestTether> process(std::in_place, *directory_);
  process->Hello();
  const auto registered = process->Register(7, "//d/a", kOne);
  const auto other = process->Register(8, "//d/b", kOne);
  const auto withdrawn = process->Withdraw(9, "//d/b", kOne);
  const std::string id = process->id, secret = process->secret;
  process.reset();
  Restart();
  TestTether again(*directory_);
  again.id = id;
  again.secret = secret;
  ASSERT_TRUE(again.Resume(again, 2).welcome().resumed());
  EXPECT_EQ(again.Register(7, "//d/a", kOne).done().revision().number(),
            registered.done().revision().number());
  EXPECT_FALSE(again.Register(8, "//d/b", kOne).done().has_refusal());
  EXPECT_EQ(StatusOf("//d/b"), AnswerStatus::kNotFound) << "an old op does not undo a later one";
  EXPECT_EQ(again.Withdraw(9, "//d/b", kOne).done().revision().number(),
            withdrawn.done().revision().number());
}

TEST_F(DirectoryTest, ACallIsAllOrNothing) {
  TestTether process(*directory_);
  process.Hello();
  auto request = TestTether::RegisterOf(1, "//d/a", kOne);
  TestTether::Add(&request, "//d:5672/b", kOne);
  const auto refused = process.Ask(request);
  EXPECT_EQ(refused.done().refusal().code(), pb::INVALID);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound);
  process.Register(2, "//d/a", kOne);
  pb::TetherRequest withdraw;
  withdraw.mutable_withdraw()->set_op_id(3);
  withdraw.mutable_withdraw()->add_withdrawals()->set_address("//d/a");
  withdraw.mutable_withdraw()->add_withdrawals()->set_address("//d/none");
  EXPECT_EQ(process.Ask(withdraw).done().refusal().code(), pb::NOT_FOUND);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
}

TEST_F(DirectoryTest, WhatAFormerProcessSentLateDoesNotTakeTheEndpointFromTheNewOne) {
  TestTether former(*directory_), present(*directory_);
  former.Hello();
  former.Register(1, "//d/a", kOne);
  present.Hello();
  EXPECT_FALSE(present.Register(1, "//d/a", kOne).done().has_refusal());
  const auto late = former.Register(2, "//d/a", kOne);
  EXPECT_EQ(late.done().refusal().code(), pb::CONFLICT);
  EXPECT_EQ(late.done().refusal().message(),
            std::string(kOne) + " at //d/a is registered by a newer session of the same identity");
  EXPECT_FALSE(former.Register(3, "//d/b", kOne).done().has_refusal());
  EXPECT_FALSE(present.Withdraw(2, "//d/a", kOne).done().has_refusal());
  EXPECT_FALSE(former.Register(4, "//d/a", kOne).done().has_refusal()) << "nobody holds it";
}

TEST_F(DirectoryTest, FiftyRegistrationsAreOneRevisionAndFiftyOneAreRefused) {
  TestTether process(*directory_);
  process.Hello();
  pb::TetherRequest request;
  request.mutable_register_()->set_op_id(1);
  for (int i = 0; i < 50; ++i) TestTether::Add(&request, "//d/a" + std::to_string(i), kOne);
  const auto done = process.Ask(request);
  ASSERT_FALSE(done.done().has_refusal()) << done.ShortDebugString();
  EXPECT_EQ(Resolve("//d/a0").modified, Resolve("//d/a49").modified);
  TestTether::Add(&request, "//d/a50", kOne);
  request.mutable_register_()->set_op_id(2);
  EXPECT_EQ(process.Ask(request).done().refusal().code(), pb::INVALID);
}

TEST_F(DirectoryTest, ASessionHoldsAtMostAThousandRegistrations) {
  TestTether process(*directory_);
  process.Hello();
  for (int call = 0; call < 20; ++call) {
    pb::TetherRequest request;
    request.mutable_register_()->set_op_id(call + 1);
    for (int i = 0; i < 50; ++i)
      TestTether::Add(&request, "//d/a" + std::to_string(call * 50 + i), kOne);
    ASSERT_FALSE(process.Ask(request).done().has_refusal());
  }
  EXPECT_EQ(process.Register(21, "//d/more", kOne).done().refusal().code(), pb::INVALID);
  EXPECT_FALSE(process.Register(22, "//d/a0", kOne).done().has_refusal()) << "one it has";
  EXPECT_FALSE(process.Withdraw(23, "//d/a0", kOne).done().has_refusal());
  EXPECT_FALSE(process.Register(24, "//d/more", kOne).done().has_refusal());
}

TEST_F(DirectoryTest, OpsOfOneAddressKeepTheirOrderWithoutWaitingForReplies) {
  TestTether process(*directory_);
  process.Hello();
  for (uint64_t i = 1; i <= 100; ++i) {
    if (i % 2 == 1) {
      process.tether->OnMessage(TestTether::RegisterOf(i, "//d/a", kOne));
      continue;
    }
    pb::TetherRequest request;
    request.mutable_withdraw()->set_op_id(i);
    request.mutable_withdraw()->add_withdrawals()->set_address("//d/a");
    process.tether->OnMessage(request);
  }
  for (uint64_t i = 1; i <= 100; ++i) {
    const auto response = process.Read();
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->done().op_id(), i);
    EXPECT_FALSE(response->done().has_refusal()) << response->ShortDebugString();
  }
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound);
}

TEST_F(DirectoryTest, WithdrawOfWhatIsNotThereIsNotFoundAndForeignOnesStay) {
  TestTether one(*directory_), two(*directory_);
  one.Hello();
  two.Hello();
  one.Register(1, "//d/a", kOne);
  EXPECT_EQ(two.Withdraw(1, "//d/a", kOne).done().refusal().code(), pb::NOT_FOUND);
  EXPECT_EQ(two.Withdraw(2, "//d/a", "").done().refusal().code(), pb::NOT_FOUND);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
  EXPECT_FALSE(one.Withdraw(2, "//d/a", "").done().has_refusal());
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound);
}

TEST_F(DirectoryTest, ANewerRegistrationOfTheSameUrlReplacesTheOlder) {
  TestTether old(*directory_), young(*directory_);
  old.Hello();
  young.Hello();
  old.Register(1, "//d/a", kOne);
  young.Register(1, "//d/a", kOne);
  EXPECT_EQ(Resolve("//d/a").endpoints.size(), 1u);
  old.Bye();
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
}

TEST_F(DirectoryTest, AResumeFencesTheFormerHolderAndKeepsTheRegistrations) {
  TestTether former(*directory_);
  former.Hello();
  former.Register(1, "//d/a", kOne);
  TestTether holder(*directory_);
  const auto welcome = holder.Resume(former, 2);
  EXPECT_TRUE(welcome.welcome().resumed());
  EXPECT_TRUE(welcome.welcome().secret().empty());
  const auto ended = former.Read();
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->ended().refusal().code(), pb::FENCED);
  EXPECT_EQ(ended->ended().present_attach_number(), 2u);
  former.tether->OnMessage(TestTether::RegisterOf(9, "//d/late", kOne));
  Settle();
  EXPECT_EQ(StatusOf("//d/late"), AnswerStatus::kNotFound);
  TestTether replayed(*directory_);
  const auto fenced = replayed.Resume(former, 2);
  EXPECT_EQ(fenced.ended().refusal().code(), pb::FENCED);
  EXPECT_EQ(fenced.ended().present_attach_number(), 2u);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
  EXPECT_EQ(holder.Heartbeat(5).heartbeat().number(), 5u);
}

TEST_F(DirectoryTest, WhatAFencedHolderHadOnItsWayIsNotWritten) {
  TestTether former(*directory_), holder(*directory_);
  former.Hello();
  pb::TetherRequest resume;
  resume.mutable_hello()->set_session_id(former.id);
  resume.mutable_hello()->set_secret(former.secret);
  resume.mutable_hello()->set_attach_number(2);
  {
    const HeldEngine held(*log_);
    holder.tether->OnMessage(resume);
    former.tether->OnMessage(TestTether::RegisterOf(1, "//d/late", kOne));
  }
  const auto welcome = holder.Read();
  ASSERT_TRUE(welcome && welcome->welcome().resumed());
  Settle();
  EXPECT_EQ(StatusOf("//d/late"), AnswerStatus::kNotFound);
}

TEST_F(DirectoryTest, AForeignSecretOrIdentityIsDeniedAndAnUnknownSessionExpired) {
  TestTether owner(*directory_, {"127.0.0.1:1", "spiffe://a"});
  owner.Hello();
  TestTether thief(*directory_, {"127.0.0.1:2", "spiffe://a"});
  TestTether guess(*directory_);
  guess.id = owner.id;
  guess.secret = std::string(32, 'x');
  EXPECT_EQ(thief.Resume(guess, 9).ended().refusal().code(), pb::DENIED);
  TestTether other(*directory_, {"127.0.0.1:3", "spiffe://b"});
  EXPECT_EQ(other.Resume(owner, 9).ended().refusal().code(), pb::DENIED);
  guess.id = std::string(16, 'y');
  TestTether stranger(*directory_);
  const auto unknown = stranger.Resume(guess, 9);
  EXPECT_EQ(unknown.ended().refusal().code(), pb::SESSION_EXPIRED);
  EXPECT_EQ(unknown.ended().reason(), "unknown");
  EXPECT_EQ(owner.Heartbeat().heartbeat().number(), 1u) << "the owner is unaffected";
}

TEST_F(DirectoryTest, ByeEndsTheSessionAndItsEndpointsAtOnce) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne);
  EXPECT_EQ(process.Bye().ended().reason(), "closed");
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound) << "not kept as a suspect";
  TestTether again(*directory_);
  const auto ended = again.Resume(process, 2);
  EXPECT_EQ(ended.ended().refusal().code(), pb::SESSION_EXPIRED);
  EXPECT_EQ(ended.ended().reason(), "closed");
}

TEST_F(DirectoryTest, ASilentSessionEndsAndIsToldSo) {
  TestTether silent(*directory_), alive(*directory_);
  silent.Hello();
  alive.Hello();
  silent.Register(1, "//d/a", kOne);
  alive.Register(1, "//d/a", kTwo);
  for (int i = 0; i < 3; ++i) {
    Pass(4500ms);
    EXPECT_EQ(Resolve("//d/a").endpoints.size(), 2u);
    EXPECT_GT(alive.Heartbeat().heartbeat().seen_ms(), 4000u);
  }
  Pass(1500ms);
  ASSERT_EQ(Resolve("//d/a").endpoints.size(), 1u);
  EXPECT_EQ(Resolve("//d/a").endpoints[0].url.text(), kTwo);
  const auto ended = silent.Read();
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->ended().refusal().code(), pb::SESSION_EXPIRED);
  EXPECT_EQ(ended->ended().reason(), "expired");
  TestTether again(*directory_);
  EXPECT_EQ(again.Resume(silent, 2).ended().reason(), "expired");
}

TEST_F(DirectoryTest, TheLastEndpointStaysSuspectForFiveMinutesThenGoes) {
  TestTether silent(*directory_);
  silent.Hello();
  silent.Register(1, "//d/a", kOne);
  Pass(16s);
  Answer answer = Resolve("//d/a");
  EXPECT_EQ(answer.status, AnswerStatus::kNoEndpoint);
  ASSERT_EQ(answer.endpoints.size(), 1u);
  EXPECT_EQ(answer.endpoints[0].state, EndpointState::kSuspect);
  Pass(4min + 50s);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNoEndpoint);
  Pass(15s);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound);
}

TEST_F(DirectoryTest, TombstonesAreSweptAfterTenMinutes) {
  RegisterStatic("//d/a", kOne);
  WithdrawStatic("//d/a", kOne);
  const auto records = [this] {
    int count = 0;
    EXPECT_TRUE(view_->Scan("d/", "d0", [&count](const Record&) { return ++count; }).ok());
    return count;
  };
  Pass(9min + 50s);
  EXPECT_EQ(records(), 1);
  Pass(15s);
  EXPECT_EQ(records(), 0);
}

TEST_F(DirectoryTest, AnOutageOfTheDirectoryExpiresNobody) {
  std::optional<TestTether> process(std::in_place, *directory_);
  process->Hello();
  process->Register(1, "//d/a", kOne);
  const std::string id = process->id, secret = process->secret;
  process.reset();
  Restart(3600s);
  Pass(59s);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
  TestTether again(*directory_);
  again.id = id;
  again.secret = secret;
  EXPECT_TRUE(again.Resume(again, 2).welcome().resumed());
  now_ += 3600s;  // and once as SIGSTOP and SIGCONT: a gap between ticks
  Pass(59s);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
}

TEST_F(DirectoryTest, DrainMarksTheSessionsEndpointsAndUndoesIt) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne);
  pb::TetherRequest drain;
  drain.mutable_drain()->set_op_id(2);
  EXPECT_EQ(process.Ask(drain).done().op_id(), 2u);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNoEndpoint);
  EXPECT_EQ(Resolve("//d/a").endpoints.at(0).state, EndpointState::kDraining);
  drain.mutable_drain()->set_undo(true);
  drain.mutable_drain()->set_op_id(3);
  EXPECT_EQ(process.Ask(drain).done().op_id(), 3u);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
}

TEST_F(DirectoryTest, MassExpiryMakesSuspectsThatAHeartbeatBringsBack) {
  std::vector<std::unique_ptr<TestTether>> all;
  for (int i = 0; i < 12; ++i) {
    all.push_back(std::make_unique<TestTether>(*directory_));
    all.back()->Hello();
    all.back()->Register(1, "//d/a", "amqp://127.0.0.1:" + std::to_string(6000 + i));
  }
  Pass(16s);
  const Answer answer = Resolve("//d/a");
  EXPECT_EQ(answer.status, AnswerStatus::kNoEndpoint);
  EXPECT_EQ(answer.endpoints.size(), 12u);
  EXPECT_TRUE(directory_->GetStatus().brake_on());
  EXPECT_EQ(directory_->GetStatus().sessions_suspect(), 12u);
  all[3]->Heartbeat();
  Settle();
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
}

TEST_F(DirectoryTest, TheFirstMessageMustBeAHelloWithATtlInRange) {
  TestTether rude(*directory_);
  EXPECT_EQ(rude.Register(1, "//d/a", kOne).ended().refusal().code(), pb::INVALID);
  TestTether quick(*directory_);
  const auto refused = quick.Hello(1000);
  EXPECT_EQ(refused.ended().refusal().code(), pb::INVALID);
  EXPECT_NE(refused.ended().refusal().message().find("1000 ms"), std::string::npos);
  EXPECT_EQ(directory_->GetStatus().sessions(), 0u);
}

TEST_F(DirectoryTest, MessagesSentBeforeTheWelcomeAreTakenAfterIt) {
  TestTether process(*directory_);
  pb::TetherRequest hello;
  hello.mutable_hello();
  process.tether->OnMessage(hello);
  process.tether->OnMessage(TestTether::RegisterOf(1, "//d/a", kOne));
  EXPECT_TRUE(process.Read()->has_welcome());
  EXPECT_EQ(process.Read()->done().op_id(), 1u);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
}

TEST_F(DirectoryTest, ATetherHasAtMost256OpsInFlight) {
  TestTether process(*directory_);
  process.Hello();
  constexpr uint64_t kMost = 256, kSent = kMost + 10;
  {
    const HeldEngine held(*log_);
    for (uint64_t op = 1; op <= kSent; ++op)
      process.tether->OnMessage(TestTether::RegisterOf(op, "//d/a" + std::to_string(op), kOne));
    for (uint64_t op = kMost + 1; op <= kSent; ++op) {
      const auto done = process.Read()->done();
      EXPECT_EQ(done.op_id(), op);
      EXPECT_EQ(done.refusal().code(), pb::OVERLOADED);
      EXPECT_GT(done.refusal().retry_after_ms(), 0u);
    }
  }
  for (uint64_t op = 1; op <= kMost; ++op) EXPECT_FALSE(process.Read()->done().has_refusal());
}

TEST_F(DirectoryTest, TheAcknowledgementsOfOneCommitWakeTheirTetherOnce) {
  TestTether process(*directory_), other(*directory_);
  process.Hello();
  other.Hello();
  const int before = process.stream.wakes(), before_other = other.stream.wakes();
  {
    const HeldEngine held(*log_);
    for (uint64_t op = 1; op <= 20; ++op)
      process.tether->OnMessage(TestTether::RegisterOf(op, "//d/a" + std::to_string(op), kOne));
    other.tether->OnMessage(TestTether::RegisterOf(1, "//d/b", kTwo));
  }
  ASSERT_TRUE(process.stream.Await(before));
  for (uint64_t op = 1; op <= 20; ++op) EXPECT_EQ(process.tether->Next()->done().op_id(), op);
  EXPECT_EQ(process.stream.wakes(), before + 1);
  ASSERT_TRUE(other.stream.Await(before_other));
  EXPECT_TRUE(other.tether->Next()->has_done());
}

TEST_F(DirectoryTest, APeerThatAsksAndDoesNotReadIsEnded) {
  TestTether process(*directory_);
  process.Hello();
  pb::TetherRequest heartbeat;
  heartbeat.mutable_heartbeat()->set_number(1);
  for (int i = 0; i < 5000; ++i) process.tether->OnMessage(heartbeat);
  const auto ended = process.Read();
  EXPECT_EQ(ended->ended().refusal().code(), pb::OVERLOADED) << ended->ShortDebugString();
  EXPECT_FALSE(process.tether->Next().has_value());
}

TEST_F(DirectoryTest, WithoutSpaceASessionResumesAndWithdrawsButRegistersNothing) {
  std::optional<TestTether> process(std::in_place, *directory_);
  process->Hello();
  process->Register(1, "//d/a", kOne);
  TestTether again(*directory_);
  again.id = process->id;
  again.secret = process->secret;
  process.reset();
  again.tether.reset();
  ViewOptions full;
  full.reserve_bytes = 1ull << 62;  // more than any disc has
  Restart(0s, full);
  again.tether = directory_->OpenTether({"127.0.0.1:1000", ""}, again.stream);
  EXPECT_TRUE(again.Resume(again, 2).welcome().resumed());
  EXPECT_EQ(again.Register(2, "//d/b", kOne).done().refusal().code(), pb::OVERLOADED);
  EXPECT_FALSE(again.Withdraw(3, "//d/a", kOne).done().has_refusal());
}

TEST_F(DirectoryTest, StopTellsTethersToMoveAndKeepsTheirSessions) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne);
  directory_->Stop();
  EXPECT_TRUE(process.Read()->has_move());
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
}

TEST_F(DirectoryTest, AnswersOfOneBatchComeInOrderAndABadAddressRefusesItWhole) {
  RegisterStatic("//d/a", kOne);
  pb::ResolveRequest request;
  request.add_addresses("//d/none");
  request.add_addresses("//d/a");
  const auto response = ResolveAll(request);
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->answers(0).row().status(), pb::ANSWER_STATUS_NOT_FOUND);
  EXPECT_EQ(response->answers(1).row().endpoints(0).url(), kOne);
  EXPECT_EQ(response->source().node_id(), "node-1");
  request.add_addresses("//d:5672/a");
  EXPECT_EQ(ResolveAll(request).status().code(), Code::kInvalid);
}

TEST_F(DirectoryTest, MinRevisionWaitsForItAndIsBehindAfterTwoSeconds) {
  const Revision next{1, view_->Applied().number + 1};
  pb::ResolveRequest request;
  request.add_addresses("//d/a");
  ToWire(next, request.mutable_min_revision());
  auto done = std::make_shared<std::promise<Result<std::string>>>();
  auto future = done->get_future();
  directory_->Resolve(request, [done](Result<std::string> r) { done->set_value(std::move(r)); });
  EXPECT_EQ(future.wait_for(0s), std::future_status::timeout);
  RegisterStatic("//d/a", kOne);
  auto answered = Within5s(std::move(future));
  ASSERT_TRUE(answered.ok());
  pb::ResolveResponse response;
  ASSERT_TRUE(response.ParseFromString(*answered));
  EXPECT_EQ(response.answers(0).row().status(), pb::ANSWER_STATUS_FOUND);

  ToWire(Revision{1, next.number + 1000}, request.mutable_min_revision());
  done = std::make_shared<std::promise<Result<std::string>>>();
  future = done->get_future();
  directory_->Resolve(request, [done](Result<std::string> r) { done->set_value(std::move(r)); });
  Pass(1500ms);
  EXPECT_EQ(future.wait_for(0s), std::future_status::timeout);
  Pass(500ms);
  EXPECT_EQ(Within5s(std::move(future)).status().code(), Code::kBehind);
}

TEST_F(DirectoryTest, ALinearizableResolveSeesEveryAcknowledgedWrite) {
  RegisterStatic("//d/a", kOne);
  pb::ResolveRequest request;
  request.add_addresses("//d/a");
  request.set_consistency(pb::CONSISTENCY_LINEARIZABLE);
  EXPECT_EQ(ResolveAll(request)->answers(0).row().status(), pb::ANSWER_STATUS_FOUND);
}

TEST_F(DirectoryTest, AStaticRetryGetsTheFirstResult) {
  const std::string op(16, 'o'), other(16, 'p');
  const auto first = TryRegister("//d/a", kOne, op);
  RegisterStatic("//d/b", kOne);
  EXPECT_EQ(TryRegister("//d/a", kOne, op)->revision().number(), first->revision().number());
  const auto withdrawn = TryWithdraw("//d/a", kOne, false, other);
  EXPECT_EQ(withdrawn->withdrawn(), 1u);
  const auto again = TryWithdraw("//d/a", kOne, false, other);
  EXPECT_EQ(again->revision().number(), withdrawn->revision().number());
  EXPECT_EQ(again->withdrawn(), 1u);
  EXPECT_EQ(TryWithdraw("//d/a", kOne).status().code(), Code::kNotFound);
  EXPECT_EQ(TryRegister("//d/a", kOne, "short").status().code(), Code::kInvalid);
}

TEST_F(DirectoryTest, AStaticRetryThatComesAfterOthersChangedTheRecordDoesNotDoItTwice) {
  const std::string registers(16, 'r'), withdraws(16, 'w');
  RegisterStatic("//d/a", kOne, registers);
  TryWithdraw("//d/a", kOne, false, withdraws).value();
  EXPECT_TRUE(TryRegister("//d/a", kOne, registers).ok());
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound) << "the withdrawal came later";
  RegisterStatic("//d/a", kOne);
  EXPECT_TRUE(TryWithdraw("//d/a", kOne, false, withdraws).ok());
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound) << "the registration came later";
}

TEST_F(DirectoryTest, AnOperatorWithdrawsSessionsOnlyWhenAsked) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne);
  EXPECT_EQ(TryWithdraw("//d/a", "").status().code(), Code::kNotFound);
  const std::string op(16, 'o');
  const auto withdrawn = TryWithdraw("//d/a", "", true, op);
  EXPECT_EQ(withdrawn->withdrawn(), 1u);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound);
  const auto again = TryWithdraw("//d/a", "", true, op);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->revision().number(), withdrawn->revision().number());
}

TEST_F(DirectoryTest, ListPagesAreOfOneRevisionAndItsTokenLastsSixtySeconds) {
  for (int i = 0; i < 5; ++i) RegisterStatic("//d/a/" + std::to_string(i), kOne);
  RegisterStatic("//other/a", kOne);
  pb::ListRequest request;
  request.set_prefix("//d");
  request.set_page_size(2);
  std::vector<std::string> seen;
  uint64_t revision = 0;
  for (int page = 0; page < 3; ++page) {
    const auto response = directory_->List(request);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    for (const auto& item : response->items()) seen.push_back(item.address());
    if (page == 0) revision = response->revision().number();
    EXPECT_EQ(response->revision().number(), revision);
    request.set_page_token(response->next_page_token());
    if (page == 0) RegisterStatic("//d/a/3x", kOne);
  }
  EXPECT_TRUE(request.page_token().empty());
  EXPECT_EQ(seen,
            (std::vector<std::string>{"//d/a/0", "//d/a/1", "//d/a/2", "//d/a/3", "//d/a/4"}));
  const auto first = directory_->List(request);
  request.set_page_token(first->next_page_token());
  Pass(61s);
  EXPECT_EQ(directory_->List(request).status().code(), Code::kAborted);
  request.set_page_token("zz");
  EXPECT_EQ(directory_->List(request).status().code(), Code::kAborted);
  request.set_page_size(1001);
  EXPECT_EQ(directory_->List(request).status().code(), Code::kInvalid);
}

TEST_F(DirectoryTest, AtMostThirtyTwoListsAreHeld) {
  RegisterStatic("//d/a", kOne);
  RegisterStatic("//d/b", kOne);
  pb::ListRequest request;
  request.set_page_size(1);
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(directory_->List(request).ok());
  EXPECT_EQ(directory_->List(request).status().code(), Code::kOverloaded);
  Pass(61s);
  EXPECT_TRUE(directory_->List(request).ok());
}

TEST_F(DirectoryTest, ExplainTellsWhyEachCandidateIsKeptOrDropped) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne, /*subtree=*/true);
  RegisterStatic("//d/a", kTwo);
  RegisterStatic("//d", kOne, "", true);
  RegisterStatic("//d/a/b", kOne);
  WithdrawStatic("//d/a/b", kOne);
  pb::ExplainRequest request;
  request.set_address("//d/a/b");
  const auto response = directory_->Explain(request);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_EQ(response->answer().matched(), "//d/a");
  std::string all;
  int kept = 0;
  for (const auto& candidate : response->candidates()) {
    all += candidate.at() + " " + candidate.endpoint().url() + " " + candidate.why() + " (" +
           candidate.session() + ")\n";
    kept += candidate.kept();
  }
  EXPECT_EQ(kept, 1) << all;
  EXPECT_NE(all.find("tombstone, WITHDRAWN"), std::string::npos) << all;
  EXPECT_NE(all.find("an exact registration answers for //d/a only"), std::string::npos) << all;
  EXPECT_NE(all.find("//d/a is the nearer match"), std::string::npos) << all;
  EXPECT_NE(all.find("pid 42"), std::string::npos) << all;
  EXPECT_EQ(all.find(process.id), std::string::npos) << "session ids never leave";
}

}  // namespace
}  // namespace datawire::directory
