#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "core/subscriber.h"
#include "core/watch_hub.h"
#include "datawire/mutex.h"

namespace datawire::directory {

inline constexpr int kPeersShown = 100;  ///< of those who have not acknowledged

/// Who of this node's subscribers has not taken in a change yet: it waits for them. Thread-safe.
class Acknowledgements {
 public:
  /// Those who have not, `shown` of them at most kPeersShown.
  struct Left {
    std::vector<std::string> shown;
    size_t total = 0;
  };
  using Done = std::function<void(Result<Left>)>;
  explicit Acknowledgements(std::shared_ptr<WatchHub> hub) : hub_(std::move(hub)) {}

  /// Of those whose answers `targets`, changed at `at`, are about, once this node is there itself.
  /// `done` may run inside the call. kBehind: it was not by `until`.
  void Await(std::vector<Published::Change> targets, Revision at, BootTime until, Done done);
  /// Answers those who need wait no longer.
  void Tick(BootTime now);
  /// Waiting calls end with kUnavailable.
  void Stop();

 private:
  struct Wait {
    std::vector<Published::Change> targets;
    Revision at;
    BootTime until;
    Done done;
    bool begun = false;
    std::vector<std::weak_ptr<SubscriberState>> left;  // once it has begun
  };
  bool Over(Wait& wait) const;

  const std::shared_ptr<WatchHub> hub_;
  Mutex mu_;
  std::list<Wait> waits_ DW_GUARDED_BY(mu_);
  bool stopped_ DW_GUARDED_BY(mu_) = false;
};

}  // namespace datawire::directory
