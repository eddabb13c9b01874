#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "world.h"

// simulate [--seed N] [--count N] [--trace]: random runs of the simulation, from seed N on.

int main(int argc, char** argv) {
  uint64_t seed = 1, count = 1;
  bool trace = false;
  for (int i = 1; i < argc; ++i) {
    const auto value = [&](const char* flag, uint64_t* out) {
      if (std::strcmp(argv[i], flag) != 0 || i + 1 >= argc) return false;
      *out = std::strtoull(argv[++i], nullptr, 10);
      return true;
    };
    if (value("--seed", &seed) || value("--count", &count)) continue;
    if (std::strcmp(argv[i], "--trace") != 0) {
      std::fprintf(stderr, "unknown argument %s: simulate [--seed N] [--count N] [--trace]\n",
                   argv[i]);
      return 1;
    }
    trace = true;
  }
  uint64_t revisions = 0, events = 0, expired = 0, suspected = 0, answers = 0, failed = 0;
  for (uint64_t i = 0; i < count && failed < 3; ++i) {
    const auto result = datawire::sim::RunSeed(seed + i, trace);
    revisions += result.revisions;
    events += result.events;
    expired += result.expired;
    suspected += result.suspected;
    answers += result.answers;
    if (result.ok) continue;
    ++failed;
    std::printf("FAILED after %" PRIu64 " runs: %s\n  replay: %s --seed %" PRIu64 " --trace\n",
                i + 1, result.failure.c_str(), argv[0], seed + i);
    std::fflush(stdout);
  }
  std::printf("%" PRIu64 " runs of 10 simulated minutes, %" PRIu64 " failed; %" PRIu64
              " events, %" PRIu64 " revisions, %" PRIu64 " sessions expired, %" PRIu64
              " suspected, %" PRIu64 " answers\n",
              count, failed, events, revisions, expired, suspected, answers);
  return failed == 0 ? 0 : 1;
}
