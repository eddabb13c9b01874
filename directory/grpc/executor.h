#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "datawire/clock.h"
#include "datawire/mutex.h"
#include "datawire/result.h"

namespace datawire::directory {

/// A few threads that run what must not run on the engine's or gRPC's threads. Posted: encoding and
/// writing of answers and pushes; each stream has at most one task in the queue and each call at
/// most one, so that queue is bounded by gRPC's streams. Offered: calls that cost more than their
/// refusal, in bounded queues by class, behind all that is posted; one thread never takes them, so
/// that a heartbeat's reply does not wait for somebody's list. Thread-safe.
class Executor {
 public:
  /// The more urgent first.
  enum class Class { kResolve, kList };
  static constexpr size_t kClasses = 2;

  /// At least 2 threads.
  explicit Executor(size_t threads);
  ~Executor();

  /// Never blocks. After Stop the task is run by the caller: nobody waits for an answer forever.
  void Post(std::function<void()> task);
  /// `task` is run once: with OK in its turn; with kOverloaded and a retry-after when its class's
  /// queue is full, with kUnavailable after Stop; with kTimeout when its turn comes so late that
  /// `deadline` would pass while it runs. Refusals are made at a pace: who comes again at once,
  /// whatever it was told, holds its stream meanwhile and takes nobody's time. Never blocks.
  void Offer(Class urgency, BootTime deadline, std::function<void(const Status&)> task);
  /// Runs what is posted, refuses what is offered, then joins. Idempotent.
  void Stop();

  /// Offered and not run, for lack of room or time.
  uint64_t shed(Class urgency) const { return shed_[static_cast<size_t>(urgency)]; }

 private:
  struct Offered {
    BootTime deadline;
    std::function<void(const Status&)> task;
  };
  struct Refused {
    std::function<void(const Status&)> task;
    Status status;
  };
  struct Waiting {
    std::deque<Offered> queue;
    BootClock::duration mean{};  // time that one takes, the latest weighing most
  };
  void Work();
  /// The most urgent class that has somebody waiting, if one more may run; else kClasses.
  size_t NextOffered() const DW_REQUIRES(mutex_);
  /// Whether one more may be refused now.
  bool MayRefuse() const DW_REQUIRES(mutex_);
  /// Counts one refused now.
  void Refusing() DW_REQUIRES(mutex_);
  void RunOffered(size_t of, Offered offered, BootClock::duration mean) DW_EXCLUDES(mutex_);

  const size_t offered_most_;
  Mutex mutex_;
  Condition work_;
  std::deque<std::function<void()>> tasks_ DW_GUARDED_BY(mutex_);
  std::array<Waiting, kClasses> waiting_ DW_GUARDED_BY(mutex_);
  std::deque<Refused> refused_ DW_GUARDED_BY(mutex_);
  BootTime refuse_at_ DW_GUARDED_BY(mutex_){};  // when the next one may be refused
  size_t offered_running_ DW_GUARDED_BY(mutex_) = 0;
  bool stopped_ DW_GUARDED_BY(mutex_) = false;
  std::array<std::atomic<uint64_t>, kClasses> shed_{};
  std::vector<std::thread> threads_;
};

}  // namespace datawire::directory
