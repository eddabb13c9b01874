#include <rocksdb/db.h>

#include <filesystem>

#include "engine/etcd/etcd.h"
#include "engine/etcd/transaction.h"
#include "etcd_process.h"
#include "failing_disc.h"
#include "log_conformance.h"
#include "view/encoding.h"
#include "view_fixture.h"

namespace datawire::directory {
namespace {

using testing_view::TempDir;
using namespace std::chrono_literals;

/// One etcd for all tests of this program: each begins with an empty one.
EtcdProcess& SharedEtcd() {
  static EtcdProcess etcd;
  return etcd;
}

/// The engine over a real etcd. Crash: a power loss of the node while it runs; etcd goes on.
class EtcdEngine {
 public:
  EtcdEngine() {
    SharedEtcd().Wipe();
    etcd::Client client({SharedEtcd().endpoint()});
    EXPECT_TRUE(InitEtcdAuthority(client, {"cluster", 1}, 5s).ok());
    NewDisc();
    Open();
  }
  ~EtcdEngine() { Close(); }
  Log& log() { return *log_; }
  View& view() { return *view_; }

  /// Of the next end that is no failure of the test.
  Code expect_end = Code::kOk;
  std::atomic<bool>& ended() { return ended_; }

  void Crash(const std::function<void()>& meanwhile = nullptr) {
    ++generation_;
    disc_->WriteAsAfterPowerLoss(disc_->calls(), nullptr, Path());
    Close();
    if (meanwhile) meanwhile();
    NewDisc();
    Open();
    // What was acknowledged is seen when the watch has caught up.
    std::promise<void> caught_up;
    log_->ReadBarrier(BootClock::now() + 10s, [&](Result<Revision>) { caught_up.set_value(); });
    caught_up.get_future().wait();
  }
  void Reopen() {
    Close();
    expect_end = Code::kOk;
    Open();
  }

 private:
  std::string Path() const { return dir_ / ("data" + std::to_string(generation_)); }
  void Open() {
    client_ = std::make_unique<etcd::Client>(std::vector{SharedEtcd().endpoint()});
    const auto authority = ReadEtcdAuthority(*client_, 5s);
    ASSERT_TRUE(authority.ok()) << authority.status().ToString();
    ViewOptions options;
    options.env = env_.get();
    view_ = View::OpenReplica(Path(), *authority, options).value();
    EtcdOptions as;
    as.node_id = "node";
    as.incarnation = "run" + std::to_string(++runs_);
    as.ended = [this](const Status& status) {
      EXPECT_EQ(status.code(), expect_end) << status.ToString();
      ended_ = true;
    };
    log_ = OpenEtcd(*client_, *view_, as).value();
    const BootTime until = BootClock::now() + 10s;
    while (!log_->ready() && BootClock::now() < until) std::this_thread::yield();
    ASSERT_TRUE(log_->ready());
  }
  void Close() {
    log_.reset();
    view_.reset();
    client_.reset();
  }
  void NewDisc() {
    disc_ = std::make_shared<FailingDisc>(Path());
    env_ = rocksdb::NewCompositeEnv(disc_);
  }

  std::atomic<bool> ended_{false};
  TempDir dir_;
  int generation_ = 0, runs_ = 0;
  std::shared_ptr<FailingDisc> disc_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<etcd::Client> client_;
  std::unique_ptr<View> view_;
  std::unique_ptr<Log> log_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Etcd, LogConformance, EtcdEngine);

class EtcdTest : public LogConformance<EtcdEngine> {
 protected:
  template <typename Condition>
  static bool Eventually(Condition condition) {
    const BootTime until = BootClock::now() + kWait;
    while (!condition()) {
      if (BootClock::now() > until) return false;
      std::this_thread::yield();
    }
    return true;
  }
  uint64_t Figure(std::string_view name) {
    for (const auto& [known, count] : engine_.log().figures())
      if (known == name) return count;
    ADD_FAILURE() << name;
    return 0;
  }
  /// Writes behind the node's back.
  static void Raw(etcd::api::TxnRequest request) {
    etcd::Client client({SharedEtcd().endpoint()});
    ASSERT_TRUE(client.Txn(0, request, 5s).ok());
  }
  static etcd::api::TxnRequest RawPut(const std::string& key, const std::string& value) {
    etcd::api::TxnRequest request;
    auto* const put = request.add_success()->mutable_request_put();
    put->set_key(key);
    put->set_value(value);
    return request;
  }
};

TEST_F(EtcdTest, AJoinThatArrivesLateChangesNothing) {
  ASSERT_TRUE(Do(PutOp("n/a", "1")).status.ok());
  const etcd::NodeKeys keys{"node", "run1"};
  etcd::Client client({SharedEtcd().endpoint()});
  const auto slot = [&] {
    etcd::api::RangeRequest request;
    request.set_key(keys.Slot());
    const auto response = client.Range(0, request, 5s);
    return response.ok() && response->kvs_size() == 1 ? keys.NumberIn(response->kvs(0).value())
                                                      : std::nullopt;
  };
  const auto before = slot();
  ASSERT_TRUE(before);
  Raw(etcd::JoinRequest(keys));  // as the node has sent it, perhaps twice
  EXPECT_GE(slot(), before) << "what was sent before could be done again";
}

TEST_F(EtcdTest, WhatIsSentAgainBecauseNoAnswerCameIsDoneOnce) {
  ASSERT_TRUE(Do(PutOp("n/first", "1")).status.ok()) << "it has joined";
  SharedEtcd().Freeze();
  Op op = PutOp("n/a", "once");
  op.guards = {{Guard::kAbsent, "n/a"}};
  Op refused = PutOp("n/b", "never");
  refused.guards = {{Guard::kExists, "n/none"}};
  auto first = Propose(op), second = Propose(refused);
  EXPECT_TRUE(Eventually([&] { return Figure("transactions_resent") > 0; }));
  SharedEtcd().Thaw();
  EXPECT_TRUE(Wait(std::move(first)).status.ok());
  EXPECT_EQ(Wait(std::move(second)).status.code(), Code::kConflict);
  const auto once = engine_.view().Get("n/a");
  ASSERT_TRUE(once.ok() && *once);
  EXPECT_EQ((*once)->created, (*once)->modified);
  EXPECT_EQ(ValueOf("n/b"), "none");
}

TEST_F(EtcdTest, AfterTheDeadlineItIsSaidThatTheOutcomeIsUnknownAndLaterOpsGoOn) {
  ASSERT_TRUE(Do(PutOp("n/first", "1")).status.ok()) << "it has joined";
  SharedEtcd().Freeze();
  std::promise<Outcome> promise;
  engine_.log().Propose(PutOp("n/a", "perhaps"), BootClock::now() + 1s,
                        [&](const Outcome& outcome) { promise.set_value(outcome); });
  EXPECT_EQ(promise.get_future().get().status.code(), Code::kOutcomeUnknown);
  SharedEtcd().Thaw();
  // The one that was given up may be done now, in front of this one, and never behind it.
  EXPECT_TRUE(Do(PutOp("n/a", "later")).status.ok());
  EXPECT_TRUE(Do(PutOp("n/b", "x")).status.ok());
  EXPECT_EQ(ValueOf("n/a"), "later");
}

TEST_F(EtcdTest, AFrozenEtcdIsNoticedAndSoIsItsReturn) {
  ASSERT_TRUE(Eventually([&] { return engine_.log().Fresh().healthy; }));
  SharedEtcd().Freeze();
  EXPECT_TRUE(Eventually([&] { return !engine_.log().Fresh().healthy; }));
  EXPECT_FALSE(engine_.log().Fresh().reason.empty());
  SharedEtcd().Thaw();
  EXPECT_TRUE(Eventually([&] { return engine_.log().Fresh().healthy; }));
}

TEST_F(EtcdTest, WhatHappenedWhileItWasAwayIsSeenThoughEtcdHasForgottenIt) {
  Do(PutOp("n/kept", "1"));
  Do(PutOp("n/gone", "1"));
  engine_.Crash([&] {
    Raw(RawPut("datawire/n/kept", "2"));
    Raw(RawPut("datawire/n/new", "1"));
    etcd::api::TxnRequest erase;
    erase.add_success()->mutable_request_delete_range()->set_key("datawire/n/gone");
    Raw(erase);
    etcd::Client client({SharedEtcd().endpoint()});
    const auto now = client.Txn(0, {}, 5s);
    ASSERT_TRUE(client.Compact(0, static_cast<uint64_t>(now->header().revision()), 5s).ok());
  });
  EXPECT_EQ(ValueOf("n/kept"), "2");
  EXPECT_EQ(ValueOf("n/new"), "1");
  EXPECT_EQ(ValueOf("n/gone"), "none");
  EXPECT_EQ(Figure("listings"), 1u);
}

TEST_F(EtcdTest, ARevisionThatTheWatchLeavesOutIsNoticedAndTheViewListedAnew) {
  Do(PutOp("n/a", "1"));
  Raw(RawPut("foreign", "x"));  // shows in no watch over the prefix
  Raw(RawPut("datawire/n/a", "2"));
  EXPECT_TRUE(Eventually([&] { return ValueOf("n/a") == "2"; }));
  EXPECT_EQ(Figure("watch_gaps"), 1u);
  EXPECT_EQ(Figure("listings"), 2u);
  EXPECT_TRUE(Do(PutOp("n/b", "x")).status.ok());
  Raw([] {
    etcd::api::TxnRequest erase;
    erase.add_success()->mutable_request_delete_range()->set_key("foreign");
    return erase;
  }());
}

TEST_F(EtcdTest, AnotherRunOfTheNodeEndsThisOne) {
  engine_.expect_end = Code::kFenced;
  Raw(RawPut("datawire/n/node", "another run"));
  EXPECT_EQ(Do(PutOp("n/a", "x")).status.code(), Code::kUnavailable);
  EXPECT_TRUE(Eventually([&] { return engine_.ended().load(); }));
  EXPECT_EQ(Do(PutOp("n/a", "x")).status.code(), Code::kUnavailable);
  EXPECT_EQ(ValueOf("n/a"), "none");
}

TEST_F(EtcdTest, AnotherRunEndsOneThatHasNothingToWrite) {
  ASSERT_TRUE(Do(PutOp("n/a", "x")).status.ok());
  engine_.expect_end = Code::kFenced;
  Raw(RawPut("datawire/n/node", "another run"));
  EXPECT_TRUE(Eventually([&] { return engine_.ended().load(); }));
}

TEST_F(EtcdTest, ARecordThatWasChangedBehindItsBackIsFoundAndItBeginsAnew) {
  const uint64_t at = Do(PutOp("n/a", "right")).at.number;
  engine_.log().Announce("alive");
  Raw(RawPut("datawire/alive/other", "alive"));
  ASSERT_TRUE(Eventually(
      [&] { return ValueOf("alive/node") == "alive" && ValueOf("alive/other") == "alive"; }));
  const auto begin = [&](BootClock::duration most) {
    auto promise = std::make_shared<std::promise<Result<Log::Comparison>>>();
    engine_.log().Compare(BootClock::now() + most, [promise](Result<Log::Comparison> found) {
      promise->set_value(std::move(found));
    });
    return promise->get_future();
  };
  const auto alone = begin(1s).get();
  ASSERT_TRUE(alone.ok()) << alone.status().ToString();
  ASSERT_EQ(alone->hashes.size(), 1u);
  EXPECT_EQ(alone->missing, (std::vector<std::string>{"other"}));
  engine_.expect_end = Code::kAborted;
  ASSERT_TRUE(engine_.view()
                  .db()
                  .Put(rocksdb::WriteOptions(), "n/a", EncodeRecord({"n/a", "wrong", at, at}))
                  .ok());
  const auto found = begin(kWait);
  // Another one says something else of each revision, and this one looks into etcd.
  etcd::Client client({SharedEtcd().endpoint()});
  std::string said;
  EXPECT_TRUE(Eventually([&] {
    etcd::api::RangeRequest own;
    own.set_key("datawire/b/hash/node");
    const auto response = client.Range(0, own, 5s);
    if (response.ok() && !response->kvs().empty() && response->kvs(0).value() != said) {
      said = response->kvs(0).value();
      Raw(RawPut("datawire/b/hash/other", std::to_string(std::stoull(said)) + " other"));
    }
    return engine_.ended().load();
  }));
  EXPECT_EQ(Figure("replica_wrong"), 1u);
  engine_.Reopen();
  EXPECT_EQ(ValueOf("n/a"), "right");
}

}  // namespace
}  // namespace datawire::directory
