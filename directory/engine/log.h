#pragma once

#include <absl/container/flat_hash_map.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "datawire/clock.h"
#include "datawire/result.h"
#include "datawire/revision.h"

namespace rocksdb {
class WriteBatchWithIndex;
}

namespace datawire::directory {

/// One stored key: value and the revision numbers of its creation and last change. Value.
struct Record {
  std::string key, value;
  uint64_t created = 0, modified = 0;
};

/// A condition on the state before the whole batch. Value.
struct Guard {
  enum Is { kAbsent, kExists, kModEquals, kCreateEquals } is = kAbsent;
  std::string key;
  uint64_t revision = 0;
};

/// Put or erase of one key. Value.
struct Change {
  bool erase = false;
  std::string key, value;
};

/// All or nothing. A key appears at most once in `changes`. Up to 7 guards and 7 changes share a
/// group commit; a larger op gets a transaction of its own. Value.
struct Op {
  std::vector<Guard> guards;
  std::vector<Change> changes;
  std::string read_on_failure;  ///< key whose record is returned when a guard fails; may be empty
  bool frees_space = false;     ///< goes through when there is no space, or many others wait
};

/// What became of an op. Value.
struct Outcome {
  /// OK; kConflict: a guard failed and nothing was written; kOverloaded: the queue or the disc is
  /// full; kUnavailable: not written; kOutcomeUnknown: after the deadline, or the disc failed.
  Status status;
  Revision at;  ///< OK: the commit's revision. Else: a revision at which the guard failed
  std::vector<Record> read;  ///< guard failed: the record of read_on_failure, if it exists
};

/// One revision, applied atomically. Value.
struct Batch {
  Revision at;
  std::vector<Record> puts;
  std::vector<std::string> erased;
  /// Records as they were before, where the engine has read them anyway; nullopt: absent.
  absl::flat_hash_map<std::string, std::optional<Record>> before;
  /// What is there at `at`, instead of what happened: no events and no audit log follow from it.
  /// Not `complete`: more of it comes, until then the view is at no revision.
  bool listing = false, complete = true;
};

/// The view, as an engine sees it: all calls from the engine's one apply thread, in revision order.
class Applier {
 public:
  virtual ~Applier() = default;
  /// Adds the records and all that derives from them (rows, index, history, sweep queue) to `out`.
  /// No clock, thread or network; reads only the store and what is already staged.
  virtual Status Stage(const Batch& batch, rocksdb::WriteBatchWithIndex& out) = 0;
  /// After the write: rows are replaced in the cache, Applied() moves, watchers are told.
  virtual void Publish(Revision at) = 0;
  /// The write of what was staged failed: forget it.
  virtual void Discard(Revision at) = 0;
  virtual Revision Applied() const = 0;
};

/// The ordered log of changes. Thread-safe. `done` runs once, on the engine's thread (refused at
/// once: on the caller's), after the applier published the revision; it must not block.
class Log {
 public:
  using Done = std::function<void(const Outcome&)>;

  struct Freshness {
    BootTime fresh_as_of{};  ///< when this node last knew itself to be current
    bool healthy = false;    ///< commits work and are quick
    std::string reason;      ///< when not healthy
  };

  virtual ~Log() = default;
  /// `run` follows the last `done` of a group, on the same thread: who gathered what they said
  /// passes it on at once. Once, before the first Propose.
  void SetAfterGroup(std::function<void()> run) {
    after_group_ = std::move(run);
    has_after_group_.store(true,
                           std::memory_order_release);  // an engine's own ops have groups, too
  }
  /// Group-committed, in the order proposed by one thread. Proposing the same op again is safe when
  /// its guards say so.
  virtual void Propose(Op op, BootTime deadline, Done done) = 0;
  /// A linearizable revision; wait for Applied() >= it, then read locally.
  virtual void ReadBarrier(BootTime deadline, std::function<void(Result<Revision>)> done) = 0;
  virtual Freshness Fresh() const = 0;
  /// The view can be read: a replica's was listed to its end.
  virtual bool ready() const { return true; }
  /// What this node does for the whole cluster (`reaper`, `compactor`) only while it has the role:
  /// guards for each op that it does in it; nothing: another has it. Alone, a node has them all.
  virtual std::optional<std::vector<Guard>> Role(const std::string&) const {
    return std::vector<Guard>{};
  }
  /// Others write, too: sessions may be theirs.
  virtual bool shared() const { return false; }
  /// This node serves: what others may know of it, an encoded record.v1.NodeAlive.
  virtual void Announce(std::string) {}
  /// Replicas at one revision, and the hash of all records that each found. Value.
  struct Comparison {
    Revision at;
    std::vector<std::pair<std::string, std::string>> hashes;  ///< node, hex
    std::vector<std::string> missing;                         ///< live nodes that did not say
  };
  /// Compares all live replicas now.
  virtual void Compare(BootTime, std::function<void(Result<Comparison>)> done) {
    done(Status(Code::kUnsupported, "the embedded engine has one store: nothing to compare with"));
  }
  /// What an operator must know though commits work; empty: nothing.
  virtual std::string alarm() const { return ""; }
  /// One of those who keep the log, as it says itself. Value.
  struct Member {
    std::string endpoint;
    Status reached;      ///< not OK: it did not answer
    std::string reason;  ///< why it is not well though it answers
    bool leader = false, no_space = false;
    std::string version;
    uint64_t revision = 0, db_bytes = 0, in_use_bytes = 0;
  };
  /// Asks each, all at a time; blocks so long at most. None: the log is in this process.
  virtual std::vector<Member> Members(std::chrono::milliseconds) { return {}; }
  /// Names and counts for /metrics (ops/METRICS.md).
  virtual std::vector<std::pair<std::string_view, uint64_t>> figures() const { return {}; }
  /// `embedded`, `etcd`.
  virtual std::string name() const = 0;
  /// Finishes what is queued within the deadline, refuses the rest. Idempotent.
  virtual void Stop() = 0;

 protected:
  /// An engine calls it after each `done`, or after the last of several that it runs in a row.
  void AfterGroup() const {
    if (has_after_group_.load(std::memory_order_acquire)) after_group_();
  }

 private:
  std::function<void()> after_group_;
  std::atomic<bool> has_after_group_{false};
};

}  // namespace datawire::directory
