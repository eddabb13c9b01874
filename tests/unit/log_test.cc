#include <filesystem>

#include "datawire/limits.h"
#include "engine/embedded.h"
#include "failing_disc.h"
#include "log_conformance.h"
#include "view_fixture.h"

namespace datawire::directory {
namespace {

using testing_view::TempDir;

/// The embedded engine on a disc that can fail. Crash: a power loss while the engine runs.
class EmbeddedEngine {
 public:
  EmbeddedEngine() {
    NewDisc();
    view_ = View::Create(Path(), {"cluster", 1}, Options()).value();
    log_ = OpenEmbedded(*view_).value();
  }
  /// Opened anew with a wait of that length for who was just answered.
  void ReopenGathering(BootClock::duration gather) {
    Close();
    view_ = View::Open(Path(), Options()).value();
    log_ = OpenEmbedded(*view_, gather).value();
  }
  ~EmbeddedEngine() { Close(); }
  Log& log() { return *log_; }
  View& view() { return *view_; }
  FailingDisc& disc() { return *disc_; }

  void Crash(std::mt19937_64* torn = nullptr) {
    ++generation_;
    disc_->WriteAsAfterPowerLoss(disc_->calls(), torn, Path());
    Close();
    NewDisc();
    Open();
  }
  void Reopen() {
    Close();
    Open();
  }

 private:
  std::string Path() const { return dir_ / ("data" + std::to_string(generation_)); }
  ViewOptions Options() {
    ViewOptions options;
    options.env = env_.get();
    return options;
  }
  void Open() {
    view_ = View::Open(Path(), Options()).value();
    log_ = OpenEmbedded(*view_).value();
  }
  void Close() {
    log_.reset();
    view_.reset();
  }
  void NewDisc() {
    disc_ = std::make_shared<FailingDisc>(Path());
    env_ = rocksdb::NewCompositeEnv(disc_);
  }

  TempDir dir_;
  int generation_ = 0;
  std::shared_ptr<FailingDisc> disc_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<View> view_;
  std::unique_ptr<Log> log_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Embedded, LogConformance, EmbeddedEngine);

class EmbeddedTest : public LogConformance<EmbeddedEngine> {
 protected:
  bool WaitHealthy() {
    const BootTime until = BootClock::now() + kWait;
    while (BootClock::now() < until)
      if (engine_.log().Fresh().healthy) return true;
    return false;
  }
};

TEST_F(EmbeddedTest, AFailedSyncAcknowledgesNothingUntilReopened) {
  const Revision before = Do(PutOp("n/a", "before")).at;
  engine_.disc().FailSync(1);
  // The log may hold it: whether it does shows when the store is reopened.
  EXPECT_EQ(Do(PutOp("n/a", "perhaps")).status.code(), Code::kOutcomeUnknown);
  EXPECT_EQ(engine_.view().Applied(), before);
  EXPECT_EQ(ValueOf("n/a"), "before");
  for (const bool frees_space : {false, true}) {
    Op op = PutOp("n/b", "x");
    op.frees_space = frees_space;
    const Outcome refused = Do(op);
    EXPECT_EQ(refused.status.code(), Code::kUnavailable);
    EXPECT_NE(refused.status.message().find("not written"), std::string::npos);
    EXPECT_NE(refused.status.message().find("reopened"), std::string::npos);
  }
  EXPECT_FALSE(engine_.log().Fresh().healthy);
  EXPECT_FALSE(engine_.log().Fresh().reason.empty());
  engine_.Crash();
  EXPECT_TRUE(engine_.log().Fresh().healthy);
  EXPECT_EQ(ValueOf("n/a"), "before");
  EXPECT_EQ(ValueOf("n/b"), "none");
  EXPECT_EQ(Do(PutOp("n/b", "x")).at.number, before.number + 1);
}

// A write that was never acknowledged lies on the disc in part, or whole.
TEST_F(EmbeddedTest, ATornWriteIsForgottenAndTheStoreOpensWithoutRepair) {
  int whole = 0;
  for (int seed = 0; seed < 20; ++seed) {
    std::mt19937_64 torn(static_cast<uint64_t>(seed));
    const std::string key = "n/" + std::to_string(seed), value(10'000, 'x');
    const Revision before = Do(PutOp(key, "before")).at;
    engine_.disc().fail_syncs = true;  // all: a compaction may come first
    EXPECT_EQ(Do(PutOp(key, value)).status.code(), Code::kOutcomeUnknown);
    engine_.Crash(&torn);
    const bool kept = ValueOf(key) == value;
    whole += kept;
    EXPECT_EQ(ValueOf(key), kept ? value : "before") << seed;
    EXPECT_EQ(engine_.view().Applied().number, before.number + (kept ? 1 : 0)) << seed;
    EXPECT_TRUE(Do(PutOp(key, "after")).status.ok()) << seed;
    engine_.Crash();
    EXPECT_EQ(ValueOf(key), "after") << seed;
  }
  EXPECT_GT(whole, 0);
  EXPECT_LT(whole, 20);
}

TEST_F(EmbeddedTest, WithoutSpaceOnlyOpsThatFreeSomeGoThroughAndItGoesOnByItselfLater) {
  ASSERT_TRUE(Do(PutOp("n/a", "1")).status.ok());
  engine_.disc().SetFree(0);
  for (int i = 0; i < 3; ++i) {
    const Outcome refused = Do(PutOp("n/a", "2"));
    EXPECT_EQ(refused.status.code(), Code::kOverloaded);
    EXPECT_TRUE(refused.status.retry_after().has_value());
    EXPECT_EQ(ValueOf("n/a"), std::to_string(i == 0 ? 1 : i + 9));
    Op withdraw = PutOp("n/a", std::to_string(i + 10));
    withdraw.frees_space = true;
    EXPECT_TRUE(Do(withdraw).status.ok()) << "nothing but the ballast has room for it";
    EXPECT_TRUE(engine_.log().Fresh().healthy);
  }
  engine_.disc().SetFree(1ull << 40);
  EXPECT_TRUE(Do(PutOp("n/a", "5")).status.ok());
  engine_.Crash();
  EXPECT_EQ(ValueOf("n/a"), "5");
}

TEST_F(EmbeddedTest, WithoutAnyRoomNothingGoesThroughUntilThereIsSome) {
  ASSERT_TRUE(Do(PutOp("n/a", "1")).status.ok());
  engine_.disc().SetFree(0);
  Op withdraw = PutOp("n/a", "2");
  withdraw.frees_space = true;
  ASSERT_TRUE(Do(withdraw).status.ok());
  engine_.disc().SetFree(0);  // the ballast too went to others
  EXPECT_EQ(Do(PutOp("n/a", "3")).status.code(), Code::kOverloaded);
  EXPECT_EQ(Do(withdraw).status.code(), Code::kOverloaded);
  EXPECT_FALSE(engine_.log().Fresh().healthy);
  engine_.disc().SetFree(1ull << 40);
  ASSERT_TRUE(WaitHealthy());
  EXPECT_TRUE(Do(PutOp("n/a", "5")).status.ok());
  engine_.Crash();
  EXPECT_EQ(ValueOf("n/a"), "5");
}

TEST_F(EmbeddedTest, BelowTheReserveOnlyOpsThatFreeSpaceGoThrough) {
  ASSERT_TRUE(Do(PutOp("n/a", "1")).status.ok());
  engine_.disc().SetFree(1 << 20);
  const Outcome refused = Do(PutOp("n/a", "2"));
  EXPECT_EQ(refused.status.code(), Code::kOverloaded);
  EXPECT_TRUE(refused.status.retry_after().has_value());
  Op withdraw = PutOp("n/a", "3");
  withdraw.frees_space = true;
  EXPECT_TRUE(Do(withdraw).status.ok());
  EXPECT_TRUE(engine_.log().Fresh().healthy);
}

TEST_F(EmbeddedTest, ThoseAnsweredTogetherAreWrittenTogetherWhenTheyComeAgain) {
  engine_.ReopenGathering(kWait);
  std::vector<std::future<Outcome>> both;
  {
    Hold hold(*this);  // one op, written, about to be answered
    both.push_back(Propose(PutOp("n/a", "x")));
    both.push_back(Propose(PutOp("n/b", "x")));
  }
  for (auto& one : both) EXPECT_TRUE(Wait(std::move(one)).status.ok());
  std::future<Outcome> waits = Propose(PutOp("n/a", "y"));
  EXPECT_EQ(waits.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  const Outcome other = Do(PutOp("n/b", "y"));
  EXPECT_TRUE(other.status.ok());
  EXPECT_EQ(Wait(std::move(waits)).at, other.at);
}

TEST_F(EmbeddedTest, WhoIsAloneDoesNotWaitForOthers) {
  engine_.ReopenGathering(kWait);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Do(PutOp("n/a", "x")).status.ok());
}

TEST_F(EmbeddedTest, WhatWaitsIsWrittenThoughNobodyComesAgain) {
  std::future<Outcome> waits;
  {
    Hold hold(*this);
    waits = Propose(PutOp("n/a", "x"));
  }
  EXPECT_TRUE(Wait(std::move(waits)).status.ok());
}

TEST_F(EmbeddedTest, AFullQueueRefusesAtOnce) {
  std::atomic<size_t> refused{0};
  {
    Hold hold(*this);
    for (size_t i = 0; i < limits::kProposeQueue + 10; ++i)
      engine_.log().Propose({}, BootClock::now() + kWait, [&](const Outcome& outcome) {
        if (outcome.status.code() == Code::kOverloaded) ++refused;
      });
    EXPECT_EQ(refused, 10u);
  }
  const BootTime until = BootClock::now() + kWait;
  Outcome outcome = Do(PutOp("n/a", "x"));
  while (outcome.status.code() == Code::kOverloaded && BootClock::now() < until)
    outcome = Do(PutOp("n/a", "x"));
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(refused, 10u);
}

TEST_F(EmbeddedTest, WhatFreesSpaceGoesThroughWhenTooManyRegistrationsWait) {
  std::atomic<size_t> refused{0}, done{0};
  std::future<Outcome> withdrawn;
  {
    Hold hold(*this);
    for (size_t i = 0; i < limits::kRegisterQueue + 10; ++i)
      engine_.log().Propose(PutOp(Key(static_cast<int>(i % 100)), "x"), BootClock::now() + kWait,
                            [&](const Outcome& outcome) {
                              ++(outcome.status.code() == Code::kOverloaded ? refused : done);
                              if (!outcome.status.ok()) {
                                EXPECT_TRUE(outcome.status.retry_after().has_value());
                              }
                            });
    EXPECT_EQ(refused, 10u);
    Op withdraw = PutOp("n/b", "y");
    withdraw.frees_space = true;
    withdrawn = Propose(withdraw);
  }
  EXPECT_TRUE(Wait(std::move(withdrawn)).status.ok());
  EXPECT_EQ(done, limits::kRegisterQueue);
  EXPECT_TRUE(Do(PutOp("n/a", "x")).status.ok()) << "what was written waits no longer";
}

}  // namespace
}  // namespace datawire::directory
