#include "delivery.h"

namespace datawire {

void Delivery::State::End(DeliveryOutcome end) {
  {
    const std::lock_guard lock(mutex);
    if (outcome) return;
    outcome = std::move(end);
  }
  ended.notify_all();
  if (!done) return;
  try {
    std::exchange(done, nullptr)(*outcome);
  } catch (...) {  // the user's: it must not end the thread that others' deliveries need
  }
}

const DeliveryOutcome& Delivery::Wait() {
  std::unique_lock lock(state_->mutex);
  const auto until = state_->deadline + limits::kWaitGrace;
  const auto ended = [this] { return state_->outcome.has_value(); };
  while (!ended()) {
    const auto left = until - BootClock::now();
    if (left <= left.zero()) {
      state_->outcome = DeliveryOutcome{DeliveryEnd::kOutcomeUnknown, "",
                                        "the sender did not end it in time", "", 0};
      break;
    }
    state_->ended.wait_for(lock, left, ended);
  }
  return *state_->outcome;
}

std::optional<DeliveryOutcome> Delivery::Poll() const {
  const std::lock_guard lock(state_->mutex);
  return state_->outcome;
}

}  // namespace datawire
