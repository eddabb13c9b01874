#include "core/long_job.h"

namespace datawire::directory {

Status LongJob::Begin(std::function<void()> run) {
  std::thread former;  // its work is done, at most it is about to say so
  Status refused;
  {
    const MutexLock lock(mu_);
    if (stopping_) {
      refused = {Code::kUnavailable, "the directory is stopping"};
    } else if (busy_) {
      refused = Status(Code::kOverloaded, busy_text_).set_retry_after(std::chrono::seconds(1));
    } else {
      busy_ = true;
      former = std::move(thread_);
      thread_ = std::thread(std::move(run));
    }
  }
  if (former.joinable()) former.join();
  return refused;
}

void LongJob::Free() {
  const MutexLock lock(mu_);
  busy_ = false;
}

void LongJob::Stop() {
  std::thread last;
  {
    const MutexLock lock(mu_);
    stopping_ = true;
    last = std::move(thread_);
  }
  if (last.joinable()) last.join();
}

}  // namespace datawire::directory
