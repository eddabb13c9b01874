// P18 with the real resolvers: 10,000 of them lose their one directory and come back.

#include <gtest/gtest.h>

#include <cstdio>
#include <deque>

#include "world.h"

namespace datawire::sim {
namespace {

TEST(Crowd, TenThousandResolversComeBackAtAPaceAndAreAllCurrentWithinAMinute) {
  constexpr size_t kCrowd = 10'000;
  World world(18, false, {.services = 3, .resolvers = kCrowd, .watchers = 0});
  Scheduler& scheduler = world.scheduler;
  DirectoryNode& node = world.leader();
  world.Start();
  world.DemandSettled(60s);
  ASSERT_FALSE(scheduler.failed()) << scheduler.failure();

  node.Crash(false);
  world.RunFor(5s);
  const uint64_t asked_before = node.streams_asked, begun_before = node.streams_begun;
  const Time start = scheduler.now();
  node.Start();

  struct Look {
    Time at;
    uint64_t asked, begun;
  };
  std::deque<Look> looks{{start, asked_before, begun_before}};  // of the last second
  uint64_t most_asked = 0, most_begun = 0;
  while (node.streams_begun - begun_before < kCrowd && scheduler.now() < start + 60s) {
    world.RunFor(50ms);
    ASSERT_FALSE(scheduler.failed()) << scheduler.failure();
    looks.push_back({scheduler.now(), node.streams_asked, node.streams_begun});
    while (looks.front().at + 1s < scheduler.now()) looks.pop_front();
    most_asked = std::max(most_asked, looks.back().asked - looks.front().asked);
    most_begun = std::max(most_begun, looks.back().begun - looks.front().begun);
  }
  const double begun_after = std::chrono::duration<double>(scheduler.now() - start).count();
  std::string unsettled = world.Unsettled();
  while (!unsettled.empty() && scheduler.now() < start + 60s) {
    world.RunFor(500ms);
    unsettled = world.Unsettled();
  }
  const double current_after = std::chrono::duration<double>(scheduler.now() - start).count();
  std::printf(
      "10,000 resolvers: all have a stream %.1f s after the restart, all are current after %.1f s; "
      "%lu streams asked for, in the worst second %lu, of which begun at most %lu\n",
      begun_after, current_after, node.streams_asked - asked_before, most_asked, most_begun);
  RecordProperty("current_after_seconds", std::to_string(current_after));  // for tests/bench/run
  EXPECT_EQ(unsettled, "");
  EXPECT_LE(most_begun, 500u);
  EXPECT_EQ(world.oracle->expired(), 0u);
  ASSERT_FALSE(scheduler.failed()) << scheduler.failure();
}

}  // namespace
}  // namespace datawire::sim
