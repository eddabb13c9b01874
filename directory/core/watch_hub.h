#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/ground.h"
#include "core/pace.h"
#include "datawire/mutex.h"

namespace datawire::directory {

class SubscriberState;
class WatcherState;

/// One revision as a watcher is told of it. Value.
struct Changes {
  std::vector<std::string> messages;  ///< encoded WatchResponses
  size_t events = 0;                  ///< in them
};

/// One revision's events, shared by the watchers; encoded once for those without a prefix.
/// Immutable.
struct SharedBatch {
  Revision at;
  std::string events;  ///< encoded record.v1.History
  Changes whole;
};

/// Who is told of what changed. Publish marks and wakes, and never computes an answer: a change to
/// many subscribers is a list of marks on the apply thread. Thread-safe.
class WatchHub : public std::enable_shared_from_this<WatchHub> {
 public:
  explicit WatchHub(std::shared_ptr<Ground> ground);

  Result<std::unique_ptr<Subscriber>> OpenSubscriber(const Peer& peer, Stream& stream);
  Result<std::unique_ptr<Watcher>> OpenWatcher(const pb::WatchRequest& request, const Peer& peer,
                                               Stream& stream);

  /// On the apply thread, in order.
  void Publish(const Published& published);
  /// Marks and progress messages each second.
  void Tick(BootTime now);

  /// Whose answers such a change may change.
  std::vector<std::shared_ptr<SubscriberState>> Interested(
      const std::vector<Published::Change>& changes) const;

  struct Summary {
    uint64_t subscribers = 0, subscriptions = 0, watchers = 0;
  };
  Summary summary() const;

  /// Everything up to here has been marked: a subscriber with nothing marked is right at it.
  Revision published() const { return ground_->At(published_number_); }

  // For the streams.
  void Index(const std::string& key, const std::shared_ptr<SubscriberState>& subscriber);
  void Unindex(const std::string& key, const std::shared_ptr<SubscriberState>& subscriber);
  void IndexSubtree(const std::string& key, const std::shared_ptr<SubscriberState>& subscriber);
  void UnindexSubtree(const std::string& key, const std::shared_ptr<SubscriberState>& subscriber);
  /// What it indexed has been taken out.
  void Remove(const std::shared_ptr<SubscriberState>& subscriber);
  void Remove(const std::shared_ptr<WatcherState>& watcher);

 private:
  using Interest = std::map<std::string, std::unordered_set<std::shared_ptr<SubscriberState>>>;
  /// Whether one more stream may begin; what it holds of its principal's quota.
  Result<Quotas::Held> Admit(Quotas::Kind kind, const Peer& peer);
  void Erase(Interest& interest, const std::string& key,
             const std::shared_ptr<SubscriberState>& subscriber) DW_REQUIRES(mu_);

  std::shared_ptr<Ground> ground_;
  std::atomic<uint64_t> published_number_{0};
  mutable Mutex mu_;
  // Keys are Address::Key(): what is below an address is a range.
  Interest index_ DW_GUARDED_BY(mu_), subtrees_ DW_GUARDED_BY(mu_);
  std::unordered_set<std::shared_ptr<SubscriberState>> subscribers_ DW_GUARDED_BY(mu_);
  std::unordered_set<std::shared_ptr<WatcherState>> watchers_ DW_GUARDED_BY(mu_);
  uint64_t subscriptions_ DW_GUARDED_BY(mu_) = 0;
  Pace pace_ DW_GUARDED_BY(mu_);
};

}  // namespace datawire::directory
