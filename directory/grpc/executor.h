#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "datawire/mutex.h"

namespace datawire::directory {

/// A few threads that run what must not run on the engine's thread: encoding and writing of answers
/// and pushes. Each stream has at most one task in the queue and each call at most one, so the
/// queue is bounded by gRPC's streams. Thread-safe.
class Executor {
 public:
  /// `yields`: its threads give way to all others of the machine that want a processor.
  explicit Executor(size_t threads, bool yields = false);
  ~Executor();

  /// Never blocks. After Stop the task is run by the caller: nobody waits for an answer forever.
  void Post(std::function<void()> task);
  /// Runs what is queued, then joins. Idempotent.
  void Stop();

 private:
  void Work(bool yields);

  Mutex mutex_;
  Condition work_;
  std::deque<std::function<void()>> tasks_ DW_GUARDED_BY(mutex_);
  bool stopped_ DW_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace datawire::directory
