#include "grpc/executor.h"

#include <algorithm>
#include <string>
#include <utility>

#include "datawire/limits.h"

namespace datawire::directory {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kRetryLeast{20};

struct Bound {
  const char* what;
  size_t most;
};
constexpr std::array<Bound, Executor::kClasses> kBounds{
    {{"large resolves", limits::kResolveQueue}, {"lists", limits::kListQueue}}};

}  // namespace

Executor::Executor(size_t threads) : offered_most_(threads - 1) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
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

void Executor::Offer(Class urgency, BootTime deadline, std::function<void(const Status&)> task) {
  const auto of = static_cast<size_t>(urgency);
  Status refused;
  {
    const MutexLock lock(mutex_);
    Waiting& waiting = waiting_[of];
    if (stopped_) {
      refused = {Code::kUnavailable, "this server stops: try another"};
    } else if (waiting.queue.size() >= kBounds[of].most) {
      refused = {Code::kOverloaded, "too busy: " + std::to_string(kBounds[of].most) + " " +
                                        kBounds[of].what + " wait already"};
      // Until those who wait now have had their turn.
      const auto wait = waiting.mean * waiting.queue.size() / offered_most_;
      refused.set_retry_after(kRetryLeast + std::chrono::duration_cast<milliseconds>(wait));
    } else {
      waiting.queue.push_back({deadline, std::move(task)});
      work_.notify_one();
      return;
    }
  }
  ++shed_[of];
  task(refused);
}

void Executor::Stop() {
  std::deque<Offered> refused;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    for (Waiting& waiting : waiting_) {
      std::move(waiting.queue.begin(), waiting.queue.end(), std::back_inserter(refused));
      waiting.queue.clear();
    }
  }
  work_.notify_all();
  const Status stopping(Code::kUnavailable, "this server stops: try another");
  for (const Offered& offered : refused) offered.task(stopping);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

size_t Executor::NextOffered() const {
  if (offered_running_ >= offered_most_) return kClasses;
  size_t of = 0;
  while (of < kClasses && waiting_[of].queue.empty()) ++of;
  return of;
}

void Executor::Work() {
  MutexLock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this]() DW_REQUIRES(mutex_) {
      return !tasks_.empty() || NextOffered() < kClasses || stopped_;
    });
    if (!tasks_.empty()) {
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
      continue;
    }
    const size_t of = NextOffered();
    if (of == kClasses) return;  // stopped
    Offered offered = std::move(waiting_[of].queue.front());
    waiting_[of].queue.pop_front();
    ++offered_running_;
    const BootClock::duration mean = waiting_[of].mean;
    lock.unlock();
    RunOffered(of, std::move(offered), mean);
    lock.lock();
    --offered_running_;
  }
}

void Executor::RunOffered(size_t of, Offered offered, BootClock::duration mean) {
  const BootTime start = BootClock::now();
  if (offered.deadline < start + mean) {
    ++shed_[of];
    offered.task({Code::kTimeout, "too busy: the call's deadline passed before its turn"});
    return;
  }
  offered.task(Status::Ok());
  offered = {};  // what it holds goes on this thread, outside of the lock
  const auto took = BootClock::now() - start;
  const MutexLock lock(mutex_);
  Waiting& waiting = waiting_[of];
  waiting.mean += (took - waiting.mean) / 8;
}

}  // namespace datawire::directory
