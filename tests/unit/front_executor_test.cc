#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

#include "datawire/limits.h"
#include "grpc/executor.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;
using Class = Executor::Class;

constexpr BootTime kNever = BootTime::max();

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
  Executor executor(2);
  Blocker list;
  executor.Offer(Class::kList, kNever, list.Offered());
  list.AwaitBegun();
  std::atomic<bool> second{false};
  executor.Offer(Class::kList, kNever, [&](const Status&) { second = true; });
  for (int i = 0; i < 100; ++i) {
    std::promise<void> done;
    executor.Post([&] { done.set_value(); });
    ASSERT_EQ(done.get_future().wait_for(20s), std::future_status::ready) << "behind a list";
  }
  EXPECT_FALSE(second) << "two lists at once leave nobody for what is urgent";
  list.release.set_value();
}

TEST(ExecutorTest, TheMoreUrgentClassGoesFirstAndPostedTasksBeforeBoth) {
  Executor executor(2);
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
    if (order.size() == 3) last.set_value();
  };
  executor.Offer(Class::kList, kNever, [&](const Status&) { note("list"); });
  executor.Offer(Class::kResolve, kNever, [&](const Status&) { note("resolve"); });
  executor.Post([&] { note("posted"); });
  one.release.set_value();  // the other thread stays away: one after the other
  ASSERT_EQ(last.get_future().wait_for(20s), std::future_status::ready);
  EXPECT_EQ(order, (std::vector<std::string>{"posted", "resolve", "list"}));
  two.release.set_value();
}

TEST(ExecutorTest, AFullClassRefusesAtOnceWithARetryAfterAndTheOtherGoesOn) {
  Executor executor(2);
  Blocker list;
  executor.Offer(Class::kList, kNever, list.Offered());
  list.AwaitBegun();
  std::atomic<size_t> ran{0};
  for (size_t i = 0; i < limits::kListQueue; ++i)
    executor.Offer(Class::kList, kNever, [&](const Status& status) { ran += status.ok(); });
  Status refused;
  executor.Offer(Class::kList, kNever, [&](const Status& status) { refused = status; });
  EXPECT_EQ(refused.code(), Code::kOverloaded);
  EXPECT_TRUE(refused.retry_after().has_value());
  EXPECT_EQ(executor.shed(Class::kList), 1u);
  std::promise<Status> resolved;
  executor.Offer(Class::kResolve, kNever,
                 [&](const Status& status) { resolved.set_value(status); });
  EXPECT_EQ(executor.shed(Class::kResolve), 0u);
  list.release.set_value();
  EXPECT_TRUE(resolved.get_future().get().ok());
  std::promise<void> done;
  executor.Offer(Class::kList, kNever, [&](const Status&) { done.set_value(); });
  done.get_future().wait();
  EXPECT_EQ(ran, limits::kListQueue);
}

TEST(ExecutorTest, WhatComesToItsTurnTooLateIsDropped) {
  Executor executor(2);
  Blocker list;
  executor.Offer(Class::kList, kNever, list.Offered());
  list.AwaitBegun();
  std::promise<Status> late;
  executor.Offer(Class::kList, BootClock::now() - 1ms,
                 [&](const Status& status) { late.set_value(status); });
  list.release.set_value();
  EXPECT_EQ(late.get_future().get().code(), Code::kTimeout);
  EXPECT_EQ(executor.shed(Class::kList), 1u);
}

TEST(ExecutorTest, StopRunsWhatIsPostedAndRefusesWhatIsOffered) {
  Executor executor(2);
  Blocker one, two;
  executor.Post(one.Task());
  executor.Post(two.Task());
  one.AwaitBegun();
  two.AwaitBegun();
  std::atomic<bool> posted{false};
  std::promise<Status> told;
  executor.Offer(Class::kList, kNever, [&](const Status& status) { told.set_value(status); });
  executor.Post([&] { posted = true; });
  std::thread stop([&] { executor.Stop(); });
  Status offered = told.get_future().get();
  one.release.set_value();
  two.release.set_value();
  stop.join();
  EXPECT_TRUE(posted);
  EXPECT_EQ(offered.code(), Code::kUnavailable);
  offered = Status::Ok();
  executor.Offer(Class::kList, kNever, [&](const Status& status) { offered = status; });
  EXPECT_EQ(offered.code(), Code::kUnavailable);
}

}  // namespace
}  // namespace datawire::directory
