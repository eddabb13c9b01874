#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/ground.h"
#include "datawire/mutex.h"

namespace datawire::directory {

class WatchHub;

/// The key of an address and of each of its ancestors; the address first.
std::vector<std::string> WithAncestors(std::string key);

/// One Subscribe stream: its addresses, which of them are dirty, and the hash of what was sent. A
/// subtree holds the registered addresses below it like addresses asked for one by one, and lists
/// them a page at a time. Memory is bounded by limits::kSubscriptions. Thread-safe.
class SubscriberState : public std::enable_shared_from_this<SubscriberState> {
 public:
  SubscriberState(std::shared_ptr<Ground> ground, std::shared_ptr<WatchHub> hub, Peer from,
                  Stream& stream)
      : gate(stream), peer(std::move(from)), ground_(std::move(ground)), hub_(std::move(hub)) {}

  /// One at a time.
  Status OnRequest(const pb::SubscribeRequest& request);
  std::optional<std::string> Next();
  /// The answer of this address may have changed.
  void MarkDirty(const std::string& key);
  /// The answer of this address below one of the subtrees may have changed, or it is new.
  void MarkBelow(const Address& address);
  /// A mark is due when the last one is a second old; wakes also for what failed before.
  void Tick(BootTime now);
  void Close();
  /// The client has taken in all up to `at`, or is gone.
  bool Acknowledged(Revision at);

  StreamGate gate;
  const Peer peer;

 private:
  struct Subscription {
    Address address;
    std::optional<uint64_t> hash;  // of the answer the client holds
    bool dirty = false;
    bool confirm = false;  // it said what it holds and waits for a word
    bool asked = false;    // by itself; else it is here for a subtree, and goes when not registered
  };
  struct Subtree {
    Address prefix;
    uint64_t number;    // tells it from one that was dropped and added again
    std::string after;  // listed up to here
  };
  struct Due {
    std::string key;
    Address address;
    std::optional<uint64_t> hash;
    bool confirm, asked;
  };
  struct Packed {
    std::string message;
    size_t taken = 0;  // of the due ones
    std::vector<std::pair<std::string, uint64_t>> sent;
    std::vector<std::string> gone;  // not registered and not asked for
  };
  void Add(const pb::SubscribeRequest::Held& held);
  void AddSubtree(const pb::SubscribeRequest::Subtree& added);
  void Drop(const std::string& text);
  void DropSubtree(const std::string& text);
  void Refuse(const std::string& address, const Status& status, bool subtree = false);
  bool Full() const DW_REQUIRES(mu_) {
    return subscriptions_.size() + subtrees_.size() >= limits::kSubscriptions;
  }
  bool Covered(const std::string& key) const DW_REQUIRES(mu_);
  void PushRefused(const std::string& address, const Status& status, bool subtree) DW_REQUIRES(mu_);
  void MakeDue(const std::string& key, Subscription& subscription) DW_REQUIRES(mu_);
  void Hold(const Address& address, const std::string& key, const pb::SubscribeRequest::Held& held)
      DW_REQUIRES(mu_);
  bool HoldRegistered(const Address& address, const std::string& key) DW_REQUIRES(mu_);
  void EndSubtree(const std::string& key) DW_REQUIRES(mu_);
  void EndSubtreesOver(const std::string& key) DW_REQUIRES(mu_);
  void UnindexEnded();
  bool ListSome();
  std::vector<Due> TakeDue() DW_REQUIRES(next_mu_, mu_);
  Packed Pack(const std::vector<Due>& due);
  void PutBack(const std::vector<Due>& due, size_t from) DW_REQUIRES(mu_);
  bool AppendMark(Revision marked, std::string* message) DW_REQUIRES(mu_);
  void Wake();

  std::shared_ptr<Ground> ground_;
  std::shared_ptr<WatchHub> hub_;
  Mutex next_mu_;                               // one Next at a time; taken before mu_
  size_t batch_ DW_GUARDED_BY(next_mu_) = 256;  // how many answers are computed at once

  Mutex mu_;
  std::unordered_map<std::string, Subscription> subscriptions_ DW_GUARDED_BY(mu_);
  std::map<std::string, Subtree> subtrees_ DW_GUARDED_BY(mu_);
  std::deque<std::string> to_list_
      DW_GUARDED_BY(mu_);  // subtrees whose addresses are not all held yet
  std::vector<std::string> ended_ DW_GUARDED_BY(mu_);  // for want of room; the hub still has them
  uint64_t numbers_ DW_GUARDED_BY(mu_) = 0;
  std::deque<std::string> dirty_ DW_GUARDED_BY(mu_);
  std::vector<pb::RefusedAddress> refused_ DW_GUARDED_BY(mu_);
  Revision acknowledged_ DW_GUARDED_BY(mu_);
  BootTime marked_at_ DW_GUARDED_BY(mu_){};
  bool mark_due_ DW_GUARDED_BY(mu_) = true;
  bool first_ DW_GUARDED_BY(mu_) = true;
  bool woken_ DW_GUARDED_BY(mu_) = false;
  bool closed_ DW_GUARDED_BY(mu_) = false;
};

}  // namespace datawire::directory
