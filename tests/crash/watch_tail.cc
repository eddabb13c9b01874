#include "watch_tail.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "datawire/wire.h"

namespace datawire::directory {

using namespace std::chrono_literals;

/// The stream, and the end of the thread that reads it.
class WatchTail::Woken final : public Stream {
 public:
  void Wake() override { Set(&woken_); }
  void End() { Set(&ended_); }
  /// False: it is to end.
  bool Wait() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return woken_ || ended_; });
    woken_ = false;
    return !ended_;
  }

 private:
  void Set(bool* flag) {
    const std::lock_guard lock(mutex_);
    *flag = true;
    wake_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false, ended_ = false;  // by mutex_
};

WatchTail::WatchTail(harness::History& history) : history_(history) {}
WatchTail::~WatchTail() = default;

std::unique_ptr<Watcher> WatchTail::Open(Directory& directory) {
  pb::WatchRequest request;
  ToWire(at_, request.mutable_after());
  woken_ = std::make_unique<Woken>();
  auto watcher = directory.OpenWatcher(request, {}, *woken_);
  EXPECT_TRUE(watcher.ok()) << watcher.status().ToString();
  return watcher.ok() ? std::move(*watcher) : nullptr;
}

void WatchTail::Attach(Directory& directory) {
  std::shared_ptr<Watcher> watcher = Open(directory);
  if (!watcher) return;
  thread_ = std::thread([this, watcher] {
    do {
      Drain(*watcher);
    } while (woken_->Wait());
  });
}

void WatchTail::Detach() {
  if (!thread_.joinable()) return;
  woken_->End();
  thread_.join();
  Keep();
}

// Called when the directory takes no writes: what is handed out is all there is.
void WatchTail::CatchUp(Directory& directory, Revision applied) {
  const auto watcher = Open(directory);
  if (!watcher) return;
  Drain(*watcher);
  EXPECT_LE(at_, applied);
  at_ = applied;
  Keep();
}

void WatchTail::Keep() {
  part_.clear();  // what came of a revision that was cut comes again
  if (from_ == at_) return;
  history_.watched.emplace_back(from_, at_);
  history_.events.insert(history_.events.end(), events_.begin(), events_.end());
  events_.clear();
  from_ = at_;
}

void WatchTail::Drain(Watcher& watcher) {
  while (true) {
    const auto bytes = watcher.Next();
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    if (!bytes.ok() || !*bytes) return;
    Take(**bytes);
  }
}

void WatchTail::Take(const std::string& bytes) {
  using Kind = pb::WatchResponse;
  Kind message;
  ASSERT_TRUE(message.ParseFromString(bytes));
  const Revision at = FromWire(message.revision());
  if (message.kind() == Kind::KIND_PROGRESS) {
    EXPECT_GE(at, at_);
    at_ = std::max(at_, at);
    return;
  }
  ASSERT_TRUE(message.kind() == Kind::KIND_CHANGES || message.kind() == Kind::KIND_CHANGES_PART)
      << "after " << at_.ToString() << ": " << message.ShortDebugString();
  for (const auto& event : message.events()) {
    const bool gone = event.kind() == pb::Event::KIND_GONE;
    part_.push_back({at, event.address(), gone ? "" : event.endpoint().labels().at("value")});
  }
  if (message.kind() == Kind::KIND_CHANGES_PART) return;
  EXPECT_GT(at, at_);
  at_ = at;
  events_.insert(events_.end(), part_.begin(), part_.end());
  part_.clear();
}

}  // namespace datawire::directory
