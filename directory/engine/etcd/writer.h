#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <thread>

#include "datawire/mutex.h"
#include "engine/admission.h"
#include "engine/etcd/apply.h"
#include "engine/etcd/client.h"

namespace datawire::directory::etcd {

/// kFenced: what a run of a node ends with when it is not the node's any more.
Status AnotherRun(const NodeKeys& keys);

/// Takes proposals in the order they come, forms transactions of them, one under way at a time, and
/// sends each until it is known what became of it, to one member after another. One that is
/// full is sent while the one before is still being applied; else that is waited for, and what
/// comes meanwhile shares the next. Thread-safe.
class Writer {
 public:
  struct Figures {
    std::atomic<uint64_t> transactions{0}, ops{0}, repeated{0}, resent{0}, fenced{0}, no_space{0};
  };

  /// `failed`: another run of this node has taken over. All outlive it.
  Writer(Client& client, Apply& apply, NodeKeys keys, std::function<void(Status)> failed);
  ~Writer();

  /// False: refused, and `done` has run.
  bool Propose(Op op, BootTime deadline, Log::Done done);
  /// Where transactions go now.
  size_t member() const { return member_; }
  /// The revision number from which on this run is the node's; 0: it is not known to etcd yet.
  uint64_t joined_at() const { return joined_at_; }
  bool space_low() const { return space_low_; }
  const Figures& figures() const { return figures_; }
  /// Finishes what is queued within the deadline, refuses the rest. Idempotent.
  void Stop(BootTime deadline);

 private:
  // Its thread.
  void Run();
  bool WaitForWork();
  void Join();
  void CommitNext();
  /// False: nothing of it is left to send.
  bool Form(Transaction* transaction, std::deque<Answer>* taken);
  void Send(const Transaction& transaction, std::deque<Answer> taken);
  void Settle(const Verdict& verdict, std::deque<Answer> taken, uint64_t number);
  void PutBack(std::deque<Answer> taken);
  void RefuseWhatTakesSpace(std::deque<Answer>* taken);
  void Refuse(std::deque<Answer> answers);
  bool Pause(BootClock::duration most);
  BootTime StopBy() const;
  void LookAtSpace();

  Client& client_;
  Apply& apply_;
  const NodeKeys keys_;
  const std::function<void(Status)> failed_;

  std::atomic<size_t> member_{0};
  std::atomic<uint64_t> joined_at_{0};
  std::atomic<bool> space_low_{false};
  Figures figures_;
  // Its thread only.
  uint64_t slot_ = 0;    // what the slot holds, as far as is known
  uint64_t number_ = 0;  // of the latest transaction
  size_t most_ = 128;    // operations etcd takes
  bool over_ = false;
  BootTime looked_at_{};

  mutable Mutex mutex_;
  Condition wake_;
  std::deque<Answer> queue_ DW_GUARDED_BY(mutex_);
  Admission admission_ DW_GUARDED_BY(mutex_);
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  BootTime stop_by_ DW_GUARDED_BY(mutex_) = BootTime::max();
  std::thread thread_;
};

}  // namespace datawire::directory::etcd
