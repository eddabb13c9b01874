#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/log.h"
#include "view/view.h"

namespace datawire::directory {

/// What every engine promises of Log. `Engine` is default-constructible and has `Log& log()`,
/// `View& view()` and `void Crash()`: all that was not acknowledged may be gone, the engine is up
/// again.
template <typename Engine>
class LogConformance : public ::testing::Test {
 public:
  static constexpr std::chrono::seconds kWait{20};

  std::future<Outcome> Propose(Op op) {
    auto promise = std::make_shared<std::promise<Outcome>>();
    engine_.log().Propose(std::move(op), BootClock::now() + kWait,
                          [promise](const Outcome& outcome) { promise->set_value(outcome); });
    return promise->get_future();
  }
  static Outcome Wait(std::future<Outcome> future) {
    if (future.wait_for(kWait) == std::future_status::ready) return future.get();
    Outcome out;
    out.status = Status(Code::kTimeout, "no outcome");
    return out;
  }
  Outcome Do(Op op) { return Wait(Propose(std::move(op))); }

  static Op PutOp(const std::string& key, const std::string& value) {
    Op op;
    op.changes = {{false, key, value}};
    return op;
  }
  static std::string Key(int i) { return "n/key" + std::to_string(i); }
  std::string ValueOf(const std::string& key) {
    const auto record = engine_.view().Get(key);
    return record.ok() && *record ? (*record)->value : "none";
  }

  /// Keeps the engine's thread in a done callback, so that what is proposed meanwhile queues up.
  class Hold {
   public:
    explicit Hold(LogConformance& test) {
      Op op = PutOp("n/hold", "x");
      test.engine_.log().Propose(std::move(op), BootClock::now() + kWait, [this](const Outcome&) {
        held_.set_value();
        release_.get_future().wait_for(kWait);
        left_.set_value();
      });
      held_.get_future().wait_for(kWait);
    }
    ~Hold() { Release(); }
    void Release() {
      if (std::exchange(released_, true)) return;
      release_.set_value();
      left_.get_future().wait_for(kWait);
    }

   private:
    std::promise<void> held_, release_, left_;
    bool released_ = false;
  };

 protected:
  Engine engine_;
};

TYPED_TEST_SUITE_P(LogConformance);

TYPED_TEST_P(LogConformance, ACommitIsVisibleWhenItIsAcknowledged) {
  for (int i = 0; i < 20; ++i) {
    const Outcome outcome = this->Do(this->PutOp("n/a", std::to_string(i)));
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
    EXPECT_GE(this->engine_.view().Applied(), outcome.at);
    EXPECT_EQ(this->ValueOf("n/a"), std::to_string(i));
  }
}

TYPED_TEST_P(LogConformance, RecordsKeepTheRevisionsOfCreationAndLastChange) {
  const Revision first = this->Do(this->PutOp("n/a", "1")).at;
  const Revision second = this->Do(this->PutOp("n/a", "2")).at;
  EXPECT_LT(first, second);
  auto record = this->engine_.view().Get("n/a").value();
  EXPECT_EQ(record->created, first.number);
  EXPECT_EQ(record->modified, second.number);
  Op erase;
  erase.changes = {{true, "n/a", ""}};
  this->Do(erase);
  EXPECT_EQ(this->ValueOf("n/a"), "none");
  const Revision third = this->Do(this->PutOp("n/a", "3")).at;
  EXPECT_EQ(this->engine_.view().Get("n/a").value()->created, third.number);
}

TYPED_TEST_P(LogConformance, AnOpWithAGuardThatFailsWritesNothingAndReadsBack) {
  const Revision at = this->Do(this->PutOp("n/a", "1")).at;
  const auto expect = [&](Guard guard, bool holds) {
    Op op = this->PutOp("n/b", "new");
    op.guards = {guard};
    op.read_on_failure = "n/a";
    const Outcome outcome = this->Do(op);
    EXPECT_EQ(outcome.status.code(), holds ? Code::kOk : Code::kConflict) << int{guard.is};
    EXPECT_EQ(this->ValueOf("n/b"), holds ? "new" : "none") << int{guard.is};
    if (!holds) {
      ASSERT_EQ(outcome.read.size(), 1u);
      EXPECT_EQ(outcome.read[0].value, "1");
      EXPECT_EQ(outcome.read[0].modified, at.number);
      EXPECT_GE(outcome.at, at);
    }
    Op erase;
    erase.changes = {{true, "n/b", ""}};
    this->Do(erase);
  };
  expect({Guard::kAbsent, "n/a"}, false);
  expect({Guard::kAbsent, "n/none"}, true);
  expect({Guard::kExists, "n/a"}, true);
  expect({Guard::kExists, "n/none"}, false);
  expect({Guard::kModEquals, "n/a", at.number}, true);
  expect({Guard::kModEquals, "n/a", at.number - 1}, false);
  expect({Guard::kModEquals, "n/none", 0}, false);
  expect({Guard::kCreateEquals, "n/a", at.number}, true);
  expect({Guard::kCreateEquals, "n/a", at.number + 1}, false);
}

TYPED_TEST_P(LogConformance, FiftyChangesAreAllOrNothingInOneRevision) {
  Op op;
  for (int i = 0; i < 50; ++i) op.changes.push_back({false, this->Key(i), "x"});
  op.guards = {{Guard::kAbsent, this->Key(49)}};
  const Outcome done = this->Do(op);
  ASSERT_TRUE(done.status.ok());
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(this->engine_.view().Get(this->Key(i)).value()->modified, done.at.number);
  for (Change& change : op.changes) change.value = "y";
  op.guards = {{Guard::kExists, this->Key(0)}, {Guard::kAbsent, this->Key(49)}};  // all must hold
  EXPECT_EQ(this->Do(op).status.code(), Code::kConflict);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(this->ValueOf(this->Key(i)), "x");
}

TYPED_TEST_P(LogConformance, WhatIsQueuedSharesOneRevision) {
  std::vector<std::future<Outcome>> futures;
  {
    typename TestFixture::Hold hold(*this);
    for (int i = 0; i < 100; ++i) futures.push_back(this->Propose(this->PutOp(this->Key(i), "x")));
  }
  Revision at;
  for (auto& future : futures) {
    const Outcome outcome = this->Wait(std::move(future));
    ASSERT_TRUE(outcome.status.ok());
    if (at == Revision{}) at = outcome.at;
    EXPECT_EQ(outcome.at, at);
  }
}

TYPED_TEST_P(LogConformance, WhoGathersWhatDonesSayIsCalledAfterThem) {
  struct Seen {
    std::atomic<int> gathered{0}, called{0};
    std::promise<void> all;
  };
  const auto seen = std::make_shared<Seen>();
  this->engine_.log().SetAfterGroup([seen] {
    ++seen->called;
    if (seen->gathered.exchange(0) == 100) seen->all.set_value();
  });
  {
    typename TestFixture::Hold hold(*this);
    for (int i = 0; i < 100; ++i)
      this->engine_.log().Propose(this->PutOp(this->Key(i), "x"), BootClock::now() + this->kWait,
                                  [seen](const Outcome&) { ++seen->gathered; });
  }
  ASSERT_EQ(seen->all.get_future().wait_for(this->kWait), std::future_status::ready);
  // Refused at once, on this thread.
  const int before = seen->called;
  bool refused = false;
  this->engine_.log().Propose(this->PutOp("", "x"), BootClock::now() + this->kWait,
                              [&](const Outcome& outcome) { refused = !outcome.status.ok(); });
  EXPECT_TRUE(refused);
  EXPECT_EQ(seen->called, before + 1);
}

TYPED_TEST_P(LogConformance, AnOpOnAKeyOfTheFormingGroupWaitsForTheNextAndSeesIt) {
  std::vector<std::future<Outcome>> futures;
  {
    typename TestFixture::Hold hold(*this);
    for (int i = 0; i < 3; ++i) {
      Op op = this->PutOp("n/same", std::to_string(i));
      op.guards = {{Guard::kAbsent, "n/same"}};
      op.read_on_failure = "n/same";
      futures.push_back(this->Propose(op));
    }
    Op guarded = this->PutOp("n/other", "x");
    guarded.guards = {{Guard::kExists, "n/same"}};
    futures.push_back(this->Propose(guarded));
  }
  EXPECT_TRUE(this->Wait(std::move(futures[0])).status.ok());
  for (int i = 1; i < 3; ++i) {
    const Outcome lost = this->Wait(std::move(futures[i]));
    EXPECT_EQ(lost.status.code(), Code::kConflict);
    ASSERT_EQ(lost.read.size(), 1u);
    EXPECT_EQ(lost.read[0].value, "0");
  }
  EXPECT_TRUE(this->Wait(std::move(futures[3])).status.ok());
}

TYPED_TEST_P(LogConformance, AnOpWithARefusedGuardDoesNotDisturbItsGroup) {
  std::future<Outcome> refused, taken;
  {
    typename TestFixture::Hold hold(*this);
    Op op = this->PutOp("n/a", "refused");
    op.guards = {{Guard::kExists, "n/none"}};
    refused = this->Propose(op);
    taken = this->Propose(this->PutOp("n/a", "taken"));
  }
  EXPECT_EQ(this->Wait(std::move(refused)).status.code(), Code::kConflict);
  EXPECT_TRUE(this->Wait(std::move(taken)).status.ok());
  EXPECT_EQ(this->ValueOf("n/a"), "taken");
}

TYPED_TEST_P(LogConformance, OneThreadsOpsCommitInItsOrder) {
  constexpr int kThreads = 4, kOps = 60;
  std::vector<std::thread> threads;
  std::vector<std::vector<Revision>> revisions(kThreads);
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      std::vector<std::future<Outcome>> futures;
      for (int i = 0; i < kOps; ++i)  // every third on a key that all threads write
        futures.push_back(this->Propose(
            this->PutOp(i % 3 == 0 ? "n/shared" : this->Key(t * kOps + i), std::to_string(i))));
      for (auto& future : futures) revisions[t].push_back(this->Wait(std::move(future)).at);
    });
  for (auto& thread : threads) thread.join();
  for (const auto& of_thread : revisions) {
    ASSERT_EQ(of_thread.size(), static_cast<size_t>(kOps));
    EXPECT_TRUE(std::is_sorted(of_thread.begin(), of_thread.end()));
  }
}

TYPED_TEST_P(LogConformance, AReadBarrierIsNotOlderThanWhatWasAcknowledged) {
  const Revision at = this->Do(this->PutOp("n/a", "1")).at;
  std::promise<Result<Revision>> promise;
  this->engine_.log().ReadBarrier(BootClock::now() + this->kWait,
                                  [&](Result<Revision> r) { promise.set_value(std::move(r)); });
  auto barrier = promise.get_future().get();
  ASSERT_TRUE(barrier.ok());
  EXPECT_GE(*barrier, at);
  EXPECT_GE(this->engine_.view().Applied(), *barrier);
}

TYPED_TEST_P(LogConformance, WhatWasAcknowledgedSurvivesACrash) {
  std::vector<std::pair<std::string, Revision>> acknowledged;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::future<Outcome>> futures;
    for (int i = 0; i < 30; ++i)
      futures.push_back(this->Propose(this->PutOp(this->Key(round * 30 + i), "x")));
    for (int i = 0; i < 30; ++i) {
      const Outcome outcome = this->Wait(std::move(futures[i]));
      ASSERT_TRUE(outcome.status.ok());
      acknowledged.emplace_back(this->Key(round * 30 + i), outcome.at);
    }
    this->engine_.Crash();
    for (const auto& [key, at] : acknowledged) {
      const auto record = this->engine_.view().Get(key).value();
      ASSERT_TRUE(record) << key;
      EXPECT_EQ(record->modified, at.number);
    }
    EXPECT_GE(this->engine_.view().Applied(), acknowledged.back().second);
  }
}

TYPED_TEST_P(LogConformance, BadOpsAreRefusedAndChangeNothing) {
  const Revision before = this->engine_.view().Applied();
  const auto refused = [&](Op op) { return this->Do(std::move(op)).status.code(); };
  EXPECT_EQ(refused(this->PutOp("r/derived", "x")), Code::kInvalid);
  EXPECT_EQ(refused(this->PutOp("m/applied", "x")), Code::kInvalid);
  EXPECT_EQ(refused(this->PutOp("n/" + std::string(2000, 'k'), "x")), Code::kInvalid);
  EXPECT_EQ(refused(this->PutOp("n/a", std::string(17 * 1024, 'v'))), Code::kInvalid);
  Op twice = this->PutOp("n/a", "1");
  twice.changes.push_back({false, "n/a", "2"});
  EXPECT_EQ(refused(twice), Code::kInvalid);
  EXPECT_EQ(this->engine_.view().Applied(), before);
}

TYPED_TEST_P(LogConformance, AnOpPastItsDeadlineIsNotWritten) {
  std::promise<Outcome> promise;
  this->engine_.log().Propose(this->PutOp("n/late", "x"),
                              BootClock::now() - std::chrono::seconds(1),
                              [&](const Outcome& outcome) { promise.set_value(outcome); });
  EXPECT_EQ(promise.get_future().get().status.code(), Code::kUnavailable);
  EXPECT_EQ(this->ValueOf("n/late"), "none");
}

TYPED_TEST_P(LogConformance, StopFinishesWhatIsQueuedAndRefusesTheRest) {
  std::vector<std::future<Outcome>> futures;
  for (int i = 0; i < 20; ++i) futures.push_back(this->Propose(this->PutOp(this->Key(i), "x")));
  this->engine_.log().Stop();
  for (auto& future : futures) EXPECT_TRUE(this->Wait(std::move(future)).status.ok());
  EXPECT_EQ(this->Do(this->PutOp("n/a", "x")).status.code(), Code::kUnavailable);
  this->engine_.log().Stop();
}

TYPED_TEST_P(LogConformance, AnIdleEngineIsFresh) {
  this->Do(this->PutOp("n/a", "x"));
  const BootTime before = BootClock::now();
  Log::Freshness fresh = this->engine_.log().Fresh();
  while (fresh.fresh_as_of < before && BootClock::now() - before < this->kWait)
    fresh = this->engine_.log().Fresh();
  EXPECT_TRUE(fresh.healthy);
  EXPECT_GE(fresh.fresh_as_of, before);
}

REGISTER_TYPED_TEST_SUITE_P(LogConformance, ACommitIsVisibleWhenItIsAcknowledged,
                            RecordsKeepTheRevisionsOfCreationAndLastChange,
                            AnOpWithAGuardThatFailsWritesNothingAndReadsBack,
                            FiftyChangesAreAllOrNothingInOneRevision, WhatIsQueuedSharesOneRevision,
                            WhoGathersWhatDonesSayIsCalledAfterThem,
                            AnOpOnAKeyOfTheFormingGroupWaitsForTheNextAndSeesIt,
                            AnOpWithARefusedGuardDoesNotDisturbItsGroup,
                            OneThreadsOpsCommitInItsOrder,
                            AReadBarrierIsNotOlderThanWhatWasAcknowledged,
                            WhatWasAcknowledgedSurvivesACrash, BadOpsAreRefusedAndChangeNothing,
                            AnOpPastItsDeadlineIsNotWritten,
                            StopFinishesWhatIsQueuedAndRefusesTheRest, AnIdleEngineIsFresh);

}  // namespace datawire::directory
