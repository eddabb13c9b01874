#include <filesystem>

#include "datawire/limits.h"
#include "engine/embedded.h"
#include "failing_disc.h"
#include "log_conformance.h"
#include "view_fixture.h"

namespace datawire::directory {
namespace {

using testing_view::TempDir;

/// The embedded engine on a disc that can fail. Crash: a power loss, on a copy of the files as they
/// are while the engine runs.
class EmbeddedEngine {
 public:
  EmbeddedEngine() {
    view_ = View::Create(Path(), {"cluster", 1}, Options()).value();
    log_ = OpenEmbedded(*view_).value();
  }
  ~EmbeddedEngine() { Close(); }
  Log& log() { return *log_; }
  View& view() { return *view_; }
  FailingDisc& disc() { return *disc_; }

  void Crash(uint64_t torn = 0) {
    const std::string from = Path();
    ++generation_;
    disc_->CopyAsAfterPowerLoss(from, Path(), torn);
    Close();
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

  TempDir dir_;
  int generation_ = 0;
  std::shared_ptr<FailingDisc> disc_ = std::make_shared<FailingDisc>();
  std::unique_ptr<rocksdb::Env> env_ = rocksdb::NewCompositeEnv(disc_);
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
  const Revision before = Do(PutOp("p/a", "before")).at;
  engine_.disc().fail_syncs = true;
  EXPECT_EQ(Do(PutOp("p/a", "lost")).status.code(), Code::kUnavailable);
  EXPECT_EQ(engine_.view().Applied(), before);
  EXPECT_EQ(ValueOf("p/a"), "before");
  engine_.disc().fail_syncs = false;
  const Outcome refused = Do(PutOp("p/b", "x"));
  EXPECT_EQ(refused.status.code(), Code::kUnavailable);
  EXPECT_NE(refused.status.message().find("reopened"), std::string::npos);
  EXPECT_FALSE(engine_.log().Fresh().healthy);
  EXPECT_FALSE(engine_.log().Fresh().reason.empty());
  engine_.Reopen();
  EXPECT_TRUE(engine_.log().Fresh().healthy);
  EXPECT_TRUE(Do(PutOp("p/b", "x")).status.ok());
}

// A write that was never acknowledged lies half on the disc, in the midst of a log that is longer
// than what was written to it.
TEST_F(EmbeddedTest, ATornWriteIsForgottenAndTheStoreOpensWithoutRepair) {
  for (const uint64_t torn : {1u, 7u, 40u, 4096u}) {
    const std::string key = "p/" + std::to_string(torn);
    const Revision before = Do(PutOp(key, "before")).at;
    engine_.disc().fail_syncs = true;
    EXPECT_EQ(Do(PutOp(key, std::string(10'000, 'x'))).status.code(), Code::kUnavailable);
    engine_.disc().fail_syncs = false;
    engine_.Crash(torn);
    EXPECT_EQ(ValueOf(key), "before") << torn;
    EXPECT_EQ(engine_.view().Applied(), before) << torn;
    EXPECT_TRUE(Do(PutOp(key, "after")).status.ok()) << torn;
    engine_.Crash();
    EXPECT_EQ(ValueOf(key), "after") << torn;
  }
}

TEST_F(EmbeddedTest, WithoutSpaceItRefusesAndGoesOnByItselfLater) {
  ASSERT_TRUE(Do(PutOp("p/a", "1")).status.ok());
  engine_.disc().no_space = true;
  EXPECT_EQ(Do(PutOp("p/a", "2")).status.code(), Code::kOverloaded);
  EXPECT_EQ(Do(PutOp("p/a", "3")).status.code(), Code::kOverloaded);
  Op withdraw = PutOp("p/a", "4");
  withdraw.frees_space = true;
  EXPECT_EQ(Do(withdraw).status.code(), Code::kUnavailable);
  EXPECT_EQ(ValueOf("p/a"), "1");
  engine_.disc().no_space = false;
  ASSERT_TRUE(WaitHealthy());
  EXPECT_TRUE(Do(PutOp("p/a", "5")).status.ok());
  engine_.Crash();
  EXPECT_EQ(ValueOf("p/a"), "5");
}

TEST_F(EmbeddedTest, BelowTheReserveOnlyOpsThatFreeSpaceGoThrough) {
  engine_.disc().free_bytes = 1000;
  engine_.Reopen();
  const Outcome refused = Do(PutOp("p/a", "1"));
  EXPECT_EQ(refused.status.code(), Code::kOverloaded);
  EXPECT_TRUE(refused.status.retry_after().has_value());
  Op withdraw = PutOp("p/a", "2");
  withdraw.frees_space = true;
  EXPECT_TRUE(Do(withdraw).status.ok());
  EXPECT_TRUE(engine_.log().Fresh().healthy);
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
  Outcome outcome = Do(PutOp("p/a", "x"));
  while (outcome.status.code() == Code::kOverloaded && BootClock::now() < until)
    outcome = Do(PutOp("p/a", "x"));
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(refused, 10u);
}

}  // namespace
}  // namespace datawire::directory
