#include "grpc/executor.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "datawire/limits.h"

namespace datawire::directory {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kRetryLeast{20};
constexpr milliseconds kRefuseEach{1};     // some 2 % of a core go to refusals, not more
constexpr milliseconds kRefuseBurst{100};  // of that pace
constexpr int kNice = 10;

Status Stopping() {
  return {Code::kUnavailable, "this server stops: try another"};
}

}  // namespace

Executor::Executor(const ExecutorOptions& options) : options_(options) {
  for (size_t i = 0; i < options.threads; ++i) threads_.emplace_back([this] { Work(); });
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

void Executor::Offer(BootTime deadline, std::function<void(const Status&)> task) {
  Status refusal;
  {
    const MutexLock lock(mutex_);
    refusal = Refusal(deadline);
    if (refusal.ok()) {
      offered_.push_back({deadline, std::move(task)});
      work_.notify_one();
      return;
    }
    ++shed_;
    if (!stopped_ && (!refused_.empty() || BootClock::now() < refuse_at_)) {
      refused_.push_back({std::move(task), std::move(refusal)});
      work_.notify_one();
      return;
    }
    Refusing();
  }
  task(refusal);
}

Status Executor::Refusal(BootTime deadline) const {
  if (stopped_) return Stopping();
  const auto wait = mean_ * offered_.size() / options_.offered_threads;
  const bool late = deadline != BootTime::max() && BootClock::now() + wait > deadline;
  if (offered_.size() < options_.queue && wait <= limits::kQueueWait && !late) return {};
  Status full(Code::kOverloaded, "too busy: " + std::to_string(offered_.size()) + " " +
                                     options_.what + " wait already");
  // Until those have had their turn.
  return full.set_retry_after(kRetryLeast + std::chrono::duration_cast<milliseconds>(wait));
}

void Executor::Refusing() {
  refuse_at_ = std::max(refuse_at_, BootClock::now() - kRefuseBurst) + kRefuseEach;
}

void Executor::Stop() {
  std::deque<Refused> refused;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    refused.swap(refused_);
    for (Offered& offered : offered_) refused.push_back({std::move(offered.task), Stopping()});
    offered_.clear();
  }
  work_.notify_all();
  for (const Refused& one : refused) one.task(one.status);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool Executor::OfferedIsDue() const {
  return !offered_.empty() && running_ < options_.offered_threads;
}

bool Executor::RefusedIsDue() const {
  return !refused_.empty() && BootClock::now() >= refuse_at_;
}

void Executor::Work() {
  // What takes longer than a slice of the scheduler lets others wait for that. On Linux this is the
  // thread's own niceness.
  if (options_.yields) (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  MutexLock lock(mutex_);
  for (;;) {
    const auto due = [this]() DW_REQUIRES(mutex_) {
      return !tasks_.empty() || RefusedIsDue() || OfferedIsDue() || stopped_;
    };
    if (refused_.empty())
      work_.wait(lock, [&]() DW_REQUIRES(mutex_) { return !refused_.empty() || due(); });
    else
      work_.wait_for(lock, refuse_at_ - BootClock::now(), due);
    std::function<void()> task = Take();
    if (task == nullptr && stopped_) return;
    if (task == nullptr) continue;
    lock.unlock();
    task();
    task = nullptr;  // what it holds goes outside of the lock
    lock.lock();
  }
}

std::function<void()> Executor::Take() {
  if (!tasks_.empty()) {
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    return task;
  }
  if (RefusedIsDue()) {
    Refused one = std::move(refused_.front());
    refused_.pop_front();
    Refusing();
    return [one = std::move(one)] { one.task(one.status); };
  }
  if (!OfferedIsDue()) return nullptr;
  Offered one = std::move(offered_.front());
  offered_.pop_front();
  ++running_;
  return [this, one = std::move(one), mean = mean_] { RunOffered(one, mean); };
}

void Executor::RunOffered(const Offered& offered, BootClock::duration mean) {
  const BootTime start = BootClock::now();
  const bool late = offered.deadline < start + mean;
  if (late) ++shed_;
  offered.task(late ? Status(Code::kTimeout, "too busy: the call's deadline passed before its turn")
                    : Status::Ok());
  const auto took = BootClock::now() - start;
  const MutexLock lock(mutex_);
  --running_;
  if (!late) mean_ += (took - mean_) / 8;
}

}  // namespace datawire::directory
