#pragma once

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

/// What one executor is for. Value.
struct ExecutorOptions {
  size_t threads = 2;
  size_t offered_threads = 1;  ///< of these, that may run what is offered at a time; at least 1
  size_t queue = 0;            ///< offered calls that may wait
  const char* what = "";       ///< what is offered: `lists`
  bool yields = false;         ///< its threads give way to all others that want a processor
};

/// A few threads that run what must not run on the engine's or gRPC's threads. Posted: encoding and
/// writing of answers and pushes; each stream has at most one task in the queue and each call at
/// most one, so that queue is bounded by gRPC's streams. Offered: calls that cost more than their
/// refusal, in a bounded queue behind all that is posted. Thread-safe.
class Executor {
 public:
  explicit Executor(const ExecutorOptions& options);
  ~Executor();

  /// Never blocks. After Stop the task is run by the caller: nobody waits for an answer forever.
  void Post(std::function<void()> task);
  /// `task` is run once: with OK in its turn; with kOverloaded and a retry-after when the queue is
  /// full or its turn would come later than `deadline` or in 1 s; with kTimeout when it came too
  /// late all the same; with kUnavailable after Stop. Refusals are made at a pace: who comes again
  /// at once, whatever it was told, holds its stream meanwhile and takes nobody's time. Never
  /// blocks.
  void Offer(BootTime deadline, std::function<void(const Status&)> task);
  /// Runs what is posted, refuses what is offered, then joins. Idempotent.
  void Stop();

  /// Offered and not run, for lack of room or time.
  uint64_t shed() const { return shed_; }

 private:
  struct Offered {
    BootTime deadline;
    std::function<void(const Status&)> task;
  };
  struct Refused {
    std::function<void(const Status&)> task;
    Status status;
  };
  void Work();
  /// Why one more offer is refused, else OK.
  Status Refusal(BootTime deadline) const DW_REQUIRES(mutex_);
  bool OfferedIsDue() const DW_REQUIRES(mutex_);
  bool RefusedIsDue() const DW_REQUIRES(mutex_);
  /// What is due now: the most urgent, else null.
  std::function<void()> Take() DW_REQUIRES(mutex_);
  void RunOffered(const Offered& offered, BootClock::duration mean) DW_EXCLUDES(mutex_);
  /// Counts one that is refused now.
  void Refusing() DW_REQUIRES(mutex_);

  const ExecutorOptions options_;
  mutable Mutex mutex_;
  Condition work_;
  std::deque<std::function<void()>> tasks_ DW_GUARDED_BY(mutex_);
  std::deque<Offered> offered_ DW_GUARDED_BY(mutex_);
  size_t running_ DW_GUARDED_BY(mutex_) = 0;           // offered ones
  BootClock::duration mean_ DW_GUARDED_BY(mutex_){};   // time that one takes, by the latest
  std::deque<Refused> refused_ DW_GUARDED_BY(mutex_);  // wait to be told so
  BootTime refuse_at_ DW_GUARDED_BY(mutex_){};         // when the next one may be
  bool stopped_ DW_GUARDED_BY(mutex_) = false;
  std::atomic<uint64_t> shed_{0};
  std::vector<std::thread> threads_;
};

}  // namespace datawire::directory
