#pragma once

#include <absl/container/flat_hash_set.h>

#include <optional>
#include <string>
#include <vector>

#include "engine/etcd/api.pb.h"
#include "engine/log.h"

namespace datawire::directory::etcd {

namespace api = ::etcdserverpb;

/// All keys of a directory begin with it; the etcd is its own (CLUSTER.md, trap 3).
inline constexpr char kPrefix[] = "datawire/";
inline constexpr char kPrefixEnd[] = "datawire0";

/// How a run of a node is known in etcd, and what its transactions are fenced by. Value.
struct NodeKeys {
  std::string node, incarnation;

  std::string Run() const { return std::string(kPrefix) + "n/" + node; }
  std::string Slot() const { return std::string(kPrefix) + "b/" + node + "/slot"; }
  /// What the slot holds after the transaction of that number, from 1; 0: as the node joined.
  std::string SlotValue(uint64_t number) const {
    return incarnation + " " + std::to_string(number);
  }
  /// The number in such a value; nothing: it is none of this run.
  std::optional<uint64_t> NumberIn(const std::string& slot) const;
};

/// Asks for the next records of [from, to) at a revision, 0: the present one.
api::RangeRequest PageRequest(const std::string& from, const std::string& to, uint64_t at);

/// Makes a run the node's, its slot at 0. Done once, also when it is sent again, or arrives late.
api::TxnRequest JoinRequest(const NodeKeys& keys);

/// Record of a key of ours.
Record FromKeyValue(const api::KeyValue& kv);

/// What became of one op of a transaction. Value.
struct OpResult {
  bool held = false;           ///< its guards did, and its changes are made
  std::optional<Record> read;  ///< not held: what it asked for, if that exists
};

/// What etcd says to a transaction. Value.
struct Verdict {
  enum What {
    kCommitted,
    kRepeated,  ///< this transaction was committed before, at `at`; etcd tells no results again
    kEarlier,   ///< nothing was done: the slot holds `slot`, that of an earlier transaction
    kForeign,   ///< nothing was done: another run of the node has taken over, or its keys are gone
  } what = kForeign;
  uint64_t at = 0;                ///< revision number: of the commit, or at which it was looked at
  uint64_t slot = 0;              ///< kEarlier: the number of that one
  std::vector<OpResult> results;  ///< kCommitted: one for each op
};

/// Ops that share one transaction: each nested with its own guards, so that one that is refused
/// disturbs no other; fenced by the node's run and, with a slot, numbered: sent twice, it is done
/// once, and one that arrives late changes nothing. Guards see the state before it.
/// Thread-compatible.
class Transaction {
 public:
  /// Operations etcd takes in a transaction, of which one op has at most its own, are `most`.
  explicit Transaction(size_t most) : most_(most) {}

  /// False: it touches a key that this one writes, or there is no room.
  bool Fits(const Op& op) const;
  void Add(const Op& op);
  size_t ops() const { return nested_.size(); }

  /// `slot`: (number before, number of this one). None where there is no space: the flat put is
  /// what etcd's quota counts.
  api::TxnRequest Build(const NodeKeys& keys,
                        const std::optional<std::pair<uint64_t, uint64_t>>& slot) const;
  /// Of a response to such a request.
  static Verdict Read(const api::TxnResponse& response, const NodeKeys& keys, bool with_slot,
                      uint64_t number);

 private:
  size_t most_;
  std::vector<api::TxnRequest> nested_;
  absl::flat_hash_set<std::string> written_;
  size_t bytes_ = 0, largest_ = 0;
};

}  // namespace datawire::directory::etcd
