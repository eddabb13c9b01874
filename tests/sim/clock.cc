#include "clock.h"

#include "datawire/assert.h"

namespace datawire {
namespace {

const sim::MachineClock* present = nullptr;
sim::Time present_at{0};

}  // namespace

namespace sim {

ClockScope::ClockScope(const MachineClock& clock, Time t)
    : before_(present), before_at_(present_at) {
  present = &clock;
  present_at = t;
}

ClockScope::~ClockScope() {
  present = before_;
  present_at = before_at_;
}

}  // namespace sim

BootTime BootClock::now() {
  DW_ASSERT(present != nullptr);
  return present->At(present_at);
}

int64_t WallMillis() {
  DW_ASSERT(present != nullptr);
  return present->WallAt(present_at);
}

}  // namespace datawire
