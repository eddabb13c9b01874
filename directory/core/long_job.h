#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "datawire/mutex.h"
#include "datawire/result.h"

namespace datawire::directory {

/// What reads or writes a whole store: one at a time, on a thread of its own. Thread-safe.
class LongJob {
 public:
  /// `busy`: what a second one is told.
  explicit LongJob(std::string busy) : busy_text_(std::move(busy)) {}
  ~LongJob() { Stop(); }

  /// Runs `job` there, and then, with its result, `done`; this may run inside the call, refused.
  template <typename Response>
  void Start(std::function<Result<Response>()> job, std::function<void(Result<Response>)> done) {
    const Status refused = Begin([this, job = std::move(job), done] {
      auto result = job();
      Free();
      done(std::move(result));
    });
    if (!refused.ok()) done(refused);
  }
  /// For the job to look at: it is to end soon.
  const std::atomic<bool>& stopping() const { return stopping_; }
  /// Waits for its end; later ones are refused.
  void Stop();

 private:
  Status Begin(std::function<void()> run);
  void Free();

  const std::string busy_text_;
  Mutex mu_;
  std::thread thread_ DW_GUARDED_BY(mu_);
  bool busy_ DW_GUARDED_BY(mu_) = false;
  std::atomic<bool> stopping_{false};
};

}  // namespace datawire::directory
