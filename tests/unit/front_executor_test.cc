#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

#include "grpc/executor.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;
constexpr BootTime kNever = BootTime::max();
constexpr ExecutorOptions kTwo{.threads = 2, .offered_threads = 1, .queue = 64, .what = "lists"};

/// A task that stays on its thread until it is let go.
struct Blocker {
  std::promise<void> begun, release;
  std::shared_future<void> released = release.get_future().share();
  std::function<void()> Task() {
    return [this] {
      begun.set_value();
      released.wait();
    };
  }
  std::function<void(const Status&)> Offered() {
    return [task = Task()](const Status&) { task(); };
  }
  void AwaitBegun() { ASSERT_EQ(begun.get_future().wait_for(20s), std::future_status::ready); }
};

TEST(ExecutorTest, ListsNeverTakeTheLastThread) {
  Executor executor(kTwo);
  Blocker list;
  executor.Offer(kNever, list.Offered());
  list.AwaitBegun();
  std::atomic<bool> second{false};
  executor.Offer(kNever, [&](const Status&) { second = true; });
  for (int i = 0; i < 100; ++i) {
    std::promise<void> done;
    executor.Post([&] { done.set_value(); });
    ASSERT_EQ(done.get_future().wait_for(20s), std::future_status::ready) << "behind a list";
  }
  EXPECT_FALSE(second) << "two lists at once leave nobody for what is urgent";
  list.release.set_value();
  executor.Stop();  // before what its tasks use
}

TEST(ExecutorTest, PostedTasksGoBeforeOfferedOnes) {
  Executor executor(kTwo);
  Blocker one, two;
  executor.Post(one.Task());
  executor.Post(two.Task());
  one.AwaitBegun();
  two.AwaitBegun();
  std::mutex mutex;
  std::vector<std::string> order;
  std::promise<void> last;
  const auto note = [&](const char* what) {
    const std::lock_guard lock(mutex);
    order.push_back(what);
    if (order.size() == 2) last.set_value();
  };
  executor.Offer(kNever, [&](const Status&) { note("offered"); });
  executor.Post([&] { note("posted"); });
  one.release.set_value();  // the other thread stays away: one after the other
  ASSERT_EQ(last.get_future().wait_for(20s), std::future_status::ready);
  EXPECT_EQ(order, (std::vector<std::string>{"posted", "offered"}));
  two.release.set_value();
  executor.Stop();  // before what its tasks use
}

/// Fills the queue behind `list`; how many of it ran.
std::shared_ptr<std::atomic<size_t>> FillBehind(Executor& executor, Blocker& list) {
  auto ran = std::make_shared<std::atomic<size_t>>(0);
  executor.Offer(kNever, list.Offered());
  list.AwaitBegun();
  for (size_t i = 0; i < kTwo.queue; ++i)
    executor.Offer(kNever, [ran](const Status& status) { *ran += status.ok(); });
  return ran;
}

TEST(ExecutorTest, AFullQueueRefusesWithARetryAfterAndTakesOthersOnceThereIsRoom) {
  Executor executor(kTwo);
  Blocker list;
  const auto ran = FillBehind(executor, list);
  Status refused;
  executor.Offer(kNever, [&](const Status& status) { refused = status; });
  EXPECT_EQ(refused.code(), Code::kOverloaded);
  EXPECT_TRUE(refused.retry_after().has_value());
  EXPECT_EQ(executor.shed(), 1u);
  list.release.set_value();
  while (*ran < kTwo.queue) std::this_thread::yield();
  std::promise<Status> done;
  executor.Offer(kNever, [&](const Status& status) { done.set_value(status); });
  EXPECT_TRUE(done.get_future().get().ok());
  executor.Stop();  // before what its tasks use
}

TEST(ExecutorTest, WhoComesAgainAtOnceIsRefusedAtAPace) {
  Executor executor(kTwo);
  Blocker list;
  const auto ran = FillBehind(executor, list);
  std::atomic<int> refusals{0};
  std::atomic<bool> stop{false};
  std::function<void(const Status&)> again = [&](const Status& status) {
    ++refusals;
    if (!stop && status.code() == Code::kOverloaded) executor.Offer(kNever, again);
  };
  const BootTime start = BootClock::now();
  for (int i = 0; i < 10; ++i) executor.Offer(kNever, again);
  while (refusals < 400 && BootClock::now() < start + 20s) std::this_thread::yield();
  stop = true;
  EXPECT_GE(refusals, 400) << "they are told all the same";
  EXPECT_GE(BootClock::now() - start, 250ms) << "100 at once, then one a millisecond";
  list.release.set_value();
  executor.Stop();
}

TEST(ExecutorTest, WhoWouldComeToItsTurnTooLateIsRefusedAtOnce) {
  Executor executor(kTwo);
  std::promise<void> slow;
  executor.Offer(kNever, [&](const Status&) {
    const BootTime until = BootClock::now() + 40ms;
    while (BootClock::now() < until) std::this_thread::yield();
    slow.set_value();
  });
  slow.get_future().wait();  // from here on one takes at least 5 ms, by the mean
  Blocker list;
  executor.Offer(kNever, list.Offered());
  list.AwaitBegun();
  for (int i = 0; i < 20; ++i) executor.Offer(kNever, [](const Status&) {});
  Status status;
  executor.Offer(BootClock::now() + 20ms, [&](const Status& told) { status = told; });
  EXPECT_EQ(status.code(), Code::kOverloaded) << "20 wait, of 5 ms each";
  list.release.set_value();
  executor.Stop();  // before what its tasks use
}

TEST(ExecutorTest, WhatComesToItsTurnTooLateIsDropped) {
  Executor executor(kTwo);
  Blocker list;
  executor.Offer(kNever, list.Offered());
  list.AwaitBegun();
  std::promise<Status> late;
  const BootTime deadline = BootClock::now() + 20ms;
  executor.Offer(deadline, [&](const Status& status) { late.set_value(status); });
  while (BootClock::now() < deadline) std::this_thread::yield();
  list.release.set_value();
  EXPECT_EQ(late.get_future().get().code(), Code::kTimeout);
  EXPECT_EQ(executor.shed(), 1u);
  executor.Stop();  // before what its tasks use
}

TEST(ExecutorTest, StopRunsWhatIsPostedAndRefusesWhatIsOffered) {
  Executor executor(kTwo);
  Blocker one, two;
  executor.Post(one.Task());
  executor.Post(two.Task());
  one.AwaitBegun();
  two.AwaitBegun();
  std::atomic<bool> posted{false};
  std::promise<Status> told;
  executor.Offer(kNever, [&](const Status& status) { told.set_value(status); });
  executor.Post([&] { posted = true; });
  std::thread stop([&] { executor.Stop(); });
  Status offered = told.get_future().get();
  one.release.set_value();
  two.release.set_value();
  stop.join();
  EXPECT_TRUE(posted);
  EXPECT_EQ(offered.code(), Code::kUnavailable);
  offered = Status::Ok();
  executor.Offer(kNever, [&](const Status& status) { offered = status; });
  EXPECT_EQ(offered.code(), Code::kUnavailable);
}

}  // namespace
}  // namespace datawire::directory
