#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace datawire::directory {

/// A few threads that run what must not run on the engine's thread: encoding and writing of answers
/// and pushes. Each stream has at most one task in the queue and each call at most one, so the
/// queue is bounded by gRPC's streams. Thread-safe.
class Executor {
 public:
  explicit Executor(size_t threads);
  ~Executor();

  /// Never blocks. After Stop the task is run by the caller: nobody waits for an answer forever.
  void Post(std::function<void()> task);
  /// Runs what is queued, then joins. Idempotent.
  void Stop();

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace datawire::directory
