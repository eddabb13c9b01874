#include "grpc/executor.h"

#include <algorithm>
#include <string>
#include <utility>

#include "datawire/limits.h"

namespace datawire::directory {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kRetryLeast{20};
constexpr milliseconds kRefuseEach{1};     // some 2 % of a core go to refusals, not more
constexpr milliseconds kRefuseBurst{100};  // of that pace

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
    } else if (const auto wait = waiting.mean * waiting.queue.size() / offered_most_;
               waiting.queue.size() >= kBounds[of].most || wait > limits::kQueueWait ||
               (deadline != BootTime::max() && BootClock::now() + wait > deadline)) {
      refused = {Code::kOverloaded, "too busy: " + std::to_string(waiting.queue.size()) + " " +
                                        kBounds[of].what + " wait already"};
      // Until those who wait now have had their turn.
      refused.set_retry_after(kRetryLeast + std::chrono::duration_cast<milliseconds>(wait));
      ++shed_[of];
      if (!refused_.empty() || !MayRefuse()) {
        refused_.push_back({std::move(task), std::move(refused)});
        work_.notify_one();
        return;
      }
      Refusing();
    } else {
      waiting.queue.push_back({deadline, std::move(task)});
      work_.notify_one();
      return;
    }
  }
  task(refused);
}

bool Executor::MayRefuse() const {
  return BootClock::now() >= refuse_at_;
}

void Executor::Refusing() {
  refuse_at_ = std::max(refuse_at_, BootClock::now() - kRefuseBurst) + kRefuseEach;
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
    for (Refused& late : refused_) refused.push_back({BootTime::max(), std::move(late.task)});
    refused_.clear();
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
    const auto due = [this]() DW_REQUIRES(mutex_) {
      return !tasks_.empty() || (!refused_.empty() && MayRefuse()) || NextOffered() < kClasses ||
             stopped_;
    };
    if (refused_.empty())
      work_.wait(lock, [&]() DW_REQUIRES(mutex_) { return !refused_.empty() || due(); });
    else
      work_.wait_for(lock, refuse_at_ - BootClock::now(), due);
    if (!tasks_.empty()) {
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
      continue;
    }
    if (!refused_.empty() && MayRefuse()) {
      const Refused refused = std::move(refused_.front());
      refused_.pop_front();
      Refusing();
      lock.unlock();
      refused.task(refused.status);
      lock.lock();
      continue;
    }
    const size_t of = NextOffered();
    if (of == kClasses) {
      if (stopped_) return;
      continue;
    }
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
