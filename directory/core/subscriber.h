#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/ground.h"

namespace datawire::directory {

class WatchHub;

/// One Subscribe stream: its addresses, which of them are dirty, and the hash of what was sent.
/// Memory is bounded by the subscriptions. Thread-safe.
class SubscriberState : public std::enable_shared_from_this<SubscriberState> {
 public:
  SubscriberState(std::shared_ptr<Ground> ground, std::shared_ptr<WatchHub> hub, Stream& stream)
      : gate(stream), ground_(std::move(ground)), hub_(std::move(hub)) {}

  Status OnRequest(const pb::SubscribeRequest& request);
  std::optional<std::string> Next();
  /// The answer of this address may have changed.
  void MarkDirty(const std::string& key);
  /// A mark is due when the last one is a second old; wakes also for what failed before.
  void Tick(BootTime now);
  void Close();

  StreamGate gate;

 private:
  struct Subscription {
    Address address;
    std::optional<uint64_t> hash;  // of the answer the client holds
    bool dirty = true;
    bool confirm = false;  // it said what it holds and waits for a word
  };
  struct Due {
    std::string key;
    Address address;
    std::optional<uint64_t> hash;
    bool confirm;
  };
  struct Packed {
    std::string message;
    size_t taken = 0;  // of the due ones
    std::vector<std::pair<std::string, uint64_t>> sent;
  };
  void Add(const pb::SubscribeRequest::Held& held);
  void Refuse(const std::string& address, const Status& status);
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
  std::deque<std::string> dirty_;
  std::vector<pb::RefusedAddress> refused_;
  Revision acknowledged_;
  BootTime marked_at_{};
  bool mark_due_ = true, first_ = true, woken_ = false, closed_ = false;
};

}  // namespace datawire::directory
