#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "datawire/mutex.h"
#include "engine/etcd/apply.h"
#include "engine/etcd/client.h"

namespace datawire::directory::etcd {

/// Keeps one watch over the whole prefix open, at one member after another, from where the view
/// is; lists anew where etcd no longer reaches back, or something was left out. Thread-safe.
class Feed {
 public:
  struct Figures {
    std::atomic<uint64_t> watches{0}, listings{0}, gaps{0};
  };

  /// `failed`: not this view's epoch any more. All outlive it.
  Feed(Client& client, Apply& apply, Revision applied, std::function<void(Status)> failed);
  ~Feed();

  /// Where the watch is.
  size_t member() const { return member_; }
  /// The member says nothing, or old things: go to the next one.
  void MoveOn();
  /// Records listed so far, while the first listing is under way.
  uint64_t listed() const { return listed_; }
  const Figures& figures() const { return figures_; }
  void Stop();

 private:
  void Run();
  /// Until the watch ends. kAborted, kInvalid: list.
  Status Watch();
  Status List();
  void Pause();

  Client& client_;
  Apply& apply_;
  const std::function<void(Status)> failed_;
  std::atomic<size_t> member_{0};
  std::atomic<uint64_t> listed_{0};
  Figures figures_;
  Follower follower_;  // its thread only
  const uint64_t epoch_;

  Mutex mutex_;
  Condition wake_;
  std::shared_ptr<Client::Watch> watch_ DW_GUARDED_BY(mutex_);
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace datawire::directory::etcd
