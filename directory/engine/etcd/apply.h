#pragma once

#include <rocksdb/utilities/write_batch_with_index.h>

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "datawire/mutex.h"
#include "engine/etcd/follower.h"
#include "engine/etcd/transaction.h"
#include "engine/log.h"
#include "view/view.h"

namespace datawire::directory::etcd {

/// A proposal that waits for its end, or has it.
struct Answer {
  Op op;
  Log::Done done;
  BootTime deadline;
  Outcome outcome;
};

/// A part of a listing: all records of a range of keys at one revision. Value.
struct ListedPage {
  uint64_t at = 0;
  std::string from, to;  ///< [from, to)
  std::vector<Record> records;
  bool last = false;
};

/// Brings what etcd says into the view, in order, on one thread, and answers proposals there when
/// the view has their revision. Thread-safe.
class Apply {
 public:
  struct Hooks {
    std::function<void()> after_answers;
    /// The view moved to that revision number.
    std::function<void(uint64_t)> applied;
    /// The view is at that revision exactly, which put a key that is not followed.
    std::function<void(uint64_t, const Record&)> skipped;
    /// The view cannot go on: it, or what etcd holds, is not what it should be.
    std::function<void(Status)> failed;
  };
  Apply(View& view, NodeKeys keys, Hooks hooks);
  ~Apply();

  /// Waits while too much is queued. False: it is stopping.
  bool Push(std::vector<Followed> revisions);
  bool Push(ListedPage page);
  /// Answers when the view has `at`. kRepeated: with what that transaction is seen to have done.
  void Complete(uint64_t at, std::deque<Answer> answers, bool repeated, uint64_t number);
  /// Blocks until nobody waits for an answer, or it is stopping. False: `most` passed first.
  bool WaitAnswered(BootClock::duration most);
  /// A listing's last page is applied, or `failed` was called.
  void WaitListed();
  void Stop();

 private:
  struct Completion {
    std::deque<Answer> answers;
    bool repeated = false;
    uint64_t number = 0;
  };
  struct Work {
    std::vector<Followed> revisions;
    std::optional<ListedPage> page;
    size_t bytes = 0;
  };
  bool PushWork(Work work);
  // Its thread.
  void Run();
  bool WaitToRetry();
  Status Do(Work& work);
  Status ApplyRevisions(std::vector<Followed>& revisions);
  Status ApplyPage(ListedPage& page);
  Status Write(uint64_t at);
  void AnswerUpTo(uint64_t applied);
  void Decide(Completion& completion);
  void Tell(std::deque<Answer>& answers);

  View& view_;
  const NodeKeys keys_;
  const Hooks hooks_;

  // Its thread only.
  rocksdb::WriteBatchWithIndex staged_{rocksdb::BytewiseComparator(), 0, /*overwrite_key=*/true};
  Batch listing_;  // differences found so far
  size_t listing_bytes_ = 0;
  std::map<uint64_t, std::set<std::string>> own_;  // keys of own transactions, by number

  mutable Mutex mutex_;
  Condition wake_, idle_;
  std::deque<Work> work_ DW_GUARDED_BY(mutex_);
  size_t work_bytes_ DW_GUARDED_BY(mutex_) = 0;
  std::multimap<uint64_t, Completion> waiting_ DW_GUARDED_BY(mutex_);
  bool answering_ DW_GUARDED_BY(mutex_) = false;
  bool listing_now_ DW_GUARDED_BY(mutex_) = false;
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  bool failed_ DW_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace datawire::directory::etcd
