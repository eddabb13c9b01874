#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "datawire/client.h"
#include "datawire/clock.h"

namespace datawire {

class SenderShell;

/// What a Delivery and its sender share. Thread-safe.
struct Delivery::State {
  // Set before it is shared.
  std::vector<char> encoded;  ///< the message as it goes on the wire
  std::function<void(const DeliveryOutcome&)> done;
  BootTime deadline;
  BootTime expires = BootTime::max();  ///< by its time to live
  std::weak_ptr<SenderShell> sender;   ///< has it as `id`
  uint64_t id = 0;

  /// Once: wakes those who wait, then runs `done` on this thread.
  void End(DeliveryOutcome outcome);

  std::mutex mutex;
  std::condition_variable ended;
  std::optional<DeliveryOutcome> outcome;  // guarded by mutex; never changes again
};

}  // namespace datawire
