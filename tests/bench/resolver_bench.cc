// A cache hit of the resolver, through the whole of Resolver::Resolve, beside a bare flat hash map
// of the same names in the same order. No server is asked while it is measured.
#include <absl/container/flat_hash_map.h>
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include "datawire/clock.h"
#include "datawire/resolver.h"
#include "fake_directory.h"

namespace datawire::bench {
namespace {

using testing::FakeDirectory;

constexpr std::chrono::seconds kFillTime{60};

// Names that are in the cache, in random order, and the same in a bare map.
struct Names {
  explicit Names(int count) {
    for (int i = 0; i < count; ++i) {
      char text[64];
      std::snprintf(text, sizeof text, "//bench.example.com/service/%06d", i);
      addresses.push_back(Address::Parse(text).value());
      fake.Set(text, {"amqp://127.0.0.1:" + std::to_string(1024 + i % 60000)});
    }
    std::shuffle(addresses.begin(), addresses.end(), std::mt19937_64(7));
    fake.Start();
    ResolverPolicy policy;
    policy.cache_entries = 2 * static_cast<size_t>(count);  // no shard overflows
    policy.cache_bytes = 256 << 20;
    policy.stream_silence = std::chrono::hours(1);  // the fake marks only when told to
    resolver = Resolver::Open({.directory = {fake.server()}, .policy = policy}).value();
    for (const Address& address : addresses) {
      auto answer = resolver->Resolve(address, {.deadline = kFillTime, .min_revision = {}});
      if (answer->status != AnswerStatus::kFound) {
        std::fprintf(stderr, "benchmark: %s is not found\n", address.text().c_str());
        std::exit(1);
      }
      map.emplace(address.text(), std::move(answer));
    }
  }

  FakeDirectory fake;
  std::unique_ptr<Resolver> resolver;
  std::vector<Address> addresses;
  absl::flat_hash_map<std::string, Resolver::AnswerPtr> map;
};

Names& Of(int64_t count) {
  static std::mutex mutex;
  static std::map<int64_t, std::unique_ptr<Names>> all;
  std::lock_guard lock(mutex);
  auto& names = all[count];
  if (!names) names = std::make_unique<Names>(static_cast<int>(count));
  return *names;
}

// Each thread begins elsewhere in the order.
size_t Begin(const benchmark::State& state, const Names& names) {
  return names.addresses.size() / static_cast<size_t>(state.threads()) *
         static_cast<size_t>(state.thread_index());
}

void FlatHash(benchmark::State& state) {
  const Names& names = Of(state.range(0));
  size_t next = Begin(state, names);
  for (auto _ : state) {
    const auto found = names.map.find(names.addresses[next].text());
    benchmark::DoNotOptimize(found->second.get());
    if (++next == names.addresses.size()) next = 0;
  }
  state.SetItemsProcessed(state.iterations());
}

void CacheHit(benchmark::State& state) {
  const Names& names = Of(state.range(0));
  const uint64_t misses = names.resolver->Stats().misses;
  size_t next = Begin(state, names);
  for (auto _ : state) {
    const auto answer = names.resolver->Resolve(names.addresses[next], {});
    benchmark::DoNotOptimize(answer.get());
    if (++next == names.addresses.size()) next = 0;
  }
  state.SetItemsProcessed(state.iterations());
  if (names.resolver->Stats().misses != misses) state.SkipWithError("not all were hits");
}

// Pushes new answers of all names, some at a time and no faster than they are taken, until it ends.
class Storm {
 public:
  explicit Storm(Names& names) : names_(names), thread_([this] { Run(); }) {}
  ~Storm() {
    stopping_ = true;
    thread_.join();
  }

 private:
  static constexpr size_t kAtOnce = 200;

  void Run() {
    static uint64_t revision = 1'000'000;  // above all that was set before
    for (size_t next = 0; !stopping_;) {
      names_.fake.set_revision(++revision);
      pb::SubscribeResponse response;
      for (size_t i = 0; i < kAtOnce; ++i, next = (next + 1) % names_.addresses.size())
        *response.add_answers() = names_.fake.AnswerOf(names_.addresses[next].text());
      const uint64_t before = names_.resolver->Stats().pushes;
      names_.fake.Send(response);
      while (!stopping_ && names_.resolver->Stats().pushes < before + kAtOnce)
        std::this_thread::yield();
    }
  }

  Names& names_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

// Each hit by itself, with the cost of reading the clock; in a storm if the argument is 1.
void HitLatency(benchmark::State& state) {
  Names& names = Of(100'000);
  const uint64_t pushes = names.resolver->Stats().pushes;
  std::vector<double> took;
  {
    std::optional<Storm> storm;
    if (state.range(0) == 1) storm.emplace(names);
    size_t next = 0;
    BootTime before = BootClock::now();
    for (auto _ : state) {
      const auto answer = names.resolver->Resolve(names.addresses[next], {});
      benchmark::DoNotOptimize(answer.get());
      if (++next == names.addresses.size()) next = 0;
      const BootTime now = BootClock::now();
      took.push_back(std::chrono::duration<double, std::micro>(now - before).count());
      before = now;
    }
  }
  std::sort(took.begin(), took.end());
  state.counters["p50_us"] = took[took.size() / 2];
  state.counters["p999_us"] = took[took.size() * 999 / 1000];
  state.counters["pushes"] = benchmark::Counter(
      static_cast<double>(names.resolver->Stats().pushes - pushes), benchmark::Counter::kIsRate);
}

BENCHMARK(FlatHash)->Arg(10'000)->Arg(100'000)->Threads(1)->Threads(2)->UseRealTime();
BENCHMARK(CacheHit)->Arg(10'000)->Arg(100'000)->Threads(1)->Threads(2)->UseRealTime();
BENCHMARK(HitLatency)->Arg(0)->Arg(1)->Iterations(3'000'000)->UseRealTime();

}  // namespace
}  // namespace datawire::bench

BENCHMARK_MAIN();
