#include "amqp/io.h"

#include <boost/asio/post.hpp>

#include "datawire/assert.h"

namespace datawire::amqp {

namespace {

/// How long Stop waits for connections to end; a callback that blocks holds it up longer.
constexpr std::chrono::seconds kStopWait{2};

thread_local const Core* this_thread_core = nullptr;

}  // namespace

bool Core::Add(Member* member, std::weak_ptr<Member> weak) {
  MutexLock lock(mutex_);
  if (stopping_) return false;
  members_[member] = std::move(weak);
  return true;
}

void Core::Remove(Member* member) {
  MutexLock lock(mutex_);
  members_.erase(member);
  if (members_.empty()) empty_.notify_all();
}

bool Core::stopping() {
  MutexLock lock(mutex_);
  return stopping_;
}

bool Core::here() const {
  return this_thread_core == this;
}

Io::Io(int threads) : impl_(std::make_unique<Impl>()) {
  for (int i = 0; i < threads; ++i)
    impl_->threads.emplace_back([core = impl_->core] {
      this_thread_core = core.get();
      core->context().run();
    });
}

Io::~Io() {
  Stop();
}

void Io::Post(std::function<void()> task) {
  Core* core = impl_->core.get();
  core->Post(asio::make_strand(core->context()), [core, task = std::move(task)] {
    if (!core->stopping()) task();
  });
}

void Io::After(std::chrono::milliseconds delay, std::function<void()> task) {
  Core* core = impl_->core.get();
  auto timer = std::make_shared<Timer>(asio::make_strand(core->context()));
  MutexLock lock(core->mutex_);
  if (core->stopping_) return;
  const uint64_t id = core->next_timer_++;
  core->timers_[id] = timer;
  timer->expires_after(delay);
  timer->async_wait([core, id, task = std::move(task)](const boost::system::error_code& error) {
    {
      MutexLock inner(core->mutex_);
      if (core->timers_.erase(id) == 0 || core->stopping_ || error) return;
    }
    task();
  });
}

bool Io::MayBeWaitedFor() {
  return !impl_->core->here() && !impl_->core->stopping();
}

void Io::Stop() {
  Core* core = impl_->core.get();
  DW_ASSERT(!core->here());
  std::vector<std::shared_ptr<Core::Member>> members;
  {
    MutexLock lock(core->mutex_);
    if (core->stopping_) return;
    core->stopping_ = true;
    for (auto& [member, weak] : core->members_)
      if (auto strong = weak.lock()) members.push_back(std::move(strong));
  }
  for (auto& member : members) member->Stop();
  members.clear();
  {
    MutexLock lock(core->mutex_);
    core->empty_.wait_for(lock, kStopWait,
                          [core]() DW_REQUIRES(core->mutex_) { return core->members_.empty(); });
  }
  impl_->work.reset();
  core->context().stop();
  for (std::thread& thread : impl_->threads) thread.join();
  std::map<uint64_t, std::shared_ptr<Timer>> timers;
  {
    MutexLock lock(core->mutex_);
    timers.swap(core->timers_);
    core->dead_ = true;
  }
  timers.clear();
  // What is still queued holds its connections, and they this context: run it, so that it goes.
  core->context().restart();
  core->context().poll();
}

}  // namespace datawire::amqp
