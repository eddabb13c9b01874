#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "history_checker.h"
#include "node.h"

namespace datawire::directory {

/// What the clients of a node did and saw, over all its lives. A key is an address, at which one
/// endpoint is ever registered; the value is a label of it. Thread-safe, but for what says so.
class Witness {
 public:
  /// A moment on the clock of the history: later calls give later ones.
  uint64_t Now() { return ++clock_; }
  void Add(std::vector<harness::HistoryOp> ops);
  /// Revisions acknowledged, also of what is no op on a key.
  void Acknowledged(Revision at);

  // While no load runs.
  /// The power is off: what is without an end took effect by now, or never will.
  void Cut();
  harness::History& history() { return history_; }
  /// Keys since the last call.
  std::set<std::string> TakeTouched() { return std::exchange(touched_, {}); }
  std::vector<const harness::HistoryOp*> OpsOf(const std::string& key) const;
  const std::set<uint64_t>& acknowledged() const { return acknowledged_; }
  /// The greatest revision anyone was told.
  Revision told() const { return told_; }

 private:
  std::atomic<uint64_t> clock_{0};
  std::mutex mutex_;
  harness::History history_;
  std::map<std::string, std::vector<size_t>> by_key_;
  size_t ended_ = 0;  // ops before this one have an end
  std::set<std::string> touched_;
  std::set<uint64_t> acknowledged_;
  Revision told_;
};

/// A session that a process left open, for another one to resume.
struct LeftSession {
  std::string id, secret;
  uint64_t attach_number = 1;
  std::vector<std::string> keys;   ///< registered
  std::vector<std::string> maybe;  ///< perhaps: nobody knows
};

/// What the load passes on from one life of a node to the next. Thread-safe by its mutex.
struct LoadState {
  Witness witness;
  std::mutex mutex;
  std::vector<LeftSession> sessions;
  std::vector<std::vector<std::string>> left;   // static calls that nobody uses now
  std::vector<std::vector<std::string>> calls;  // keys only ever changed together
  std::vector<std::string> torn;                // calls of which a reader saw a part
};

/// Runs the load until the node's disc is off or `stop`: registrations, withdrawals and reads of
/// static records, on keys of their own and on contended ones; sessions that open, register,
/// withdraw, are left or resumed, and end. `life` tells the keys of this node's life from those
/// of others. Returns when all its threads are done.
void RunLoad(Node& node, int life, uint64_t seed, const std::atomic<bool>& stop, LoadState& state);

/// The values of keys as one resolve says, empty: none. `at`: the least revision of the answers.
Result<std::vector<std::string>> ReadKeys(Directory& directory,
                                          const std::vector<std::string>& keys, Revision* at);

}  // namespace datawire::directory
