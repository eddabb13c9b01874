#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "directory_fixture.h"
#include "node.h"
#include "store_check.h"

namespace datawire::directory {
namespace {

/// The verbs on a disc that is full (P20).
class DiscFullTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(node_->Start().ok()); }

  Status Register(const std::string& address) {
    pb::RegisterRequest request;
    auto* registration = request.add_registrations();
    registration->set_address(address);
    registration->mutable_endpoint()->set_url("amqp://127.0.0.1:5672");
    std::promise<Status> status;
    node_->directory().Register(request, {"127.0.0.1:9", ""},
                                [&](auto result) { status.set_value(result.status()); });
    return status.get_future().get();
  }
  Status Withdraw(const std::string& address) {
    pb::WithdrawRequest request;
    request.add_withdrawals()->set_address(address);
    std::promise<Status> status;
    node_->directory().Withdraw(request, {"127.0.0.1:9", ""},
                                [&](auto result) { status.set_value(result.status()); });
    return status.get_future().get();
  }
  bool Found(const std::string& address) {
    pb::ResolveRequest request;
    request.add_addresses(address);
    std::promise<std::string> bytes;
    node_->directory().Resolve(
        request, [&](Result<std::string> result) { bytes.set_value(std::move(result).value()); });
    pb::ResolveResponse response;
    EXPECT_TRUE(response.ParseFromString(bytes.get_future().get()));
    return response.answers(0).row().status() == pb::ANSWER_STATUS_FOUND;
  }
  void LosePower() {
    node_->Stop();
    const std::string next = folder_ / "after";
    node_->disc().WriteAsAfterPowerLoss(node_->disc().calls(), nullptr, next);
    node_ = std::make_unique<Node>(next);
    const Status opened = node_->Start();
    ASSERT_TRUE(opened.ok()) << opened.ToString();
    EXPECT_EQ(Contradictions(node_->view()), std::vector<std::string>());
  }

  CrashFolder folder_;
  std::unique_ptr<Node> node_ = std::make_unique<Node>(folder_ / "node");
};

TEST_F(DiscFullTest, RegisterIsRefusedAndResolveHeartbeatAndWithdrawGoOnAndItEndsWithoutARestart) {
  TestTether tether(node_->directory());
  tether.Hello();
  tether.Register(1, "//s/stays", "amqp://127.0.0.1:1");
  tether.Register(2, "//s/goes", "amqp://127.0.0.1:1");
  ASSERT_TRUE(Register("//a/stays").ok());
  ASSERT_TRUE(Register("//a/goes").ok());

  node_->disc().SetFree(0);
  const Status refused = Register("//a/refused");
  EXPECT_EQ(refused.code(), Code::kOverloaded) << refused.ToString();
  EXPECT_EQ(MappingOf(refused.code()).grpc, 8) << "RESOURCE_EXHAUSTED";
  EXPECT_TRUE(refused.retry_after().has_value());
  EXPECT_EQ(
      FromWire(tether.Register(3, "//s/refused", "amqp://127.0.0.1:1").done().refusal()).code(),
      Code::kOverloaded);
  EXPECT_TRUE(tether.Heartbeat().has_heartbeat());
  EXPECT_TRUE(Withdraw("//a/goes").ok());
  EXPECT_FALSE(tether.Withdraw(4, "//s/goes", "amqp://127.0.0.1:1").done().has_refusal());
  EXPECT_TRUE(Found("//a/stays"));
  EXPECT_TRUE(Found("//s/stays"));
  EXPECT_FALSE(Found("//a/goes"));
  EXPECT_FALSE(Found("//s/goes"));
  EXPECT_FALSE(Found("//a/refused"));

  node_->disc().SetFree(1ull << 30);
  EXPECT_TRUE(Register("//a/later").ok());
  EXPECT_FALSE(tether.Register(5, "//s/later", "amqp://127.0.0.1:1").done().has_refusal());
  tether.tether.reset();
  LosePower();
  for (const char* there : {"//a/stays", "//a/later", "//s/stays", "//s/later"})
    EXPECT_TRUE(Found(there)) << there;
  for (const char* gone : {"//a/goes", "//s/goes", "//a/refused", "//s/refused"})
    EXPECT_FALSE(Found(gone)) << gone;
}

TEST_F(DiscFullTest, AfterAFailedSyncNothingIsAcknowledgedUntilReopenedAndReadsGoOn) {
  TestTether tether(node_->directory());
  tether.Hello();
  ASSERT_TRUE(Register("//a/before").ok());
  node_->disc().FailSync(1);
  EXPECT_EQ(Register("//a/unknown").code(), Code::kOutcomeUnknown);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Register("//a/refused").code(), Code::kUnavailable);
  EXPECT_EQ(Withdraw("//a/before").code(), Code::kUnavailable);
  EXPECT_TRUE(tether.Heartbeat().has_heartbeat());
  EXPECT_TRUE(Found("//a/before"));
  EXPECT_FALSE(Found("//a/unknown"));
  EXPECT_FALSE(node_->directory().GetStatus().healthy());
  tether.tether.reset();
  LosePower();
  EXPECT_TRUE(Found("//a/before"));
  EXPECT_FALSE(Found("//a/refused"));
  EXPECT_TRUE(Register("//a/after").ok());
  EXPECT_TRUE(node_->directory().GetStatus().healthy());
}

}  // namespace
}  // namespace datawire::directory
