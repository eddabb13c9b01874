#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <sstream>
#include <thread>

#include "datawire/clock.h"
#include "datawire/resolver.h"
#include "fake_directory.h"

namespace datawire {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeDirectory;

const char kUrl[] = "amqp://127.0.0.1:1001";

Address A(int i) {
  return Address::Parse("//d/" + std::to_string(i)).value();
}

std::unique_ptr<Resolver> OpenOn(const FakeDirectory& fake, ResolverPolicy policy = {}) {
  auto opened = Resolver::Open({.directory = {fake.server()}, .policy = policy});
  return opened.ok() ? std::move(opened).value() : nullptr;
}

// P14. The times of day are in scenarios/resolver_retry_test.cc; this is the real clock.
TEST(ResolverOutage, WithTheDirectoryDownTenThousandWarmAddressesAreAnsweredInAMillisecond) {
  constexpr int kAddresses = 10'000;
  FakeDirectory fake;
  fake.age_ms = 10'000;  // so that it need not be waited for
  for (int i = 0; i < kAddresses; i++) fake.SetQuietly("//d/" + std::to_string(i), {kUrl});
  fake.Start();
  const auto resolver = OpenOn(fake);
  ASSERT_TRUE(resolver);
  std::vector<Address> addresses;
  std::atomic<int> warm{0};
  for (int i = 0; i < kAddresses; i++) addresses.push_back(A(i));
  for (const Address& address : addresses)
    resolver->Resolve(address, {.deadline = seconds(30)}, [&](const Resolver::AnswerPtr& answer) {
      warm += answer->status == AnswerStatus::kFound;
    });
  BootTime start = BootClock::now();
  while (warm < kAddresses && BootClock::now() - start < seconds(30)) std::this_thread::yield();
  ASSERT_EQ(warm, kAddresses);
  fake.Stop();

  std::vector<std::chrono::nanoseconds> took;
  int errors = 0;
  for (int i = 0; i < 10 * kAddresses; i++) {
    const Address& address = addresses[static_cast<size_t>(i * 7 % kAddresses)];
    start = BootClock::now();
    const auto answer = resolver->Resolve(address);
    took.push_back(BootClock::now() - start);
    errors += answer->status != AnswerStatus::kFound || !answer->stale || answer->age < seconds(10);
  }
  EXPECT_EQ(errors, 0);
  std::sort(took.begin(), took.end());
  EXPECT_LE(took[took.size() * 99 / 100], milliseconds(1));
}

// For ThreadSanitizer: everything at once, and the end in the midst of it.
TEST(ResolverOutage, ReadersPushesAndShutdownAtOnce) {
  FakeDirectory fake;
  for (int i = 0; i < 20; i++) fake.Set("//d/" + std::to_string(i), {kUrl});
  fake.Start();
  for (int round = 0; round < 5; round++) {
    ResolverPolicy policy;
    policy.cache_entries = 15;  // evictions too
    auto resolver = OpenOn(fake, policy);
    ASSERT_TRUE(resolver);
    std::atomic<bool> read{true}, push{true};
    std::atomic<uint64_t> reads{0}, called{0};
    std::vector<std::thread> readers;
    for (int t = 0; t < 2; t++)
      readers.emplace_back([&, t] {
        for (int i = t; read; i++) {
          resolver->Resolve(A(i % 12), {.deadline = seconds(5)});
          if (i % 16 == 0) resolver->Stats();
          if (i % 64 == 0) {
            std::ostringstream out;
            resolver->WriteState(out);
          }
          reads++;
        }
      });
    std::thread pusher([&] {
      for (uint64_t i = 0; push; i++) {
        // The fake queues without end, and an answer waits behind all that was pushed before.
        while (push && read && i > 4 * (reads + 50)) std::this_thread::yield();
        fake.Set("//d/" + std::to_string(i % 20), {kUrl});
        if (i % 8 == 0) fake.Mark();
        std::this_thread::yield();
      }
    });
    auto subscription = resolver->Subscribe(A(3), [&](const Resolver::AnswerPtr&) { called++; });
    const BootTime start = BootClock::now();
    while ((reads < 300 || called == 0) && BootClock::now() - start < seconds(20))
      std::this_thread::yield();
    read = false;
    for (auto& reader : readers) reader.join();
    std::atomic<int> ended{0};
    for (int i = 0; i < 20; i++)
      resolver->Resolve(A(i), {}, [&](const Resolver::AnswerPtr&) { ended++; });
    if (round % 2 == 0) subscription.reset();
    resolver.reset();  // while pushes come and calls wait
    EXPECT_EQ(ended, 20);
    push = false;
    pusher.join();
    EXPECT_GE(reads, 300u);
  }
}

}  // namespace
}  // namespace datawire
