// An application that resolves, all the time: `--rate` look-ups a second over the addresses of
// `--addresses`, on two threads, to SIGTERM; once warm, each 200 ms one of `--cold`, once. On
// stdout, a line each:
//   `first STATUS SOURCE STALE AGE_MS MS`  what the first look-up gave, MS after the process began
//                                          with its resolver
//   `warm`                                 each address was asked for
//   `on SERVER`                            the stream is on another server now
//   `failed ADDRESS`                       not FOUND
//   `sums {...}`                           at the end, JSON

#include <atomic>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <thread>

#include "datawire/clock.h"
#include "datawire/resolver.h"
#include "flags.h"

namespace {

using datawire::Address;
using datawire::BootClock;
using datawire::Resolver;

// Waits for SIGTERM until `until`; true: it came.
bool Ended(const sigset_t& ends, datawire::BootTime until) {
  const auto left = std::max<std::chrono::nanoseconds>(until - BootClock::now(), {});
  const timespec wait{left.count() / 1'000'000'000, left.count() % 1'000'000'000};
  return sigtimedwait(&ends, nullptr, &wait) == SIGTERM;
}

}  // namespace

int main(int argc, char** argv) {
  const datawire::harness::Flags flags(argc, argv,
                                       {{"--directory", ""},
                                        {"--addresses", ""},
                                        {"--rate", "2000"},
                                        {"--cold", "none"},
                                        {"--snapshot", "none"}});
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  datawire::ResolverOptions options;
  options.directory = datawire::harness::Split(flags["--directory"]);
  if (flags["--snapshot"] != "none") options.snapshot_file = flags["--snapshot"];
  std::vector<Address> addresses;
  for (const std::string& text : datawire::harness::Split(flags["--addresses"]))
    addresses.push_back(Address::Parse(text).value());
  const datawire::BootTime begun = BootClock::now();
  auto resolver = Resolver::Open(options).value();
  const auto first = resolver->Resolve(addresses.front());
  std::printf("first %s %s %d %ld %ld\n", std::string(AnswerStatusName(first->status)).c_str(),
              first->source.c_str(), first->stale, first->age.count(),
              (BootClock::now() - begun).count() / 1'000'000);
  std::fflush(stdout);

  // Each 10 ms its share: the rate holds whatever one look-up takes.
  std::atomic<uint64_t> resolves{0}, cold{0}, failed{0}, stale{0};
  std::atomic<int64_t> slowest_ns{0};
  std::atomic<bool> stop{false};
  std::mutex out;
  const auto work = [&](size_t which) {
    const long share = flags.Number("--rate") / 200;
    sigset_t none;
    sigemptyset(&none);
    for (size_t i = which; !stop;) {
      const datawire::BootTime round = BootClock::now();
      for (long n = 0; n < share && !stop; n++, i++) {
        const Address& address = addresses[i % addresses.size()];
        const datawire::BootTime from = BootClock::now();
        const auto answer = resolver->Resolve(address);
        const int64_t took = (BootClock::now() - from).count();
        for (int64_t seen = slowest_ns;
             took > seen && !slowest_ns.compare_exchange_weak(seen, took);) {
        }
        resolves++;
        stale += answer->stale;
        if (answer->status == datawire::AnswerStatus::kFound) continue;
        failed++;
        const std::lock_guard lock(out);
        std::printf("failed %s\n", address.text().c_str());
        std::fflush(stdout);
      }
      (void)Ended(none, round + std::chrono::milliseconds(10));
    }
  };
  std::atomic<bool> warm{false};
  const auto meet = [&] {
    sigset_t none;
    sigemptyset(&none);
    auto left = datawire::harness::Split(flags["--cold"]);
    while (!stop && !left.empty() && left.back() != "none") {
      (void)Ended(none, BootClock::now() + std::chrono::milliseconds(200));
      if (!warm) continue;
      const Address address = Address::Parse(left.back()).value();
      left.pop_back();
      cold++;
      if (resolver->Resolve(address)->status == datawire::AnswerStatus::kFound) continue;
      failed++;
      const std::lock_guard lock(out);
      std::printf("failed %s\n", address.text().c_str());
      std::fflush(stdout);
    }
  };
  std::thread threads[] = {std::thread(work, 0), std::thread(work, 1), std::thread(meet)};
  std::string server;
  while (!Ended(ends, BootClock::now() + std::chrono::milliseconds(20))) {
    if (!warm && resolves > 2 * addresses.size()) {
      warm = true;
      const std::lock_guard lock(out);
      std::printf("warm\n");
      std::fflush(stdout);
    }
    const std::string now = resolver->Stats().server;
    if (now == server || now.empty()) continue;
    server = now;
    const std::lock_guard lock(out);
    std::printf("on %s\n", server.c_str());
    std::fflush(stdout);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  const datawire::ResolverStats stats = resolver->Stats();
  std::printf(
      "sums {\"resolves\": %lu, \"cold\": %lu, \"failed\": %lu, \"stale\": %lu, \"slowest_ms\": "
      "%.3f, "
      "\"failovers\": %lu, \"lost\": %lu}\n",
      resolves.load(), cold.load(), failed.load(), stale.load(), double(slowest_ns.load()) / 1e6,
      stats.failovers, stats.streams_lost);
  return 0;
}
