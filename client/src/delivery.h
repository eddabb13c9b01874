#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "datawire/client.h"
#include "datawire/clock.h"

namespace datawire {

/// What a Delivery and its sender share. Thread-safe.
struct Delivery::State {
  // Set before it is shared.
  std::vector<char> encoded;  ///< the message as it goes on the wire
  std::function<void(const DeliveryOutcome&)> done;
  BootTime deadline;

  /// Once: wakes those who wait, then runs `done` on this thread.
  void End(DeliveryOutcome outcome);

  std::mutex mutex;
  std::condition_variable ended;
  std::optional<DeliveryOutcome> outcome;  // guarded by mutex; never changes again
};

}  // namespace datawire
