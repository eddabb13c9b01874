#include <gtest/gtest.h>

#include "world.h"

namespace datawire::scenarios {
namespace {

using std::chrono::seconds;

// A resolver that would like to try again each millisecond, against servers that fail every call
// for 30 s; a hundred calls a second, each of an address of its own.
uint64_t CallsFor30Seconds(World& world, bool with_revision) {
  uint64_t calls = 0;
  for (auto at = milliseconds(10); at <= seconds(30); at += milliseconds(10)) {
    world.Advance(at);
    const Address address = Address::Parse("//d/" + std::to_string(calls++)).value();
    const Revision min{1, with_revision ? 99u : 0u};
    world.With([&] {
      world.core().Resolve(
          address, {.deadline = seconds(2), .min_revision = with_revision ? min : Revision{}},
          [](const resolver::AnswerPtr&) {});
    });
    world.Settle();
  }
  return calls;
}

ResolverPolicy Eager() {
  ResolverPolicy policy;
  policy.reconnect_least = policy.reconnect_most = milliseconds(2);
  policy.retry_least = policy.retry_most = milliseconds(1);
  return policy;
}

// P26: 10 % of the calls and 3 a second; the bucket holds its first second's from the start, and
// the first stream is no retry.
uint64_t Bound(uint64_t calls) {
  return calls + calls / 10 + 3 * (30 + 1) + 1;
}

TEST(ResolverRetries, StayInTheirBudgetWhenStreamsAndCallsFail) {
  World world(Eager(), {"s1", "s2", "s3"});
  world.SetMode("", World::Mode::kDown);
  world.Settle();
  const uint64_t calls = CallsFor30Seconds(world, true);
  EXPECT_EQ(calls, 3000u);
  EXPECT_LE(world.opens + world.unary_calls, Bound(calls));
  EXPECT_GE(world.unary_calls, calls) << "each call has its first attempt";
  const ResolverStats stats = world.core().Stats();
  EXPECT_EQ(stats.attempts, world.opens + world.unary_calls);
  EXPECT_EQ(stats.retries, stats.attempts - calls - 1);
}

TEST(ResolverRetries, StayInTheirBudgetWhenNothingIsAnswered) {
  World world(Eager(), {"s1"});
  world.answers = false;
  const uint64_t calls = CallsFor30Seconds(world, false);
  EXPECT_LE(world.opens + world.asked, Bound(calls));
}

TEST(ResolverRetries, StreamsComeBackWithinTheBudgetOfTime) {
  World world(Eager(), {"s1"});
  world.SetMode("", World::Mode::kDown);
  world.Advance(seconds(30));
  EXPECT_LE(world.opens, 3u * 31 + 1);
  EXPECT_GE(world.opens, 60u);
  world.SetMode("", World::Mode::kUp);
  world.Advance(seconds(31));
  EXPECT_TRUE(world.core().Stats().live);
}

// P14: ten thousand addresses, a hundred thousand answers, the directory away throughout.
TEST(ResolverOutage, EveryAnswerSaysThatItIsStaleAndItsAge) {
  World world({}, {"s1"});
  std::vector<Address> addresses;
  for (int i = 0; i < 10'000; i++) {
    addresses.push_back(Address::Parse("//d/" + std::to_string(i)).value());
    world.Set(addresses.back().text(), {"amqp://a:1"}, false);
  }
  const auto resolve = [&](const Address& address, const datawire::Resolver::Callback& done) {
    world.With([&] { world.core().Resolve(address, {}, done); });
  };
  size_t answers = 0, wrong = 0;
  for (const Address& address : addresses) resolve(address, [](const auto&) {});
  world.Settle();
  world.SetMode("", World::Mode::kDown);
  for (const int at : {6, 20, 40, 60, 120, 300, 3600, 7200, 40'000, 86'000}) {
    world.Advance(seconds(at));
    for (const Address& address : addresses)
      resolve(address, [&](const resolver::AnswerPtr& answer) {
        answers++;
        wrong += answer->status != AnswerStatus::kFound || !answer->stale ||
                 answer->age > seconds(at) || answer->age < seconds(at) - milliseconds(501);
      });
  }
  EXPECT_EQ(answers, 100'000u);
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace datawire::scenarios
