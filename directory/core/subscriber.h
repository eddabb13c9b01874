#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/ground.h"

namespace datawire::directory {

class WatchHub;

/// Whether `holds` of the key of an address or of one of its ancestors; the address first.
template <typename Predicate>
bool AnyAncestor(std::string key, const Predicate& holds) {
  while (true) {
    if (holds(key)) return true;
    const size_t cut = key.rfind('\0');
    if (cut == std::string::npos) return false;
    key.resize(cut);
  }
}

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
  // With mu_ held.
  bool Full() const { return subscriptions_.size() + subtrees_.size() >= limits::kSubscriptions; }
  bool Covered(const std::string& key) const;
  void PushRefused(const std::string& address, const Status& status, bool subtree);
  void MakeDue(const std::string& key, Subscription& subscription);
  void Hold(const Address& address, const std::string& key, const pb::SubscribeRequest::Held& held);
  bool HoldRegistered(const Address& address, const std::string& key);
  void EndSubtree(const std::string& key);
  void EndSubtreesOver(const std::string& key);
  void UnindexEnded();
  bool ListSome();
  std::vector<Due> TakeDue();
  Packed Pack(const std::vector<Due>& due);
  void PutBack(const std::vector<Due>& due, size_t from);
  bool AppendMark(Revision marked, std::string* message);
  void Wake();

  std::shared_ptr<Ground> ground_;
  std::shared_ptr<WatchHub> hub_;
  std::mutex next_mu_;  // one Next at a time; taken before mu_
  size_t batch_ = 256;  // guarded by next_mu_: how many answers are computed at once

  std::mutex mu_;
  // Guarded by mu_.
  std::unordered_map<std::string, Subscription> subscriptions_;
  std::map<std::string, Subtree> subtrees_;
  std::deque<std::string> to_list_;  // subtrees whose addresses are not all held yet
  std::vector<std::string> ended_;   // for want of room; the hub still has them
  uint64_t numbers_ = 0;
  std::deque<std::string> dirty_;
  std::vector<pb::RefusedAddress> refused_;
  Revision acknowledged_;
  BootTime marked_at_{};
  bool mark_due_ = true, first_ = true, woken_ = false, closed_ = false;
};

}  // namespace datawire::directory
