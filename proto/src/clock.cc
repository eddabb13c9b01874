#include "datawire/clock.h"

#include <time.h>

namespace datawire {
namespace {

int64_t Read(clockid_t id) {
  timespec t{};
  ::clock_gettime(id, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

}  // namespace

BootTime BootClock::now() {
  return BootTime(std::chrono::nanoseconds(Read(CLOCK_BOOTTIME)));
}

int64_t WallMillis() {
  return Read(CLOCK_REALTIME) / 1'000'000;
}

}  // namespace datawire
