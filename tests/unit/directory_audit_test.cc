#include <rocksdb/db.h>

#include "directory_fixture.h"
#include "view/checkpoint.h"

// Who did what, as the audit log tells it; and whether it is whole.

namespace datawire::directory {
namespace {

constexpr char kOne[] = "amqp://127.0.0.1:5001", kTwo[] = "amqp://127.0.0.1:5002";
using Lines = std::vector<std::string>;

class AuditVerbTest : public DirectoryTest {
 protected:
  pb::AuditTailResponse Page(const pb::AuditTailRequest& request) {
    const auto page = directory_->AuditTail(request);
    EXPECT_TRUE(page.ok()) << page.status().ToString();
    return page.ok() ? *page : pb::AuditTailResponse();
  }
  /// All pages; each entry as `REGISTER //d/a by who REASON`.
  Lines Told(pb::AuditTailRequest request = {}) {
    Lines out;
    for (bool more = true; more;) {
      const auto page = Page(request);
      for (const auto& e : page.entries()) {
        std::string line = pb::AuditVerb_Name(e.verb()).substr(11) + " " +
                           (e.address().empty() ? "session" : e.address()) + " by " + e.by();
        if (e.reason() != pb::REASON_NONE) line += " " + pb::Reason_Name(e.reason()).substr(7);
        if (e.at_wall_ms() == 0) line += " at no time";
        out.push_back(line);
      }
      request.set_page_token(page.next_page_token());
      more = page.more();
    }
    return out;
  }
  Result<pb::AuditVerifyResponse> Verify(const pb::AuditVerifyRequest& request = {}) {
    auto done = std::make_shared<std::promise<Result<pb::AuditVerifyResponse>>>();
    directory_->AuditVerify(
        request, [] { return true; }, [done](auto r) { done->set_value(std::move(r)); });
    return Within5s(done->get_future());
  }
  void Drain(const std::string& address, const std::string& session, bool undo,
             const Peer& peer = {"op:1", "ops"}) {
    pb::DrainRequest request;
    request.set_address(address);
    request.set_session_id(session);
    request.set_undo(undo);
    auto done = std::make_shared<std::promise<Result<pb::DrainResponse>>>();
    directory_->Drain(request, peer, [done](auto r) { done->set_value(std::move(r)); });
    ASSERT_TRUE(Within5s(done->get_future()).ok());
  }
  void SetPolicy(bool unset) {
    pb::SetPolicyRequest request;
    request.set_address("//d/p");
    request.set_unset(unset);
    if (!unset) request.set_policy(pb::POLICY_ORDERED);
    auto done = std::make_shared<std::promise<Result<pb::SetPolicyResponse>>>();
    directory_->SetPolicy(request, {"op:2", ""}, [done](auto r) { done->set_value(std::move(r)); });
    ASSERT_TRUE(Within5s(done->get_future()).ok());
  }
};

TEST_F(AuditVerbTest, NamesWhoDidWhatAndWhy) {
  TestTether process(*directory_, {"127.0.0.1:1000", "spiffe://x/web"});
  process.Hello();
  process.Register(1, "//d/a", kOne);
  TestTether again(*directory_, {"127.0.0.1:1001", "spiffe://x/web"});
  again.Resume(process, 2);
  Drain("//d/a", "", false);
  Drain("//d/a", "", true, {"op:9", ""});
  Drain("", process.id, false);
  Drain("", process.id, true, {"op:9", ""});
  again.Withdraw(2, "//d/a", kOne);
  again.Bye();
  RegisterStatic("//d/b", kOne);
  WithdrawStatic("//d/b", kOne);
  SetPolicy(false);
  SetPolicy(true);
  Settle();
  EXPECT_EQ(Told(),
            (Lines{"OPEN_SESSION session by spiffe://x/web", "REGISTER //d/a by spiffe://x/web",
                   "RESUME_SESSION session by spiffe://x/web", "DRAIN //d/a by ops DRAINED",
                   "UNDRAIN //d/a by op:9", "DRAIN_SESSION session by ops DRAINED",
                   "CLEAR_SESSION session by op:9", "WITHDRAW //d/a by spiffe://x/web WITHDRAWN",
                   "END_SESSION session by spiffe://x/web CLOSED", "REGISTER //d/b by 127.0.0.1:9",
                   "WITHDRAW //d/b by 127.0.0.1:9 WITHDRAWN", "SET_POLICY //d/p by op:2",
                   "UNSET_POLICY //d/p by op:2 WITHDRAWN"}));
  const auto page = Page({});
  const auto& drained = page.entries(3);
  EXPECT_EQ(drained.identity(), "ops");
  EXPECT_EQ(drained.peer(), "op:1");
  EXPECT_EQ(drained.session_id(), process.id);
  EXPECT_EQ(drained.op_id().size(), 16u);
  EXPECT_FALSE(drained.before().draining());
  EXPECT_TRUE(drained.after().draining());
  EXPECT_EQ(drained.after().endpoint().url(), kOne);
  EXPECT_EQ(page.entries(4).identity(), "");
  const auto& closed = page.entries(8);
  EXPECT_EQ(closed.peer(), "127.0.0.1:1001") << "of the last who held it";
  EXPECT_EQ(closed.before().program(), "test");
  EXPECT_EQ(closed.before().attach_number(), 2u);
  EXPECT_FALSE(page.entries(0).has_before());
  EXPECT_EQ(page.entries(11).after().policy(), pb::POLICY_ORDERED);
  EXPECT_EQ(page.ShortDebugString().find(process.secret), std::string::npos);
}

TEST_F(AuditVerbTest, NamesTheNodeForWhatTheDirectoryDidItself) {
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a", kOne);
  Pass(16s);
  EXPECT_EQ(Told().back(), "EXPIRE_SESSION session by node-1 EXPIRED");
  Pass(limits::kLastEndpointLife + 5s);
  EXPECT_EQ(Told().back(), "EXPIRE //d/a by node-1 LAST_EXPIRED");
  const size_t entries = Told().size();
  Pass(limits::kTombstoneLife + 5s);
  EXPECT_EQ(Told().size(), entries) << "what the sweep takes away is no change";
  EXPECT_EQ(Page({}).entries(2).peer(), "");
}

TEST_F(AuditVerbTest, WhoIsSeenAgainClearsItsMark) {
  std::vector<std::unique_ptr<TestTether>> all;
  for (int i = 0; i < 12; ++i) {
    all.push_back(std::make_unique<TestTether>(*directory_));
    all.back()->Hello();
  }
  Pass(16s);
  all[0]->Heartbeat();
  Settle();
  EXPECT_EQ(Told().back(), "CLEAR_SESSION session by 127.0.0.1:1000");
  EXPECT_EQ(Told()[12], "SUSPECT_SESSION session by node-1 BRAKED");
}

TEST_F(AuditVerbTest, PagesAreWholeInBothDirectionsAndGoOn) {
  for (int i = 0; i < 7; ++i)
    RegisterStatic("//d/" + std::to_string(i), "amqp://127.0.0.1:" + std::to_string(5000 + i));
  TestTether process(*directory_);
  process.Hello();
  pb::TetherRequest several = TestTether::RegisterOf(1, "//d/x", kOne);
  for (int i = 0; i < 5; ++i)
    TestTether::Add(&several, "//d/x" + std::to_string(i), kOne);  // one revision of six entries
  process.Ask(several);
  const Lines all = Told();
  ASSERT_EQ(all.size(), 14u);
  for (const uint32_t size : {1, 2, 3, 5, 13, 1000}) {
    pb::AuditTailRequest request;
    request.set_page_size(size);
    EXPECT_EQ(Told(request), all) << size;
    request.set_newest_first(true);
    Lines back = Told(request);
    std::reverse(back.begin(), back.end());
    EXPECT_EQ(back, all) << size;
  }
  pb::AuditTailRequest newest;
  newest.set_newest_first(true);
  pb::AuditTailRequest later;
  later.set_page_token(Page(newest).end_token());
  EXPECT_EQ(Told(later), Lines{});
  RegisterStatic("//d/late", kOne);
  EXPECT_EQ(Told(later), Lines{"REGISTER //d/late by 127.0.0.1:9"});
}

TEST_F(AuditVerbTest, ShowsOneSubtreeOrOneSession) {
  RegisterStatic("//d/a", kOne);
  RegisterStatic("//d/a/b", kOne);
  RegisterStatic("//d/ab", kOne);
  TestTether process(*directory_);
  process.Hello();
  process.Register(1, "//d/a/c", kTwo);
  pb::AuditTailRequest request;
  request.set_address("//d/a");
  EXPECT_EQ(Told(request),
            (Lines{"REGISTER //d/a by 127.0.0.1:9", "REGISTER //d/a/b by 127.0.0.1:9",
                   "REGISTER //d/a/c by 127.0.0.1:1000"}));
  pb::AuditTailRequest of_session;
  of_session.set_session_id(process.id);
  EXPECT_EQ(Told(of_session), (Lines{"OPEN_SESSION session by 127.0.0.1:1000",
                                     "REGISTER //d/a/c by 127.0.0.1:1000"}));
  of_session.set_session_id("short");
  EXPECT_EQ(directory_->AuditTail(of_session).status().code(), Code::kInvalid);
  pb::AuditTailRequest strange;
  for (const char* token : {"x", "1", "1-", "1-x", "-1-0", "1--1", "1-0 "}) {
    strange.set_page_token(token);
    EXPECT_EQ(directory_->AuditTail(strange).status().code(), Code::kInvalid) << token;
  }
  pb::AuditTailRequest since;
  since.set_since_wall_ms(WallMillis() + 60'000);
  EXPECT_EQ(Told(since), Lines{});
  since.set_newest_first(true);
  EXPECT_EQ(Told(since), Lines{});
  since.set_since_wall_ms(WallMillis() - 60'000);
  EXPECT_EQ(Told(since).size(), 5u);
}

TEST_F(AuditVerbTest, VerifyTellsTheLastHashAndWhereItBreaks) {
  RegisterStatic("//d/a", kOne);
  const auto whole = Verify();
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  EXPECT_FALSE(whole->broken()) << whole->why();
  EXPECT_EQ(FromWire(whole->last()), (Revision{1, 1}));
  EXPECT_EQ(whole->last_hash().size(), 32u);
  RegisterStatic("//d/b", kOne);
  pb::AuditVerifyRequest kept;
  *kept.mutable_expect() = whole->last();
  kept.set_expect_hash(whole->last_hash());
  const auto met = Verify(kept);
  ASSERT_TRUE(met.ok());
  EXPECT_FALSE(met->broken());
  EXPECT_EQ(met->entries(), 2u);
  kept.set_expect_hash(std::string(32, 'x'));
  const auto other = Verify(kept);
  ASSERT_TRUE(other.ok());
  EXPECT_TRUE(other->broken());
  EXPECT_EQ(FromWire(other->broken_at()), (Revision{1, 1}));
  kept.set_expect_hash("x");
  EXPECT_EQ(Verify(kept).status().code(), Code::kInvalid);
}

TEST_F(AuditVerbTest, TheSweepKeepsItsSizeAndAge) {
  for (int i = 0; i < 100; ++i) RegisterStatic("//d/a", kOne);
  Pass(2s);
  EXPECT_EQ(Told().size(), 100u);
  options_.audit_bytes = 3'000;
  Restart();
  Pass(2s);
  RegisterStatic("//d/b", kOne);
  const size_t left = Told().size();
  EXPECT_GE(left, 4u);
  EXPECT_LE(left, 20u);
  const auto check = Verify();
  ASSERT_TRUE(check.ok());
  EXPECT_FALSE(check->broken()) << check->why();
  EXPECT_EQ(check->entries(), left);
  EXPECT_GE(check->after().number(), 80u);
  pb::AuditTailRequest gone;
  gone.set_page_token("3-0");
  EXPECT_EQ(directory_->AuditTail(gone).status().code(), Code::kAborted);
  options_.audit_age = 0s;
  Restart();
  const int64_t then = WallMillis();
  while (WallMillis() == then) {
  }
  Pass(2s);
  RegisterStatic("//d/c", kOne);
  EXPECT_EQ(Told(), Lines{"REGISTER //d/c by 127.0.0.1:9"});
  EXPECT_FALSE(Verify()->broken());
}

TEST_F(AuditVerbTest, ARestoreGoesOnWithTheChain) {
  RegisterStatic("//d/a", kOne);
  RegisterStatic("//d/b", kOne);
  const auto before = Verify();
  ASSERT_TRUE(before.ok());
  ASSERT_TRUE(SaveSnapshot(*view_, path_ + "/copy").ok());
  ASSERT_TRUE(SetEpoch(path_ + "/copy", 2).ok());
  Stop();
  std::filesystem::rename(path_ + "/copy", path_ + "/restored");
  std::filesystem::remove_all(path_ + "/data");
  std::filesystem::rename(path_ + "/restored", path_ + "/data");
  Restart();
  RegisterStatic("//d/c", kOne);
  pb::AuditVerifyRequest kept;
  *kept.mutable_expect() = before->last();
  kept.set_expect_hash(before->last_hash());
  const auto after = Verify(kept);
  ASSERT_TRUE(after.ok()) << after.status().ToString();
  EXPECT_FALSE(after->broken()) << after->why();
  EXPECT_EQ(FromWire(after->last()), (Revision{2, 3}));
  const auto page = Page({});
  EXPECT_EQ(FromWire(page.entries(0).revision()), (Revision{1, 1}));
  EXPECT_EQ(FromWire(page.entries(2).revision()), (Revision{2, 3}));
}

}  // namespace
}  // namespace datawire::directory
