#pragma once

#include <functional>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "clock.h"

namespace datawire::sim {

using namespace std::chrono_literals;

/// A simulated process with its machine's clock. It does nothing while it is paused: what is meant
/// for it waits. Bound to its Scheduler.
struct Process {
  explicit Process(std::string the_name) : name(std::move(the_name)) {}
  virtual ~Process() = default;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  const std::string name;
  MachineClock clock;
  bool up = false;
  uint64_t run = 0;  ///< one life of the process; what was meant for an earlier one is dropped
  bool paused = false;
  uint64_t pauses = 0;
  Time paused_at{0}, resumed_at{0};
  std::vector<std::function<void()>> waiting;  ///< while paused
  std::function<void()> resumed;               ///< runs when a pause ends
};

/// The one queue of events: time goes from one to the next, ties in the order they were made.
/// Everything random comes from its seed. Also where a broken promise is reported. Bound to one
/// thread.
class Scheduler {
 public:
  using Task = std::function<void()>;

  static constexpr size_t kMostInASecond = 500'000;  // a busy one has a few thousand

  Scheduler(uint64_t seed, bool trace) : random_(seed), trace_(trace) {}

  Time now() const { return now_; }
  /// Runs as `process` (its clock), for the life it has now; null: outside of all.
  void At(Time when, Process* process, Task task) {
    events_.push({std::max(when, now_), ++made_, process, process ? process->run : 0, false,
                  std::move(task)});
  }
  void After(Time wait, Process* process, Task task) { At(now_ + wait, process, std::move(task)); }
  /// As At, in whatever life the process is then, also when it is down: the task looks itself.
  void ToMachine(Time when, Process* process, Task task) {
    events_.push({std::max(when, now_), ++made_, process, 0, true, std::move(task)});
  }
  /// Runs it at once, as `process`.
  void As(Process& process, const Task& task) {
    const ClockScope scope(process.clock, now_);
    task();
  }
  void Pause(Process& process, Time span);
  void Resume(Process& process);
  /// Its life ends: nothing that was meant for it happens any more.
  void EndLife(Process& process) {
    process.run++;
    process.up = false;
    process.paused = false;
    process.waiting.clear();
    process.resumed = {};
  }

  void RunUntil(Time end);
  size_t events() const { return made_; }

  // Chance.
  std::mt19937_64& random() { return random_; }
  bool Chance(double p) { return Real() < p; }
  double Real() { return double(random_() >> 11) * 0x1.0p-53; }
  size_t Below(size_t bound) { return random_() % bound; }
  Time Between(Time from, Time to) {
    return from + Time(static_cast<int64_t>(Real() * double((to - from).count())));
  }

  /// A promise is broken: the run stops with the first of them.
  void Fail(std::string what) {
    if (failure_.empty()) failure_ = Stamp() + std::move(what);
  }
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }

  bool tracing() const { return trace_; }
  /// A line of the trace; costs nothing unless tracing() was asked first.
  void Say(const std::string& line);

 private:
  struct Event {
    Time when;
    uint64_t number;
    Process* process;
    uint64_t run;
    bool any_life;
    Task task;
    bool operator<(const Event& other) const {  // the earliest on top
      return when != other.when ? when > other.when : number > other.number;
    }
  };
  std::string Stamp() const;
  void Dispatch(Event& event);

  std::priority_queue<Event> events_;
  Time now_{0};
  uint64_t made_ = 0;
  Time second_{0};
  size_t in_second_ = 0;
  std::mt19937_64 random_;
  const bool trace_;
  std::string failure_;
};

}  // namespace datawire::sim
