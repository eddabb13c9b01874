#include "datawire/record/v1/record.pb.h"
#include "directory_fixture.h"

// History of an address, on the real engine and view.

namespace datawire::directory {
namespace {

constexpr char kOne[] = "amqp://127.0.0.1:5001";
constexpr char kTwo[] = "amqp://127.0.0.1:5002";

class HistoryVerbTest : public DirectoryTest {
 protected:
  /// `put up by 127.0.0.1:9`, `gone EXPIRED by node-1`, ... each with its port.
  std::vector<std::string> Told(const std::string& address) {
    pb::HistoryRequest request;
    request.set_address(address);
    const auto told = directory_->History(request);
    EXPECT_TRUE(told.ok()) << told.status().ToString();
    std::vector<std::string> out;
    uint64_t last = 0;
    if (!told.ok()) return out;
    for (const auto& entry : told->entries()) {
      EXPECT_GE(entry.revision().number(), last);
      last = entry.revision().number();
      const pb::Event& event = entry.event();
      EXPECT_EQ(event.address(), address);
      std::string text = Lower(pb::Event::Kind_Name(event.kind()).substr(5));
      if (event.kind() == pb::Event::KIND_PUT)
        text += " " + Lower(pb::EndpointState_Name(event.endpoint().state()).substr(15));
      if (event.has_policy()) text += " " + Lower(pb::Policy_Name(event.policy()).substr(7));
      if (!event.endpoint().url().empty()) text += " " + event.endpoint().url().substr(17);
      if (event.reason() != pb::REASON_NONE)
        text += " " + pb::Reason_Name(event.reason()).substr(7);
      if (!event.by().empty()) text += " by " + event.by();
      EXPECT_EQ(event.at_wall_ms() > 0, !event.by().empty()) << text;
      out.push_back(std::move(text));
    }
    return out;
  }
  static std::string Lower(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(c));
    return text;
  }
  void Drain(const pb::DrainRequest& request) {
    auto done = std::make_shared<std::promise<Result<pb::DrainResponse>>>();
    directory_->Drain(request, {"op:1", ""}, [done](auto r) { done->set_value(std::move(r)); });
    EXPECT_TRUE(Within5s(done->get_future()).ok());
  }
  void DrainAddress(const std::string& address, bool undo) {
    pb::DrainRequest request;
    request.set_address(address);
    request.set_undo(undo);
    Drain(request);
  }
  using Lines = std::vector<std::string>;
};

TEST_F(HistoryVerbTest, TellsOfRegistrationsWithdrawalsDrainsAndPolicies) {
  RegisterStatic("//d/a", kOne);
  RegisterStatic("//d/a/other", kOne);
  DrainAddress("//d/a", false);
  DrainAddress("//d/a", true);
  pb::SetPolicyRequest policy;
  policy.set_address("//d/a");
  policy.set_policy(pb::POLICY_ORDERED);
  auto done = std::make_shared<std::promise<Result<pb::SetPolicyResponse>>>();
  directory_->SetPolicy(policy, {"op:2", ""}, [done](auto r) { done->set_value(std::move(r)); });
  ASSERT_TRUE(Within5s(done->get_future()).ok());
  WithdrawStatic("//d/a", kOne);
  EXPECT_EQ(Told("//d/a"), (Lines{"put up 5001 by 127.0.0.1:9", "put draining 5001 DRAINED by op:1",
                                  "put up 5001 by op:1", "policy ordered by op:2",
                                  "gone 5001 WITHDRAWN by 127.0.0.1:9"}));
}

TEST_F(HistoryVerbTest, TellsOfSessionsThatAreDrainedExpireOrAreEnded) {
  TestTether drained(*directory_), silent(*directory_), ended(*directory_);
  for (TestTether* one : {&drained, &silent, &ended}) one->Hello();
  drained.Register(1, "//d/a", kOne);
  silent.Register(1, "//d/a", kTwo);
  ended.Register(1, "//d/b", kOne);
  pb::DrainRequest request;
  request.set_session_id(drained.id);
  Drain(request);
  auto done = std::make_shared<std::promise<Result<pb::EndSessionResponse>>>();
  pb::EndSessionRequest end;
  end.set_id(ended.id);
  directory_->EndSession(end, {"op:3", ""}, [done](auto r) { done->set_value(std::move(r)); });
  ASSERT_TRUE(Within5s(done->get_future()).ok());
  Pass(10s);
  drained.Heartbeat();
  Pass(6s);
  EXPECT_EQ(Told("//d/a"),
            (Lines{"put up 5001 by 127.0.0.1:1000", "put up 5002 by 127.0.0.1:1000",
                   "put draining 5001 DRAINED by op:1", "gone 5002 EXPIRED by node-1"}));
  EXPECT_EQ(Told("//d/b"), (Lines{"put up 5001 by 127.0.0.1:1000", "gone 5001 ENDED by op:3"}));
}

TEST_F(HistoryVerbTest, TellsThatTheBrakeMadeThemSuspect) {
  std::vector<std::unique_ptr<TestTether>> all;
  for (int i = 0; i < 12; ++i) {
    all.push_back(std::make_unique<TestTether>(*directory_));
    all.back()->Hello();
  }
  all[0]->Register(1, "//d/a", kOne);
  Pass(16s);
  all[0]->Heartbeat();
  Settle();
  const auto told = Told("//d/a");
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[1], "put suspect 5001 BRAKED by node-1");
  EXPECT_EQ(told[2], "put up 5001 by 127.0.0.1:1000");
}

TEST_F(HistoryVerbTest, OfWhatIsOlderThanItTellsWhatIsStillThere) {
  RegisterStatic("//d/a", kOne);
  RegisterStatic("//d/b", kOne);
  view_->TrimHistory(view_->Applied().number);
  WithdrawStatic("//d/b", kOne);
  EXPECT_EQ(Told("//d/a"), Lines{"put up 5001 by 127.0.0.1:9"});
  EXPECT_EQ(Told("//d/b"),
            (Lines{"put up 5001 by 127.0.0.1:9", "gone 5001 WITHDRAWN by 127.0.0.1:9"}));
  view_->TrimHistory(view_->Applied().number);
  EXPECT_EQ(Told("//d/b"),
            (Lines{"put up 5001 by 127.0.0.1:9", "gone 5001 WITHDRAWN by 127.0.0.1:9"}));
  EXPECT_EQ(Told("//d/c"), Lines{});
}

TEST_F(HistoryVerbTest, ShowsTheLatestThousand) {
  for (int i = 0; i < 1100; ++i)
    RegisterStatic("//d/a", "amqp://127.0.0.1:" + std::to_string(10'000 + i));
  const auto told = Told("//d/a");
  EXPECT_EQ(told.size(), 1000u);
  EXPECT_EQ(told.back(), "put up 11099 by 127.0.0.1:9");
}

}  // namespace
}  // namespace datawire::directory
