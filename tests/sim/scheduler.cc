#include "scheduler.h"

#include <cinttypes>
#include <cstdio>
#include <utility>

namespace datawire::sim {

std::string Scheduler::Stamp() const {
  char text[32];
  std::snprintf(text, sizeof text, "%11.6f ", double(now_.count()) / 1e9);
  return text;
}

void Scheduler::Say(const std::string& line) {
  if (trace_) std::printf("%s%s\n", Stamp().c_str(), line.c_str());
}

void Scheduler::Pause(Process& process, Time span) {
  process.paused = true;
  process.paused_at = now_;
  const uint64_t pause = ++process.pauses;
  At(now_ + span, nullptr, [this, &process, pause] {
    if (process.paused && process.pauses == pause) Resume(process);
  });
}

void Scheduler::Resume(Process& process) {
  process.paused = false;
  process.resumed_at = now_;
  if (const Task resumed = std::exchange(process.resumed, {})) resumed();
  auto tasks = std::exchange(process.waiting, {});
  for (size_t i = 0; i < tasks.size() && !failed(); ++i) {
    if (process.paused) {  // again, by one of them
      process.waiting.insert(process.waiting.begin(), std::make_move_iterator(tasks.begin() + i),
                             std::make_move_iterator(tasks.end()));
      return;
    }
    As(process, tasks[i]);
  }
}

void Scheduler::Dispatch(Event& event) {
  if (event.process == nullptr) return event.task();
  Process& process = *event.process;
  if (!event.any_life && event.run != process.run) return;
  if (process.paused)
    process.waiting.push_back(std::move(event.task));
  else
    As(process, event.task);
}

void Scheduler::RunUntil(Time end) {
  while (!events_.empty() && events_.top().when <= end && !failed()) {
    // Moved out before it is popped: only its order is still needed.
    Event event = std::move(const_cast<Event&>(events_.top()));
    events_.pop();
    now_ = event.when;
    if (now_ - second_ >= 1s) {
      second_ = now_;
      in_second_ = 0;
    }
    if (++in_second_ > kMostInASecond)
      return Fail("a hot loop: " + std::to_string(kMostInASecond) + " events in a second");
    Dispatch(event);
  }
  now_ = std::max(now_, end);
}

}  // namespace datawire::sim
