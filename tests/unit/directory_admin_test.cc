#include "core/ids.h"
#include "directory_fixture.h"

// What operators do to sessions, on the real engine and view.

namespace datawire::directory {
namespace {

constexpr char kOne[] = "amqp://127.0.0.1:5001";
constexpr char kTwo[] = "amqp://127.0.0.1:5002";

class AdminTest : public DirectoryTest {
 protected:
  Result<pb::EndSessionResponse> End(const std::string& id) {
    auto done = std::make_shared<std::promise<Result<pb::EndSessionResponse>>>();
    pb::EndSessionRequest request;
    request.set_id(id);
    directory_->EndSession(request, {"127.0.0.1:77", ""},
                           [done](auto r) { done->set_value(std::move(r)); });
    return Within5s(done->get_future());
  }
  Result<pb::ListSessionsResponse> Show(const std::string& id) {
    pb::ListSessionsRequest request;
    request.set_id(id);
    return directory_->ListSessions(request);
  }
};

TEST_F(AdminTest, ListsSessionsInPagesWithoutTheirSecrets) {
  std::vector<std::unique_ptr<TestTether>> all;
  for (int i = 0; i < 5; ++i) {
    all.push_back(std::make_unique<TestTether>(*directory_));
    all.back()->Hello();
  }
  all[0]->Register(1, "//d/a", kOne);
  pb::ListSessionsRequest request;
  request.set_page_size(2);
  std::vector<std::string> ids;
  for (bool more = true; more; request.set_after(ids.back())) {
    const auto page = directory_->ListSessions(request);
    ASSERT_TRUE(page.ok());
    EXPECT_LE(page->sessions_size(), 2);
    for (const auto& session : page->sessions()) {
      ids.push_back(session.id());
      EXPECT_EQ(session.host(), "host");
      EXPECT_EQ(session.pid(), 42u);
      EXPECT_EQ(session.peer(), "127.0.0.1:1000");
      EXPECT_TRUE(session.attached());
      EXPECT_EQ(session.ttl_ms(), 15000u);
      EXPECT_EQ(session.remaining_ms(), 15000u);
      EXPECT_EQ(session.registrations(), session.id() == all[0]->id ? 1u : 0u);
    }
    for (const auto& tether : all) {
      EXPECT_EQ(page->SerializeAsString().find(tether->secret), std::string::npos);
      EXPECT_EQ(page->SerializeAsString().find(Sha256(tether->secret)), std::string::npos);
    }
    more = page->more();
  }
  EXPECT_EQ(ids.size(), 5u);
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  request.set_page_size(1001);
  EXPECT_EQ(directory_->ListSessions(request).status().code(), Code::kInvalid);
}

TEST_F(AdminTest, ShowsASessionWithItsRegistrationsAndItsTombstone) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne);
  Pass(3s);
  auto shown = Show(process.id);
  ASSERT_TRUE(shown.ok());
  ASSERT_EQ(shown->sessions_size(), 1);
  EXPECT_EQ(shown->sessions(0).seen_ms(), 3000u);
  ASSERT_EQ(shown->registrations_size(), 1);
  EXPECT_EQ(shown->registrations(0).address(), "//d/a");
  EXPECT_EQ(shown->registrations(0).url(), kOne);
  process.Bye();
  shown = Show(process.id);
  ASSERT_TRUE(shown.ok());
  EXPECT_TRUE(shown->sessions(0).ended());
  EXPECT_EQ(shown->sessions(0).reason(), pb::REASON_CLOSED);
  EXPECT_EQ(shown->sessions(0).ended_by(), "127.0.0.1:1000");
  EXPECT_EQ(Show(std::string(16, 'x')).status().code(), Code::kNotFound);
  EXPECT_EQ(Show("short").status().code(), Code::kInvalid);
}

TEST_F(AdminTest, AnEndedSessionIsGoneAtOnceAndItsHolderIsToldByWhom) {
  TestTether process(*directory_), other(*directory_);
  process.Hello();
  other.Hello();
  process.Register(1, "//d/a", kOne);
  const auto ended = End(process.id);
  ASSERT_TRUE(ended.ok()) << ended.status().ToString();
  // The last endpoint, too: it is an operator who says so.
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kNotFound);
  const auto told = process.Read();
  ASSERT_TRUE(told && told->has_ended());
  EXPECT_EQ(told->ended().refusal().code(), pb::SESSION_EXPIRED);
  EXPECT_EQ(told->ended().reason(), "ended");
  EXPECT_NE(told->ended().refusal().message().find("127.0.0.1:77"), std::string::npos);
  const auto shown = Show(process.id);
  ASSERT_TRUE(shown.ok());
  EXPECT_EQ(shown->sessions(0).reason(), pb::REASON_ENDED);
  EXPECT_EQ(shown->sessions(0).ended_by(), "127.0.0.1:77");
  TestTether again(*directory_);
  const auto refused = again.Resume(process, 2);
  EXPECT_EQ(refused.ended().reason(), "ended");
  EXPECT_EQ(End(process.id).status().code(), Code::kNotFound);
  EXPECT_EQ(directory_->GetStatus().sessions(), 1u);
  Pass(1s);
  EXPECT_TRUE(other.Heartbeat().has_heartbeat());
}

TEST_F(AdminTest, AnEndThatWaitsIsRefusedWhenTheNodeStops) {
  TestTether process(*directory_);
  process.Hello();
  auto done = std::make_shared<std::promise<Result<pb::EndSessionResponse>>>();
  pb::EndSessionRequest request;
  request.set_id(process.id);
  {
    const HeldEngine held(*log_);
    directory_->EndSession(request, {}, [done](auto r) { done->set_value(std::move(r)); });
    directory_->Stop();
    EXPECT_EQ(Within5s(done->get_future()).status().code(), Code::kUnavailable);
  }
  Settle();
}

TEST_F(AdminTest, AReleasedBrakeLetsSuspectsEndAtTheBudgetsRate) {
  EXPECT_EQ(directory_->ReleaseBrake().status().code(), Code::kConflict);
  std::vector<std::unique_ptr<TestTether>> all;
  for (int i = 0; i < 14; ++i) {
    all.push_back(std::make_unique<TestTether>(*directory_));
    all.back()->Hello();
  }
  Pass(60s);
  EXPECT_EQ(directory_->GetStatus().sessions(), 14u);
  const auto released = directory_->ReleaseBrake();
  ASSERT_TRUE(released.ok());
  EXPECT_EQ(released->sessions_suspect(), 14u);
  Pass(1s);
  EXPECT_EQ(directory_->GetStatus().sessions(), 4u);
  Pass(61s);
  EXPECT_EQ(directory_->GetStatus().sessions(), 0u);
  EXPECT_FALSE(directory_->GetStatus().brake_on());
}

}  // namespace
}  // namespace datawire::directory
