#include "directory_fixture.h"

// Drain of addresses and sessions, and who has acknowledged it, on the real engine and view.

namespace datawire::directory {
namespace {

constexpr char kOne[] = "amqp://127.0.0.1:5001";
constexpr char kTwo[] = "amqp://127.0.0.1:5002";
constexpr char kThree[] = "amqp://127.0.0.1:5003";

class DrainTest : public DirectoryTest {
 protected:
  using Reply = std::shared_ptr<std::promise<Result<pb::DrainResponse>>>;
  Reply Begin(const pb::DrainRequest& request) {
    auto reply = std::make_shared<std::promise<Result<pb::DrainResponse>>>();
    directory_->Drain(request, {"127.0.0.1:77", ""},
                      [reply](auto r) { reply->set_value(std::move(r)); });
    return reply;
  }
  Result<pb::DrainResponse> Drain(const pb::DrainRequest& request) {
    return Within5s(Begin(request)->get_future());
  }
  static pb::DrainRequest Of(const std::string& address, bool undo = false,
                             const std::string& op_id = "") {
    pb::DrainRequest request;
    request.set_address(address);
    request.set_undo(undo);
    request.set_op_id(op_id);
    return request;
  }
  /// `5001 draining, 5002 up`.
  std::string States(const std::string& address) {
    std::map<int, std::string_view> states;
    for (const Endpoint& e : Resolve(address).endpoints)
      states[e.url.port()] = EndpointStateName(e.state);
    std::string out;
    for (const auto& [port, state] : states)
      out += (out.empty() ? "" : ", ") + std::to_string(port) + " " + std::string(state);
    return out;
  }
};

// A subscriber that has taken in all that there is.
void Acknowledge(TestSubscriber& subscriber) {
  pb::SubscribeRequest request;
  for (const auto& response : subscriber.Drain())
    if (response.has_mark()) *request.mutable_acknowledged() = response.mark().revision();
  EXPECT_TRUE(subscriber.subscriber->OnRequest(request).ok());
}

TEST_F(DrainTest, WhatIsRegisteredNowIsDrainedAndLaterOnesAreUp) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne);
  RegisterStatic("//d/a", kTwo);
  RegisterStatic("//d/b", kTwo);
  const std::string op(16, '1');
  const auto drained = Drain(Of("//d/a", false, op));
  ASSERT_TRUE(drained.ok()) << drained.status().ToString();
  EXPECT_EQ(drained->drained(), 2u);
  EXPECT_EQ(States("//d/a"), "5001 draining, 5002 draining");
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNoEndpoint);
  EXPECT_EQ(States("//d/b"), "5002 up");
  RegisterStatic("//d/a", kThree);
  EXPECT_EQ(Drain(Of("//d/a", false, op))->drained(), 0u) << "a retry drains nothing more";
  EXPECT_EQ(States("//d/a"), "5001 draining, 5002 draining, 5003 up");
  Restart();
  EXPECT_EQ(States("//d/a"), "5001 draining, 5002 draining, 5003 up");
  EXPECT_EQ(Drain(Of("//d/a", true))->drained(), 2u);
  EXPECT_EQ(States("//d/a"), "5001 up, 5002 up, 5003 up");
}

TEST_F(DrainTest, OneThatIsRegisteredAnewIsUp) {
  RegisterStatic("//d/a", kOne);
  ASSERT_TRUE(Drain(Of("//d/a")).ok());
  RegisterStatic("//d/a", kOne);
  EXPECT_EQ(States("//d/a"), "5001 up");
}

TEST_F(DrainTest, ASessionIsDrainedWithAllItHasAndWillHave) {
  TestTether process(*directory_), other(*directory_);
  process.Hello();
  other.Hello();
  process.Register(1, "//d/a", kOne);
  process.Register(2, "//d/b", kOne);
  other.Register(1, "//d/a", kTwo);
  pb::DrainRequest request;
  request.set_session_id(process.id);
  const auto drained = Drain(request);
  ASSERT_TRUE(drained.ok()) << drained.status().ToString();
  EXPECT_EQ(drained->drained(), 2u);
  process.Register(3, "//d/c", kOne);
  EXPECT_EQ(States("//d/a"), "5001 draining, 5002 up");
  EXPECT_EQ(States("//d/b"), "5001 draining");
  EXPECT_EQ(States("//d/c"), "5001 draining");
  EXPECT_TRUE(process.Heartbeat().has_heartbeat());
  request.set_undo(true);
  ASSERT_TRUE(Drain(request).ok());
  EXPECT_EQ(States("//d/a"), "5001 up, 5002 up");
  EXPECT_EQ(States("//d/c"), "5001 up");
}

TEST_F(DrainTest, AcknowledgedWaitsForEverySubscriberOfTheAddressAndNoOther) {
  RegisterStatic("//d/a", kOne, "", true);
  TestSubscriber at(*directory_, {"peer:1", ""}), below(*directory_, {"peer:2", ""}),
      subtree(*directory_, {"peer:3", ""}), aside(*directory_, {"peer:4", ""});
  at.Add("//d/a");
  below.Add("//d/a/b");
  subtree.AddSubtree("//d");
  aside.Add("//d/ab");
  for (TestSubscriber* one : {&at, &below, &subtree, &aside}) Acknowledge(*one);
  const std::vector<TestSubscriber*> concerned{&at, &below, &subtree};
  bool undo = false;
  for (TestSubscriber* last : concerned) {
    auto request = Of("//d/a", undo);
    undo = !undo;
    request.set_acknowledged_within_ms(60'000);
    auto reply = Begin(request)->get_future();
    Settle();
    Pass(2s);
    for (TestSubscriber* one : concerned)
      if (one != last) Acknowledge(*one);
    Pass(1s);
    EXPECT_NE(reply.wait_for(0s), std::future_status::ready);
    Acknowledge(*last);
    Pass(1s);
    ASSERT_EQ(reply.wait_for(0s), std::future_status::ready);
    const auto response = reply.get();
    ASSERT_TRUE(response.ok());
    EXPECT_EQ(response->waiting_total(), 0u);
  }
}

TEST_F(DrainTest, AtTheDeadlineItSaysWhoHasNotAcknowledged) {
  RegisterStatic("//d/a", kOne);
  TestSubscriber silent(*directory_, {"peer:1", ""}), quick(*directory_, {"peer:2", ""});
  auto gone = std::make_unique<TestSubscriber>(*directory_, Peer{"peer:3", ""});
  for (TestSubscriber* one : {&silent, &quick, gone.get()}) {
    one->Add("//d/a");
    one->Drain();
  }
  auto request = Of("//d/a");
  request.set_acknowledged_within_ms(5000);
  auto reply = Begin(request)->get_future();
  Settle();
  gone.reset();  // who is gone is not waited for
  Pass(2s);
  Acknowledge(quick);
  EXPECT_NE(reply.wait_for(0s), std::future_status::ready);
  Pass(4s);
  const auto response = reply.get();
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->waiting_total(), 1u);
  ASSERT_EQ(response->waiting_size(), 1);
  EXPECT_EQ(response->waiting(0), "peer:1");
  EXPECT_EQ(States("//d/a"), "5001 draining") << "it drains all the same";
}

TEST_F(DrainTest, WhatIsNotThereOrNoTargetIsRefused) {
  EXPECT_EQ(Drain(Of("//d/a")).status().code(), Code::kNotFound);
  EXPECT_EQ(Drain(Of("d")).status().code(), Code::kInvalid);
  EXPECT_EQ(Drain(Of("")).status().code(), Code::kInvalid);
  pb::DrainRequest request = Of("//d/a");
  request.set_session_id(std::string(16, 'x'));
  EXPECT_EQ(Drain(request).status().code(), Code::kInvalid);
  request.clear_address();
  EXPECT_EQ(Drain(request).status().code(), Code::kNotFound);
  request.set_session_id("x");
  EXPECT_EQ(Drain(request).status().code(), Code::kInvalid);
  request = Of("//d/a");
  request.set_acknowledged_within_ms(600'001);
  EXPECT_EQ(Drain(request).status().code(), Code::kInvalid);
}

TEST_F(DrainTest, OneThatWaitsIsRefusedWhenTheNodeStops) {
  RegisterStatic("//d/a", kOne);
  TestSubscriber silent(*directory_, {"peer:1", ""});
  silent.Add("//d/a");
  auto request = Of("//d/a");
  request.set_acknowledged_within_ms(60'000);
  auto reply = Begin(request)->get_future();
  Settle();
  directory_->Stop();
  ASSERT_EQ(reply.wait_for(5s), std::future_status::ready);
  EXPECT_EQ(reply.get().status().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace datawire::directory
