#include "directory_fixture.h"

// Subscribe of the directory on the real engine and view.

namespace datawire::directory {
namespace {

constexpr char kOne[] = "amqp://127.0.0.1:5001";
constexpr char kTwo[] = "amqp://127.0.0.1:5002";

class SubscribeTest : public DirectoryTest {};

TEST_F(SubscribeTest, BeginsWithAMarkThatNamesItsSource) {
  TestSubscriber subscriber(*directory_);
  EXPECT_TRUE(subscriber.stream.Await(0));
  const auto first = subscriber.Drain();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].mark().source().cluster_id(), "test");
  EXPECT_EQ(FromWire(first[0].mark().revision()), view_->Applied());
}

TEST_F(SubscribeTest, SendsTheAnswerAndThenWhatChanges) {
  TestSubscriber subscriber(*directory_);
  subscriber.Drain();
  subscriber.Add("//d/a");
  auto answers = subscriber.Answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].row().status(), pb::ANSWER_STATUS_NOT_FOUND);
  const int seen = subscriber.stream.wakes();
  RegisterStatic("//d/a", kOne);
  EXPECT_TRUE(subscriber.stream.Await(seen));
  answers = subscriber.Answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].row().status(), pb::ANSWER_STATUS_FOUND);
  RegisterStatic("//d/other", kOne);
  EXPECT_TRUE(subscriber.Answers().empty());
}

TEST_F(SubscribeTest, SkipsIntermediateAnswers) {
  TestSubscriber subscriber(*directory_);
  subscriber.Add("//d/a");
  subscriber.Drain();
  for (int i = 0; i < 5; ++i)
    RegisterStatic("//d/a", "amqp://127.0.0.1:" + std::to_string(7000 + i));
  const auto answers = subscriber.Answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].row().endpoints_size(), 5);
}

TEST_F(SubscribeTest, AnEqualHashIsConfirmedAndAnotherIsAnswered) {
  RegisterStatic("//d/a", kOne);
  const uint64_t hash = Resolve("//d/a").hash;
  TestSubscriber subscriber(*directory_);
  subscriber.Drain();
  subscriber.Add("//d/a", hash);
  auto responses = subscriber.Drain();
  ASSERT_EQ(responses.size(), 1u);
  EXPECT_EQ(responses[0].answers_size(), 0);
  ASSERT_EQ(responses[0].confirmed_size(), 1);
  EXPECT_EQ(responses[0].confirmed(0), "//d/a");
  EXPECT_EQ(FromWire(responses[0].confirmed_at()), view_->Applied());
  subscriber.Add("//d/a", hash + 1);
  responses = subscriber.Drain();
  ASSERT_EQ(responses.size(), 1u);
  EXPECT_EQ(responses[0].answers_size(), 1);
}

TEST_F(SubscribeTest, AMarkComesEachSecondAndOnlyAfterAllThatIsDue) {
  TestSubscriber subscriber(*directory_);
  subscriber.Drain();
  for (int i = 0; i < 1000; ++i) subscriber.Add("//d/a" + std::to_string(i));
  const int seen = subscriber.stream.wakes();
  now_ += 500ms;
  directory_->Tick(now_);
  now_ += 500ms;
  directory_->Tick(now_);
  EXPECT_GE(subscriber.stream.wakes(), seen);
  const auto responses = subscriber.Drain();
  int answers = 0, marks = 0;
  for (const auto& response : responses) {
    answers += response.answers_size();
    marks += response.has_mark();
    if (response.has_mark()) {
      EXPECT_EQ(answers, 1000);
    }
  }
  EXPECT_EQ(marks, 1);
  EXPECT_GT(responses.size(), 1u);
  const int before = subscriber.stream.wakes();
  Pass(1s);
  EXPECT_GT(subscriber.stream.wakes(), before);
  const auto mark = subscriber.Drain();
  ASSERT_EQ(mark.size(), 1u);
  EXPECT_TRUE(mark[0].has_mark());
  EXPECT_FALSE(mark[0].mark().has_source());
}

TEST_F(SubscribeTest, NoMessageIsOver64KiBAndLargeAnswersAllCome) {
  for (int a = 0; a < 5; ++a) {
    pb::RegisterRequest request;
    for (int i = 0; i < 20; ++i) {
      auto* registration = request.add_registrations();
      registration->set_address("//d/" + std::to_string(a));
      auto* endpoint = registration->mutable_endpoint();
      endpoint->set_url("amqp://127.0.0.1:" + std::to_string(7000 + i));
      for (int l = 0; l < 14; ++l)
        (*endpoint->mutable_labels())["l" + std::to_string(l)] = std::string(100, 'x');
    }
    auto done = std::make_shared<std::promise<Result<pb::RegisterResponse>>>();
    directory_->Register(request, {}, [done](auto r) { done->set_value(std::move(r)); });
    ASSERT_TRUE(Within5s(done->get_future()).ok());
  }
  TestSubscriber subscriber(*directory_);
  for (int a = 0; a < 5; ++a) subscriber.Add("//d/" + std::to_string(a));
  const auto responses = subscriber.Drain();  // which checks the size of each
  int answers = 0;
  for (const auto& response : responses) answers += response.answers_size();
  EXPECT_EQ(answers, 5);
  EXPECT_GE(responses.size(), 3u);
}

TEST_F(SubscribeTest, AFirstMarkWithAnswersStillDueConfirmsNothing) {
  RegisterStatic("//d/a", kOne);
  TestSubscriber subscriber(*directory_);
  for (int i = 0; i < 1000; ++i) subscriber.Add("//d/a" + std::to_string(i), 12345);
  const auto bytes = subscriber.subscriber->Next();
  ASSERT_TRUE(bytes.has_value());
  pb::SubscribeResponse first;
  ASSERT_TRUE(first.ParseFromString(*bytes));
  EXPECT_TRUE(first.mark().has_source());
  EXPECT_LT(first.answers_size(), 1000);
  EXPECT_EQ(first.mark().revision().number(), 0u);
}

TEST_F(SubscribeTest, IsWokenByWhatItsSubtreeOrAnExactRowDoes) {
  TestSubscriber subscriber(*directory_);
  subscriber.Add("//d/a/b");
  subscriber.Drain();
  const auto next = [&] {
    const auto answers = subscriber.Answers();
    return answers.size() == 1
               ? answers[0].matched() + " " + std::to_string(answers[0].row().endpoints_size())
               : std::to_string(answers.size()) + " answers";
  };
  RegisterStatic("//d/a", kOne, "", true);
  EXPECT_EQ(next(), "//d/a 1") << "a subtree above it appears";
  RegisterStatic("//d/a", kTwo, "", true);
  EXPECT_EQ(next(), "//d/a 2") << "it changes";
  RegisterStatic("//d/a", "amqp://127.0.0.1:5003");
  EXPECT_EQ(next(), "0 answers") << "an exact one above it does not matter";
  RegisterStatic("//d/a/b", kOne);
  EXPECT_EQ(next(), "//d/a/b 1") << "an exact row appears";
  WithdrawStatic("//d/a/b", kOne);
  EXPECT_EQ(next(), "//d/a 2") << "and goes";
  RegisterStatic("//d/ab", kOne, "", true);
  EXPECT_EQ(next(), "0 answers") << "segments, not letters";
}

TEST_F(SubscribeTest, IsWokenByTheEndOfASessionAbove) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne, /*subtree=*/true);
  TestSubscriber subscriber(*directory_);
  subscriber.Add("//d/a/b");
  ASSERT_EQ(subscriber.Answers().at(0).row().status(), pb::ANSWER_STATUS_FOUND);
  process.Bye();
  const auto answers = subscriber.Answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].row().status(), pb::ANSWER_STATUS_NOT_FOUND);
}

TEST_F(SubscribeTest, IsWokenByWhatTheSessionAboveGoesThrough) {
  TestTether process(*directory_), other(*directory_);
  process.Hello();
  other.Hello();
  process.Register(1, "//d/a", kOne, /*subtree=*/true);
  other.Register(1, "//d/a", kTwo, /*subtree=*/true);
  TestSubscriber subscriber(*directory_);
  subscriber.Add("//d/a/b");
  const auto states = [&] {
    std::string out;
    for (const auto& answer : subscriber.Answers())
      for (const auto& endpoint : answer.row().endpoints())
        out += pb::EndpointState_Name(endpoint.state()).substr(15) + " ";
    return out;
  };
  EXPECT_EQ(states(), "UP UP ");
  pb::TetherRequest drain;
  drain.mutable_drain()->set_op_id(2);
  process.Ask(drain);
  EXPECT_EQ(states(), "UP DRAINING ");
  drain.mutable_drain()->set_op_id(3);
  drain.mutable_drain()->set_undo(true);
  process.Ask(drain);
  EXPECT_EQ(states(), "UP UP ");
  for (int i = 0; i < 18; ++i) {
    Pass(1s);
    other.Heartbeat();
  }
  EXPECT_EQ(states(), "UP ") << "one expires, the other is the last";
  Pass(20s);
  EXPECT_EQ(states(), "SUSPECT ") << "the last one expires and is kept";
  Pass(5min + 1s);
  EXPECT_EQ(states(), "");
  EXPECT_EQ(StatusOf("//d/a/b"), AnswerStatus::kNotFound);
}

using Said = std::vector<std::string>;

class SubtreeTest : public SubscribeTest {
 protected:
  int port_ = 8000;
};

TEST_F(SubtreeTest, AnswersWhatIsRegisteredAtAndBelowThePrefixAndThenWhatComes) {
  RegisterStatic("//d/a", kOne);
  RegisterStatic("//d/a/b", kOne);
  RegisterStatic("//d/ab", kOne);
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d/a");
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a FOUND", "//d/a/b FOUND"}));
  const int seen = subscriber.stream.wakes();
  RegisterStatic("//d/a/c/d", kOne);
  EXPECT_TRUE(subscriber.stream.Await(seen));
  RegisterStatic("//d/b", kOne);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/c/d FOUND"}));
  RegisterStatic("//d/a/b", kTwo);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/b FOUND"}));
  EXPECT_EQ(subscriber.Said(), (Said{}));
}

TEST_F(SubtreeTest, WhatIsRegisteredNoMoreGetsALastAnswerAndIsForgotten) {
  RegisterStatic("//d", kOne, "", /*subtree=*/true);
  RegisterStatic("//d/a/b", kOne);
  RegisterStatic("//d/a/c", kOne);
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d/a");
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/b FOUND", "//d/a/c FOUND"}));
  WithdrawStatic("//d/a/b", kOne);
  const auto answers = subscriber.Answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].address(), "//d/a/b");
  EXPECT_EQ(answers[0].matched(), "//d");
  WithdrawStatic("//d", kOne);
  EXPECT_EQ(subscriber.Said(), (Said{})) << "it is not below the prefix, and //d/a/b is forgotten";
  WithdrawStatic("//d/a/c", kOne);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/c NOT_FOUND"}));
  RegisterStatic("//d/a/c", kOne);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/c FOUND"}));
}

TEST_F(SubtreeTest, WhatCameAndWentBetweenTwoMessagesIsNotTold) {
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d");
  subscriber.Drain();
  RegisterStatic("//d/a", kOne);
  WithdrawStatic("//d/a", kOne);
  EXPECT_EQ(subscriber.Said(), (Said{}));
}

TEST_F(SubtreeTest, AnEndpointOfASessionThatEndsIsShownInEachOfItsStates) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a/b", kOne);
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d/a");
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/b FOUND"}));
  Pass(20s);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/b NO_ENDPOINT"}));
  Pass(5min + 1s);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/b NOT_FOUND"}));
}

TEST_F(SubtreeTest, AnEqualHashIsConfirmedAnotherAnsweredAndWhatWentWhileAwayIsTold) {
  for (const char* address : {"//d/a", "//d/b", "//d/c"}) RegisterStatic(address, kOne);
  const uint64_t a = Resolve("//d/a").hash, b = Resolve("//d/b").hash, c = Resolve("//d/c").hash;
  WithdrawStatic("//d/c", kOne);
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d", {{"//d/a", a}, {"//d/b", b + 1}, {"//d/c", c}});
  EXPECT_EQ(subscriber.Said(), (Said{"//d/b FOUND", "//d/c NOT_FOUND", "confirmed //d/a"}));
  subscriber.AddSubtree("//d", {{"//d/b", b}});  // more of what it holds
  EXPECT_EQ(subscriber.Said(), (Said{"confirmed //d/b"}));
  subscriber.AddSubtree("//d", {{"//e/b", b}});
  EXPECT_EQ(subscriber.Said(), (Said{"refused //e/b"}));
}

TEST_F(SubtreeTest, AMarkConfirmsNothingBeforeTheWholeSubtreeIsSent) {
  for (int i = 0; i < 10; ++i) {
    pb::RegisterRequest request;
    for (int j = 0; j < 50; ++j) {
      auto* registration = request.add_registrations();
      registration->set_address("//d/" + std::to_string(i * 50 + j));
      registration->mutable_endpoint()->set_url(kOne);
    }
    auto done = std::make_shared<std::promise<Result<pb::RegisterResponse>>>();
    directory_->Register(request, {}, [done](auto r) { done->set_value(std::move(r)); });
    ASSERT_TRUE(Within5s(done->get_future()).ok());
  }
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d");
  int answers = 0;
  for (const auto& response : subscriber.Drain()) {
    answers += response.answers_size();
    if (response.has_mark() && answers < 500) {
      EXPECT_EQ(response.mark().revision().number(), 0u);
    }
  }
  EXPECT_EQ(answers, 500);
  Pass(1s);
  const auto mark = subscriber.Drain();
  ASSERT_EQ(mark.size(), 1u);
  EXPECT_EQ(FromWire(mark[0].mark().revision()), view_->Applied());
}

TEST_F(SubtreeTest, DroppingLeavesWhatWasAddedByItselfOrByAnother) {
  for (const char* address : {"//d/a/b", "//d/a/c", "//d/a/c/e"}) RegisterStatic(address, kOne);
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d/a");
  subscriber.AddSubtree("//d/a/c");
  subscriber.Add("//d/a/b");
  EXPECT_EQ(subscriber.Said().size(), 3u) << "each once";
  EXPECT_EQ(directory_->GetStatus().subscriptions(), 3u);
  const auto change = [&] {
    for (const char* address : {"//d/a/b", "//d/a/c/e", "//d/a/new"}) {
      RegisterStatic(address, kTwo);
      WithdrawStatic(address, kTwo);
      RegisterStatic(address, "amqp://127.0.0.1:" + std::to_string(++port_));
    }
    return subscriber.Said();
  };
  pb::SubscribeRequest drop;
  drop.add_drop_subtree("//d/a");
  ASSERT_TRUE(subscriber.subscriber->OnRequest(drop).ok());
  EXPECT_EQ(change(), (Said{"//d/a/b FOUND", "//d/a/c/e FOUND"}));
  drop.Clear();
  drop.add_drop_subtree("//d/a/c");
  drop.add_drop("//d/a/b");
  ASSERT_TRUE(subscriber.subscriber->OnRequest(drop).ok());
  EXPECT_EQ(change(), (Said{}));
  EXPECT_EQ(directory_->GetStatus().subscriptions(), 0u);
  subscriber.AddSubtree("//d/a");
  subscriber.Add("//d/a/none");
  EXPECT_EQ(subscriber.Said().size(), 5u);
  drop.Clear();
  drop.add_drop("//d/a/b");  // the subtree keeps it
  drop.add_drop("//d/a/none");
  ASSERT_TRUE(subscriber.subscriber->OnRequest(drop).ok());
  EXPECT_EQ(change(), (Said{"//d/a/b FOUND", "//d/a/c/e FOUND", "//d/a/new FOUND"}));
}

TEST_F(SubtreeTest, WhatADropLeavesGetsItsLastAnswerToo) {
  for (const char* address : {"//d/a/b", "//d/a/c/e"}) RegisterStatic(address, kOne);
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d/a");
  subscriber.AddSubtree("//d/a/c");
  subscriber.Add("//d/a/c/e");
  subscriber.Drain();
  pb::SubscribeRequest drop;
  drop.add_drop("//d/a/c/e");
  drop.add_drop_subtree("//d/a");
  ASSERT_TRUE(subscriber.subscriber->OnRequest(drop).ok());
  WithdrawStatic("//d/a/b", kOne);
  WithdrawStatic("//d/a/c/e", kOne);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a/c/e NOT_FOUND"}));
}

TEST_F(SubtreeTest, OneThatOutgrowsTheStreamIsEndedAsAWholeAndTold) {
  for (const char* address : {"//d/a", "//d/b", "//d/c"}) RegisterStatic(address, kOne);
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d");
  EXPECT_EQ(subscriber.Said(), (Said{"//d/a FOUND", "//d/b FOUND", "//d/c FOUND"}));
  RegisterStatic("//d/e", kOne);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/e FOUND"}));
  WithdrawStatic("//d/e", kOne);
  EXPECT_EQ(subscriber.Said(), (Said{"//d/e NOT_FOUND"})) << "and takes no room any more";
  pb::SubscribeRequest request;
  for (size_t i = 0; i < limits::kSubscriptions - 4; ++i)
    request.add_add()->set_address("//e/" + std::to_string(i));
  ASSERT_TRUE(subscriber.subscriber->OnRequest(request).ok());
  const auto refused = [&] {
    Said out;
    pb::SubscribeResponse response;  // refusals go before what is due
    EXPECT_TRUE(response.ParseFromString(subscriber.subscriber->Next().value_or("")));
    for (const auto& one : response.refused())
      out.push_back((one.subtree() ? "ended " : "refused ") + one.address());
    return out;
  };
  EXPECT_EQ(refused(), (Said{})) << "it just fits";
  RegisterStatic("//d/d", kOne);
  EXPECT_EQ(refused(), (Said{"ended //d"}));
  // Its addresses went with it, and itself.
  for (int i = 0; i < 5; ++i) subscriber.Add("//e/more" + std::to_string(i));
  EXPECT_EQ(refused(), (Said{"refused //e/more4"}));
  EXPECT_EQ(directory_->GetStatus().subscriptions(), limits::kSubscriptions);
}

TEST_F(SubtreeTest, NoChangeIsLostWhileItIsListed) {
  TestSubscriber subscriber(*directory_);
  std::set<std::string> told;
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop) {
      const int seen = subscriber.stream.wakes();
      for (const auto& answer : subscriber.Answers()) told.insert(answer.address());
      if (!stop) subscriber.stream.Await(seen);
    }
  });
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i)
    writers.emplace_back([this, i] {
      for (int j = 0; j < 40; ++j) RegisterStatic("//d/" + std::to_string(i * 40 + j), kOne);
    });
  for (int i = 0; i < 20; ++i) {  // added again at every moment
    pb::SubscribeRequest request;
    if (i > 0) request.add_drop_subtree("//d");
    request.add_add_subtree()->set_prefix("//d");
    ASSERT_TRUE(subscriber.subscriber->OnRequest(request).ok());
    Settle();
  }
  for (auto& writer : writers) writer.join();
  stop = true;
  subscriber.stream.Wake();
  reader.join();
  for (const auto& answer : subscriber.Answers()) told.insert(answer.address());
  EXPECT_EQ(told.size(), 160u);
}

TEST_F(SubscribeTest, ADroppedAddressIsSilentAndABadOneRefused) {
  TestSubscriber subscriber(*directory_);
  subscriber.Add("//d/a");
  subscriber.Add("//d:5672/b");
  const auto responses = subscriber.Drain();
  int refused = 0;
  for (const auto& response : responses) {
    refused += response.refused_size();
    for (const auto& one : response.refused()) EXPECT_EQ(one.refusal().code(), pb::INVALID);
  }
  EXPECT_EQ(refused, 1);
  pb::SubscribeRequest drop;
  drop.add_drop("//d/a");
  ASSERT_TRUE(subscriber.subscriber->OnRequest(drop).ok());
  RegisterStatic("//d/a", kOne);
  EXPECT_TRUE(subscriber.Answers().empty());
  EXPECT_EQ(directory_->GetStatus().subscriptions(), 0u);
}

TEST_F(SubscribeTest, AStreamHoldsAtMostAHundredThousandSubscriptions) {
  TestSubscriber subscriber(*directory_);
  pb::SubscribeRequest request;
  for (size_t i = 0; i <= limits::kSubscriptions; ++i)
    request.add_add()->set_address("//d/a" + std::to_string(i));
  ASSERT_TRUE(subscriber.subscriber->OnRequest(request).ok());
  const auto first = subscriber.Drain();
  int refused = 0;
  for (const auto& response : first)
    for (const auto& one : response.refused()) {
      ++refused;
      EXPECT_EQ(one.address(), "//d/a" + std::to_string(limits::kSubscriptions));
      EXPECT_EQ(one.refusal().code(), pb::OVERLOADED);
    }
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(directory_->GetStatus().subscriptions(), limits::kSubscriptions);
}

TEST_F(SubscribeTest, RefusalsThatNobodyReadsEndTheStream) {
  TestSubscriber subscriber(*directory_);
  pb::SubscribeRequest request;
  for (int i = 0; i < 1001; ++i) request.add_add()->set_address("bad");
  EXPECT_EQ(subscriber.subscriber->OnRequest(request).code(), Code::kInvalid);
}

TEST_F(SubscribeTest, AClosedStreamLeavesNothingBehind) {
  {
    TestSubscriber subscriber(*directory_);
    subscriber.Add("//d/a");
    EXPECT_EQ(directory_->GetStatus().subscriptions(), 1u);
  }
  EXPECT_EQ(directory_->GetStatus().subscriptions(), 0u);
  EXPECT_EQ(directory_->GetStatus().subscribers(), 0u);
  RegisterStatic("//d/a", kOne);
}

TEST_F(SubscribeTest, ManyThreadsOfChangesNeverLoseTheNewestAnswer) {
  TestSubscriber subscriber(*directory_);
  for (int i = 0; i < 8; ++i) subscriber.Add("//d/a" + std::to_string(i));
  std::atomic<bool> stop{false};
  std::map<std::string, int> latest;
  const auto take = [&] {
    for (const auto& answer : subscriber.Answers())
      latest[answer.address()] = answer.row().endpoints_size();
  };
  std::thread reader([&] {
    while (!stop) {
      const int seen = subscriber.stream.wakes();
      take();
      if (!stop) subscriber.stream.Await(seen);
    }
  });
  std::vector<std::thread> writers;
  for (int i = 0; i < 8; ++i)
    writers.emplace_back([this, i] {
      for (int j = 0; j < 10; ++j)
        RegisterStatic("//d/a" + std::to_string(i), "amqp://127.0.0.1:" + std::to_string(7000 + j));
    });
  for (auto& writer : writers) writer.join();
  stop = true;
  subscriber.stream.Wake();
  reader.join();
  take();
  for (int i = 0; i < 8; ++i) EXPECT_EQ(latest["//d/a" + std::to_string(i)], 10);
}

}  // namespace
}  // namespace datawire::directory
