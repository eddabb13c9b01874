#include "core/watch_hub.h"

#include "core/subscriber.h"
#include "core/watcher.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

class SubscriberHandle final : public Subscriber {
 public:
  SubscriberHandle(std::shared_ptr<SubscriberState> state, Quotas::Held held)
      : state_(std::move(state)), held_(std::move(held)) {}
  ~SubscriberHandle() override {
    state_->gate.Detach();
    state_->Close();
  }
  Status OnRequest(const pb::SubscribeRequest& request) override {
    return state_->OnRequest(request);
  }
  std::optional<std::string> Next() override { return state_->Next(); }

 private:
  std::shared_ptr<SubscriberState> state_;
  const Quotas::Held held_;
};

class WatcherHandle final : public Watcher {
 public:
  WatcherHandle(std::shared_ptr<WatchHub> hub, std::shared_ptr<WatcherState> state,
                Quotas::Held held)
      : hub_(std::move(hub)), state_(std::move(state)), held_(std::move(held)) {}
  ~WatcherHandle() override {
    state_->gate.Detach();
    hub_->Remove(state_);
  }
  Result<std::optional<std::string>> Next() override { return state_->Next(); }

 private:
  std::shared_ptr<WatchHub> hub_;
  std::shared_ptr<WatcherState> state_;
  const Quotas::Held held_;
};

}  // namespace

WatchHub::WatchHub(std::shared_ptr<Ground> ground)
    : ground_(std::move(ground)),
      published_number_(ground_->view.Applied().number),
      pace_(limits::kStreamBurst, limits::kStreamsPerSecond, ground_->now()) {}

Result<Quotas::Held> WatchHub::Admit(Quotas::Kind kind, const Peer& peer) {
  DW_ASSIGN(auto held, ground_->quotas->Take(kind, PrincipalOf(peer)));
  const MutexLock lock(mu_);
  const auto wait = pace_.Ask(ground_->now());
  if (!wait) return held;
  ++ground_->counts.streams_paced;
  Status paced(Code::kOverloaded,
               "too many streams begin at once, " + std::to_string(limits::kStreamsPerSecond) +
                   " a second may: its turn is in " + std::to_string(wait->count()) + " ms");
  return paced.set_retry_after(*wait);
}

Result<std::unique_ptr<Subscriber>> WatchHub::OpenSubscriber(const Peer& peer, Stream& stream) {
  DW_ASSIGN(auto held, Admit(Quotas::Kind::kStreams, peer));
  auto state = std::make_shared<SubscriberState>(ground_, shared_from_this(), peer, stream);
  {
    const MutexLock lock(mu_);
    subscribers_.insert(state);
  }
  state->gate.Wake();  // the first mark
  return std::unique_ptr<Subscriber>(
      std::make_unique<SubscriberHandle>(std::move(state), std::move(held)));
}

Result<std::unique_ptr<Watcher>> WatchHub::OpenWatcher(const pb::WatchRequest& request,
                                                       const Peer& peer, Stream& stream) {
  std::optional<Address> prefix;
  if (!request.prefix().empty()) {
    DW_ASSIGN(prefix, Address::Parse(request.prefix()));
  }
  const Revision after = FromWire(request.after());
  const Revision applied = ground_->view.Applied();
  if (request.has_after() && after.epoch == applied.epoch && after > applied)
    return Status(Code::kBehind, "asked for changes after " + after.ToString() +
                                     ", this node is at " + applied.ToString());
  DW_ASSIGN(auto held, Admit(Quotas::Kind::kWatches, peer));
  std::shared_ptr<WatcherState> state;
  {
    const MutexLock lock(mu_);
    // Under the lock of Publish: what it is told from now on is newer than `published`.
    state = std::make_shared<WatcherState>(ground_, prefix, stream, published());
    if (request.has_after())
      state->StartAfter(after);
    else if (request.no_snapshot())
      state->StartAfter(published());
    else
      state->StartWithSnapshot();
    watchers_.insert(state);
  }
  state->gate.Wake();
  return std::unique_ptr<Watcher>(
      std::make_unique<WatcherHandle>(shared_from_this(), std::move(state), std::move(held)));
}

void WatchHub::Publish(const Published& published) {
  std::vector<std::pair<std::shared_ptr<SubscriberState>, std::string>> marks;
  std::vector<std::pair<std::shared_ptr<SubscriberState>, const Address*>> below;
  std::vector<std::shared_ptr<WatcherState>> watchers;
  {
    const MutexLock lock(mu_);
    for (const Published::Change& change : published.addresses) {
      const std::string key = change.address.Key();
      const auto mark = [&marks](const auto& entry) {
        for (const auto& subscriber : entry.second) marks.emplace_back(subscriber, entry.first);
      };
      if (const auto it = index_.find(key); it != index_.end()) mark(*it);
      if (!subtrees_.empty()) {
        for (const std::string& prefix : WithAncestors(key)) {
          const auto it = subtrees_.find(prefix);
          if (it == subtrees_.end()) continue;
          for (const auto& subscriber : it->second) below.emplace_back(subscriber, &change.address);
        }
      }
      if (!change.subtree) continue;
      const auto end = index_.lower_bound(key + '\1');
      for (auto it = index_.lower_bound(key + '\0'); it != end; ++it) mark(*it);
    }
    watchers.assign(watchers_.begin(), watchers_.end());
  }
  for (const auto& [subscriber, key] : marks) subscriber->MarkDirty(key);
  for (const auto& [subscriber, address] : below) subscriber->MarkBelow(*address);
  std::shared_ptr<SharedBatch> batch;
  if (!published.events.empty() && !watchers.empty()) {
    batch = std::make_shared<SharedBatch>();
    batch->at = published.at;
    batch->events = published.events;
    batch->whole = EncodeChanges(published.at, published.events, std::nullopt);
  }
  published_number_ = published.at.number;
  for (const auto& watcher : watchers) watcher->Publish(published.at, batch);
}

std::vector<std::shared_ptr<SubscriberState>> WatchHub::Interested(
    const std::vector<Published::Change>& changes) const {
  std::unordered_set<std::shared_ptr<SubscriberState>> found;
  const MutexLock lock(mu_);
  for (const Published::Change& change : changes) {
    const std::string key = change.address.Key();
    const auto add = [&found](const auto& entry) {
      found.insert(entry.second.begin(), entry.second.end());
    };
    if (const auto it = index_.find(key); it != index_.end()) add(*it);
    for (const std::string& prefix : WithAncestors(key))
      if (const auto it = subtrees_.find(prefix); it != subtrees_.end()) add(*it);
    if (!change.subtree) continue;
    const auto end = index_.lower_bound(key + '\1');
    for (auto it = index_.lower_bound(key + '\0'); it != end; ++it) add(*it);
  }
  return {found.begin(), found.end()};
}

void WatchHub::Tick(BootTime now) {
  std::vector<std::shared_ptr<SubscriberState>> subscribers;
  std::vector<std::shared_ptr<WatcherState>> watchers;
  {
    const MutexLock lock(mu_);
    subscribers.assign(subscribers_.begin(), subscribers_.end());
    watchers.assign(watchers_.begin(), watchers_.end());
  }
  for (const auto& subscriber : subscribers) subscriber->Tick(now);
  for (const auto& watcher : watchers) watcher->Tick(now);
}

WatchHub::Summary WatchHub::summary() const {
  const MutexLock lock(mu_);
  return {subscribers_.size(), subscriptions_, watchers_.size()};
}

void WatchHub::Index(const std::string& key, const std::shared_ptr<SubscriberState>& subscriber) {
  const MutexLock lock(mu_);
  if (index_[key].insert(subscriber).second) ++subscriptions_;
}

void WatchHub::IndexSubtree(const std::string& key,
                            const std::shared_ptr<SubscriberState>& subscriber) {
  const MutexLock lock(mu_);
  if (subtrees_[key].insert(subscriber).second) ++subscriptions_;
}

void WatchHub::Unindex(const std::string& key, const std::shared_ptr<SubscriberState>& subscriber) {
  const MutexLock lock(mu_);
  Erase(index_, key, subscriber);
}

void WatchHub::UnindexSubtree(const std::string& key,
                              const std::shared_ptr<SubscriberState>& subscriber) {
  const MutexLock lock(mu_);
  Erase(subtrees_, key, subscriber);
}

void WatchHub::Erase(Interest& interest, const std::string& key,
                     const std::shared_ptr<SubscriberState>& subscriber) {
  const auto it = interest.find(key);
  if (it == interest.end()) return;
  subscriptions_ -= it->second.erase(subscriber);
  if (it->second.empty()) interest.erase(it);
}

void WatchHub::Remove(const std::shared_ptr<SubscriberState>& subscriber) {
  const MutexLock lock(mu_);
  subscribers_.erase(subscriber);
}

void WatchHub::Remove(const std::shared_ptr<WatcherState>& watcher) {
  const MutexLock lock(mu_);
  watchers_.erase(watcher);
}

}  // namespace datawire::directory
