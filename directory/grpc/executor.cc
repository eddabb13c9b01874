#include "grpc/executor.h"

#include <sys/resource.h>
#include <unistd.h>

namespace datawire::directory {

Executor::Executor(size_t threads, bool yields) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this, yields] { Work(yields); });
}

Executor::~Executor() {
  Stop();
}

void Executor::Post(std::function<void()> task) {
  {
    const MutexLock lock(mutex_);
    if (!stopped_) {
      tasks_.push_back(std::move(task));
      work_.notify_one();
      return;
    }
  }
  task();
}

void Executor::Stop() {
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Executor::Work(bool yields) {
  // A page takes longer than a slice of the scheduler: a resolve would wait for that. On Linux this
  // is the thread's own niceness.
  constexpr int kNice = 10;
  if (yields) (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  for (;;) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      work_.wait(lock, [this]() DW_REQUIRES(mutex_) { return !tasks_.empty() || stopped_; });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace datawire::directory
