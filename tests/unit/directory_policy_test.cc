#include "directory_fixture.h"

// SetPolicy and GetPolicy of the directory on the real engine and view.

namespace datawire::directory {
namespace {

constexpr char kOne[] = "amqp://127.0.0.1:5001";
constexpr char kTwo[] = "amqp://127.0.0.1:5002";

class PolicyTest : public DirectoryTest {
 protected:
  Result<pb::SetPolicyResponse> Try(const pb::SetPolicyRequest& request) {
    auto done = std::make_shared<std::promise<Result<pb::SetPolicyResponse>>>();
    directory_->SetPolicy(request, {"127.0.0.1:9", ""},
                          [done](auto r) { done->set_value(std::move(r)); });
    return Within5s(done->get_future());
  }
  Status Set(const std::string& address, pb::Policy policy, const std::string& op_id = "") {
    pb::SetPolicyRequest request;
    request.set_address(address);
    request.set_policy(policy);
    request.set_op_id(op_id);
    return Try(request).status();
  }
  Status Unset(const std::string& address, const std::string& op_id = "") {
    pb::SetPolicyRequest request;
    request.set_address(address);
    request.set_unset(true);
    request.set_op_id(op_id);
    return Try(request).status();
  }
  pb::GetPolicyResponse Get(const std::string& address) {
    pb::GetPolicyRequest request;
    request.set_address(address);
    const auto got = directory_->GetPolicy(request);
    EXPECT_TRUE(got.ok()) << got.status().ToString();
    return got.ok() ? *got : pb::GetPolicyResponse();
  }
  /// `FOUND //d/a ordered`.
  std::string Shown(const std::string& address) {
    const Answer answer = Resolve(address);
    return std::string(AnswerStatusName(answer.status)) +
           (answer.matched ? " " + answer.matched->text() : "") + " " +
           std::string(PolicyName(answer.policy));
  }
};

TEST_F(PolicyTest, IsCarriedInAnswersAndSurvivesARestart) {
  RegisterStatic("//d/a", kOne);
  EXPECT_EQ(Shown("//d/a"), "FOUND //d/a balanced");
  ASSERT_TRUE(Set("//d/a", pb::POLICY_ORDERED).ok());
  EXPECT_EQ(Shown("//d/a"), "FOUND //d/a ordered");
  RegisterStatic("//d/a", kTwo);
  EXPECT_EQ(Shown("//d/a"), "FOUND //d/a ordered");
  Restart();
  EXPECT_EQ(Shown("//d/a"), "FOUND //d/a ordered");
  EXPECT_EQ(Get("//d/a").own(), pb::POLICY_ORDERED);
  EXPECT_EQ(Get("//d/a").by(), "127.0.0.1:9");
  ASSERT_TRUE(Unset("//d/a").ok());
  EXPECT_EQ(Shown("//d/a"), "FOUND //d/a balanced");
  EXPECT_FALSE(Get("//d/a").has_own());
}

TEST_F(PolicyTest, AloneMakesNoEndpointInsteadOfNotFound) {
  ASSERT_TRUE(Set("//d/a", pb::POLICY_CONSISTENT).ok());
  EXPECT_EQ(Shown("//d/a"), "NO_ENDPOINT //d/a consistent");
  EXPECT_EQ(Shown("//d/a/below"), "NOT_FOUND balanced");
  EXPECT_EQ(Shown("//d"), "NOT_FOUND balanced");
  ASSERT_TRUE(Unset("//d/a").ok());
  EXPECT_EQ(Shown("//d/a"), "NOT_FOUND balanced");
  EXPECT_EQ(Unset("//d/a").code(), Code::kNotFound);
}

TEST_F(PolicyTest, StaysWhenTheLastRegistrationGoes) {
  RegisterStatic("//d/a", kOne, "", true);
  ASSERT_TRUE(Set("//d/a", pb::POLICY_ORDERED).ok());
  EXPECT_EQ(Shown("//d/a/b"), "FOUND //d/a ordered");
  WithdrawStatic("//d/a", kOne);
  EXPECT_EQ(Shown("//d/a"), "NO_ENDPOINT //d/a ordered");
  EXPECT_EQ(Shown("//d/a/b"), "NOT_FOUND balanced");
  RegisterStatic("//d/a", kOne, "", true);
  EXPECT_EQ(Shown("//d/a/b"), "FOUND //d/a ordered");
}

TEST_F(PolicyTest, AloneDoesNotHideTheSubtreeAboveAndCountsInItsAnswer) {
  RegisterStatic("//d/a", kOne, "", true);
  ASSERT_TRUE(Set("//d/a", pb::POLICY_CONSISTENT).ok());
  ASSERT_TRUE(Set("//d/a/b", pb::POLICY_BALANCED).ok());
  for (int again = 0; again < 2; ++again) {  // from the store, then from the cache
    EXPECT_EQ(Shown("//d/a/b"), "FOUND //d/a balanced");
    EXPECT_EQ(Shown("//d/a/b/c"), "FOUND //d/a consistent");
  }
  EXPECT_NE(Resolve("//d/a/b").hash, Resolve("//d/a/c").hash);
  EXPECT_GT(Resolve("//d/a/b").modified, Resolve("//d/a/c").modified);
  EXPECT_EQ(Get("//d/a/b").in_force(), pb::POLICY_BALANCED);
  EXPECT_EQ(Get("//d/a/c").in_force(), pb::POLICY_CONSISTENT);
  EXPECT_FALSE(Get("//d/a/c").has_own());
}

TEST_F(PolicyTest, ChangesWakeSubscribersOfTheAddressAndOfWhatItAnswersFor) {
  RegisterStatic("//d/a", kOne, "", true);
  TestSubscriber subscriber(*directory_);
  subscriber.Add("//d/a");
  subscriber.Add("//d/a/b");
  subscriber.Answers();
  const auto policies = [&] {
    std::map<std::string, pb::Policy> out;
    for (const auto& answer : subscriber.Answers()) out[answer.address()] = answer.row().policy();
    return out;
  };
  using Told = std::map<std::string, pb::Policy>;
  ASSERT_TRUE(Set("//d/a", pb::POLICY_ORDERED).ok());
  EXPECT_EQ(policies(), (Told{{"//d/a", pb::POLICY_ORDERED}, {"//d/a/b", pb::POLICY_ORDERED}}));
  ASSERT_TRUE(Set("//d/a/b", pb::POLICY_CONSISTENT).ok());
  EXPECT_EQ(policies(), (Told{{"//d/a/b", pb::POLICY_CONSISTENT}}));
  ASSERT_TRUE(Set("//d/other", pb::POLICY_CONSISTENT).ok());
  EXPECT_EQ(policies(), Told{});
  ASSERT_TRUE(Unset("//d/a/b").ok());
  EXPECT_EQ(policies(), (Told{{"//d/a/b", pb::POLICY_ORDERED}}));
}

TEST_F(PolicyTest, AnAddressWithAPolicyAloneIsNoneOfASubtreeSubscription) {
  RegisterStatic("//d/a/b", kOne);
  ASSERT_TRUE(Set("//d/a/b", pb::POLICY_ORDERED).ok());
  ASSERT_TRUE(Set("//d/a/c", pb::POLICY_ORDERED).ok());
  TestSubscriber subscriber(*directory_);
  subscriber.AddSubtree("//d/a");
  EXPECT_EQ(subscriber.Said(), std::vector<std::string>{"//d/a/b FOUND"});
  WithdrawStatic("//d/a/b", kOne);
  EXPECT_EQ(subscriber.Said(), std::vector<std::string>{"//d/a/b NO_ENDPOINT"});
  ASSERT_TRUE(Set("//d/a/b", pb::POLICY_BALANCED).ok());
  EXPECT_EQ(subscriber.Said(), std::vector<std::string>{});
}

TEST_F(PolicyTest, WatchersSeeThemInTheSnapshotAndAsTheyChange) {
  RegisterStatic("//d/a", kOne);
  ASSERT_TRUE(Set("//d/a", pb::POLICY_ORDERED).ok());
  ASSERT_TRUE(Set("//d/b", pb::POLICY_ORDERED).ok());
  ASSERT_TRUE(Unset("//d/b").ok());
  ASSERT_TRUE(Set("//da", pb::POLICY_ORDERED).ok());
  TestStream stream;
  pb::WatchRequest request;
  request.set_prefix("//d");
  auto watcher = directory_->OpenWatcher(request, {}, stream);
  ASSERT_TRUE(watcher.ok());
  const auto said = [&] {
    std::string out;
    while (auto bytes = (*watcher)->Next().value()) {
      pb::WatchResponse response;
      EXPECT_TRUE(response.ParseFromString(*bytes));
      for (const pb::Event& event : response.events())
        out += pb::Event::Kind_Name(event.kind()).substr(5) + " " + event.address() +
               (event.has_policy() ? " " + pb::Policy_Name(event.policy()).substr(7) : "") + ";";
    }
    return out;
  };
  EXPECT_EQ(said(), "PUT //d/a;POLICY //d/a ORDERED;");
  ASSERT_TRUE(Set("//d/a", pb::POLICY_ORDERED).ok());  // as it was
  ASSERT_TRUE(Set("//d/a", pb::POLICY_CONSISTENT).ok());
  ASSERT_TRUE(Set("//d/c", pb::POLICY_BALANCED).ok());
  ASSERT_TRUE(Unset("//d/a").ok());
  EXPECT_EQ(said(), "POLICY //d/a CONSISTENT;POLICY //d/c BALANCED;POLICY //d/a;");
}

TEST_F(PolicyTest, ARetryDoesNotDoItsWorkTwice) {
  const std::string first(16, '1'), second(16, '2'), third(16, '3');
  ASSERT_TRUE(Set("//d/a", pb::POLICY_ORDERED, first).ok());
  ASSERT_TRUE(Set("//d/a", pb::POLICY_CONSISTENT, second).ok());
  ASSERT_TRUE(Set("//d/a", pb::POLICY_ORDERED, first).ok());
  EXPECT_EQ(Get("//d/a").own(), pb::POLICY_CONSISTENT);
  ASSERT_TRUE(Unset("//d/a", third).ok());
  ASSERT_TRUE(Unset("//d/a", third).ok());
  ASSERT_TRUE(Set("//d/a", pb::POLICY_CONSISTENT, second).ok());
  EXPECT_FALSE(Get("//d/a").has_own());
}

TEST_F(PolicyTest, WhatIsNoPolicyOrNoAddressIsRefusedWithTheRule) {
  const Status unknown = Set("//d/a", static_cast<pb::Policy>(7));
  EXPECT_EQ(unknown.code(), Code::kInvalid);
  EXPECT_EQ(unknown.message(), "policy 7 is none of 0 balanced, 1 ordered, 2 consistent");
  EXPECT_EQ(Set("d", pb::POLICY_ORDERED).code(), Code::kInvalid);
  EXPECT_EQ(Set("//d/a", pb::POLICY_ORDERED, "short").code(), Code::kInvalid);
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound);
}

TEST_F(PolicyTest, AnUnsetOneIsSweptAfterTenMinutes) {
  ASSERT_TRUE(Set("//d/a", pb::POLICY_ORDERED).ok());
  ASSERT_TRUE(Unset("//d/a").ok());
  const std::string key = keys::Policy(Address::Parse("//d/a").value());
  Pass(9min);
  EXPECT_TRUE(view_->Get(key).value().has_value());
  Pass(2min);
  EXPECT_FALSE(view_->Get(key).value().has_value());
}

}  // namespace
}  // namespace datawire::directory
