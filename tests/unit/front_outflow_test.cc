#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "grpc/open_streams.h"
#include "grpc/outflow.h"

namespace datawire::directory {
namespace {

/// A stream whose source, wire and executor are in the test's hands.
class OutflowTest : public testing::Test {
 protected:
  OutflowTest() {
    outflow_ = std::make_shared<Outflow>(Outflow::Actions{
        .pull =
            [this] {
              ++pulls_;
              if (during_pull_) std::exchange(during_pull_, nullptr)();
              if (source_.empty()) return Pulled{};
              Pulled next = std::move(source_.front());
              source_.pop_front();
              return next;
            },
        .write =
            [this](std::string bytes, bool more) {
              written_.push_back(std::move(bytes));
              more_.push_back(more);
            },
        .end = [this](const Status& status) { ends_.push_back(status); },
        .run = [this](std::function<void()> task) { tasks_.push_back(std::move(task)); }});
  }

  void Put(std::string bytes, bool last = false) {
    source_.push_back({.status = Status::Ok(), .bytes = std::move(bytes), .last = last});
  }
  void RunTasks() {
    while (!tasks_.empty()) {
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }
  void Start() {
    outflow_->Start();
    RunTasks();
  }
  void Wake() {
    outflow_->Wake();
    RunTasks();
  }

  std::deque<Pulled> source_;
  std::deque<std::function<void()>> tasks_;
  std::function<void()> during_pull_;
  int pulls_ = 0;
  std::vector<std::string> written_;
  std::vector<bool> more_;
  std::vector<Status> ends_;
  std::shared_ptr<Outflow> outflow_;
};

TEST_F(OutflowTest, PullsNothingBeforeStart) {
  Put("a");
  Wake();
  EXPECT_EQ(pulls_, 0);
  Start();
  EXPECT_EQ(written_, std::vector<std::string>{"a"});
}

TEST_F(OutflowTest, WakeNeverPullsInsideTheCall) {
  Start();
  Put("a");
  outflow_->Wake();
  EXPECT_TRUE(written_.empty());
  RunTasks();
  EXPECT_EQ(written_.size(), 1u);
}

TEST_F(OutflowTest, WhatAMessageIsAnsweredWithAtOnceCostsNoTask) {
  Start();
  outflow_->Hold();
  Put("a");
  outflow_->Wake();
  EXPECT_TRUE(written_.empty());
  outflow_->Release();
  EXPECT_EQ(written_, std::vector<std::string>{"a"});
  EXPECT_TRUE(tasks_.empty());
}

TEST_F(OutflowTest, AWakeOrACloseWhileHeldIsNotLost) {
  outflow_->Hold();
  Put("a");
  outflow_->Wake();
  outflow_->Release();  // before Start, which goes on from here
  EXPECT_TRUE(written_.empty());
  Start();
  EXPECT_EQ(written_, std::vector<std::string>{"a"});
  outflow_->Hold();
  outflow_->Close(Status(Code::kCancelled, "over"));
  outflow_->Release();  // the write is under way
  EXPECT_TRUE(ends_.empty());
  outflow_->Written(true);
  EXPECT_EQ(ends_.size(), 1u);
}

TEST_F(OutflowTest, HasAtMostOneTaskWaiting) {
  Start();
  for (int i = 0; i < 1000; ++i) outflow_->Wake();
  EXPECT_EQ(tasks_.size(), 1u);
}

TEST_F(OutflowTest, WritesOneMessageAtATimeInOrder) {
  Put("a");
  Put("b");
  Start();
  Wake();
  EXPECT_EQ(written_, std::vector<std::string>{"a"});
  outflow_->Written(true);
  EXPECT_EQ(written_, (std::vector<std::string>{"a", "b"}));
}

TEST_F(OutflowTest, PassesOnThatMoreFollows) {
  source_.push_back({.status = Status::Ok(), .bytes = "a", .more = true});
  Put("b");
  Start();
  outflow_->Written(true);
  EXPECT_EQ(more_, (std::vector<bool>{true, false}));
}

TEST_F(OutflowTest, AWakeDuringAPullThatFindsNothingIsNotLost) {
  Start();
  during_pull_ = [this] { outflow_->Wake(); };
  source_.clear();
  const int before = pulls_;
  Wake();
  EXPECT_EQ(pulls_, before + 2);
}

TEST_F(OutflowTest, AWakeDuringAWriteIsServedAfterIt) {
  Put("a");
  Start();
  Put("b");
  Wake();
  outflow_->Written(true);
  EXPECT_EQ(written_.back(), "b");
}

TEST_F(OutflowTest, EndsOnceAfterTheWriteUnderWay) {
  Put("a");
  Start();
  outflow_->Close(Status(Code::kTimeout, "first"));
  outflow_->Close(Status(Code::kInternal, "second"));
  RunTasks();
  EXPECT_TRUE(ends_.empty());
  Put("b");
  outflow_->Written(true);
  ASSERT_EQ(ends_.size(), 1u);
  EXPECT_EQ(ends_[0].message(), "first");
  EXPECT_EQ(written_.size(), 1u);
  Wake();
  EXPECT_EQ(ends_.size(), 1u);
}

TEST_F(OutflowTest, TheLastMessageIsWrittenBeforeTheEnd) {
  Put("a");
  Put("ended", /*last=*/true);
  Put("never");
  Start();
  outflow_->Written(true);
  EXPECT_TRUE(ends_.empty());
  outflow_->Written(true);
  EXPECT_EQ(written_, (std::vector<std::string>{"a", "ended"}));
  ASSERT_EQ(ends_.size(), 1u);
  EXPECT_TRUE(ends_[0].ok());
}

TEST_F(OutflowTest, DrainingWritesWhatIsThereThenEnds) {
  Put("a");
  Start();
  Put("b");
  Put("move");
  outflow_->DrainAndClose(Status(Code::kUnavailable, "stops"));
  RunTasks();
  while (ends_.empty() && written_.size() < 10) outflow_->Written(true);
  EXPECT_EQ(written_, (std::vector<std::string>{"a", "b", "move"}));
  ASSERT_EQ(ends_.size(), 1u);
  EXPECT_EQ(ends_[0].code(), Code::kUnavailable);
}

TEST_F(OutflowTest, DrainingDoesNotUndoAClose) {
  Put("a");
  Put("b");
  Start();
  outflow_->Close(Status(Code::kTimeout, "first"));
  outflow_->DrainAndClose(Status(Code::kUnavailable, "stops"));
  outflow_->Written(true);
  EXPECT_EQ(written_.size(), 1u);
  ASSERT_EQ(ends_.size(), 1u);
  EXPECT_EQ(ends_[0].message(), "first");
}

TEST_F(OutflowTest, APeerThatIsGoneEndsADrainingStream) {
  Put("a");
  Put("b");
  Start();
  outflow_->DrainAndClose(Status(Code::kUnavailable, "stops"));
  outflow_->Written(false);
  RunTasks();
  EXPECT_EQ(written_.size(), 1u);
  EXPECT_EQ(ends_.size(), 1u);
}

TEST_F(OutflowTest, AFailedPullEndsTheStreamWithItsStatus) {
  source_.push_back({.status = Status(Code::kAborted, "again"), .bytes = {}, .last = false});
  Start();
  ASSERT_EQ(ends_.size(), 1u);
  EXPECT_EQ(ends_[0].code(), Code::kAborted);
  EXPECT_TRUE(outflow_->ended());
}

TEST_F(OutflowTest, AStreamIsClosedAtItsLatestDeadlineAndOnlyOnce) {
  OpenStreams streams;
  const BootTime start{};
  ASSERT_TRUE(streams.Add(Verb::kTether, outflow_));
  Start();
  const auto tick = [&](int seconds) {
    streams.Tick(start + std::chrono::seconds(seconds));
    RunTasks();
    return ends_.size();
  };
  streams.SetDeadline(outflow_.get(), start + std::chrono::seconds(1), Status::Ok());
  streams.ClearDeadline(outflow_.get());
  EXPECT_EQ(tick(5), 0u);
  streams.SetDeadline(outflow_.get(), start + std::chrono::seconds(6), Status::Ok());
  streams.SetDeadline(outflow_.get(), start + std::chrono::seconds(9),
                      Status(Code::kTimeout, "late"));
  EXPECT_EQ(tick(8), 0u);
  EXPECT_EQ(tick(9), 1u);
  EXPECT_EQ(tick(10), 1u);
  EXPECT_EQ(ends_.front().code(), Code::kTimeout);
  streams.SetDeadline(outflow_.get(), start + std::chrono::seconds(20), Status::Ok());
  streams.Remove(outflow_.get());
  EXPECT_EQ(tick(30), 1u);
}

}  // namespace
}  // namespace datawire::directory
