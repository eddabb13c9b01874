#pragma once

#include <sched.h>

#include <array>
#include <cstdint>
#include <mutex>

namespace datawire::resolver {

/// Guards what is read far more often than written, so that readers share no cache line: a reader
/// holds its processor's stripe, a writer holds all. Thread-safe.
class StripedMutex {
 public:
  /// One cache line: the lock of some readers, and what they count under it.
  struct alignas(64) Stripe {
    std::mutex mutex;
    uint64_t hits = 0, negatives = 0;
  };

  void lock() {
    for (Stripe& stripe : stripes_) stripe.mutex.lock();
  }
  void unlock() {
    for (Stripe& stripe : stripes_) stripe.mutex.unlock();
  }

  /// For a reader: the stripe of the processor it runs on.
  Stripe& mine() { return stripes_[static_cast<size_t>(::sched_getcpu()) % stripes_.size()]; }
  /// All of them, for who holds the whole.
  const auto& stripes() const { return stripes_; }

 private:
  std::array<Stripe, 8> stripes_;
};
static_assert(sizeof(StripedMutex::Stripe) == 64);

}  // namespace datawire::resolver
