#include "engine/embedded.h"

#include <rocksdb/db.h>
#include <rocksdb/utilities/write_batch_with_index.h>

#include <algorithm>
#include <deque>
#include <thread>

#include "datawire/mutex.h"
#include "engine/admission.h"
#include "engine/ballast.h"
#include "engine/group.h"
#include "view/view.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;

constexpr auto kSlowCommit = 1s;     // a commit that takes longer: not healthy
constexpr auto kRetryEvery = 250ms;  // after a failure
constexpr auto kStopMost = 5s;       // Stop gives what is queued so long

Outcome Refusal(Status why) {
  Outcome out;
  out.status = std::move(why);
  return out;
}

class Embedded final : public Log {
 public:
  Embedded(View& view, BootClock::duration gather)
      : view_(view),
        gather_(gather),
        ballast_(*view.db().GetFileSystem(), view.path() + "/ballast",
                 view.options().reserve_bytes),
        last_ok_(BootClock::now()) {
    writer_ = std::thread([this] { Run(); });
  }
  ~Embedded() override { Stop(); }

  void Propose(Op op, BootTime deadline, Done done) override;
  void ReadBarrier(BootTime deadline, std::function<void(Result<Revision>)> done) override;
  Freshness Fresh() const override;
  std::string name() const override { return "embedded"; }
  void Stop() override;

 private:
  struct Item {
    Op op;
    BootTime deadline;
    Done done;
  };
  struct Answer {
    Done done;
    Outcome outcome;
  };

  // Writer thread.
  void Run();
  bool WaitForWork(std::deque<Item>* work);
  /// Returns how many ops are queued when those come again that were answered after a write that
  /// went well; 0: nothing to wait for.
  size_t Commit(std::deque<Item>& work);
  void Gather(size_t until);
  void Take(Item item, Group& group, std::deque<Answer>& answers);
  Status Write(const Group& group);
  Status Blocked(const Op& op);
  void LookAtSpace();
  void MakeRoom();
  void TryAgain();
  void SetHealth(const Status& status);

  View& view_;
  const BootClock::duration gather_;
  Ballast ballast_;  // writer thread only
  std::thread writer_;
  Mutex stop_mutex_;  // one Stop at a time; held while joining

  mutable Mutex mutex_;
  Condition wake_;
  std::deque<Item> queue_ DW_GUARDED_BY(mutex_);
  Admission admission_ DW_GUARDED_BY(mutex_);
  size_t wake_at_ DW_GUARDED_BY(mutex_) = 1;  // the writer wants to hear of that many
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  BootTime stop_by_ DW_GUARDED_BY(mutex_){};
  std::optional<BootTime> committing_since_ DW_GUARDED_BY(mutex_);
  BootTime last_ok_ DW_GUARDED_BY(mutex_);
  Status failure_ DW_GUARDED_BY(mutex_);  // why commits do not work

  // Writer thread only.
  rocksdb::WriteBatchWithIndex staged_{rocksdb::BytewiseComparator(), 0, /*overwrite_key=*/true};
  bool space_low_ = false, failed_ = false, resumable_ = false;
  BootTime tried_{};
  uint64_t free_ = ~0ull;
  std::string space_;
};

void Embedded::Propose(Op op, BootTime deadline, Done done) {
  Status refused = CheckOp(op);
  {
    const MutexLock lock(mutex_);
    if (refused.ok() && stopping_)
      refused = Status(Code::kUnavailable, "the directory is stopping");
    if (refused.ok()) refused = admission_.Admit(op, queue_.size());
    if (refused.ok()) {
      queue_.push_back({std::move(op), deadline, std::move(done)});
      if (queue_.size() != wake_at_) return;  // the writer is at work, or waits for more
    }
  }
  if (refused.ok()) {
    wake_.notify_one();
    return;
  }
  Outcome outcome;
  outcome.status = std::move(refused);
  outcome.at = view_.Applied();
  done(outcome);
  AfterGroup();
}

// All that was acknowledged is applied, and what is queued behind it is not: an op without guards
// or changes, in the queue like any other, proves that this is still the one that writes.
void Embedded::ReadBarrier(BootTime deadline, std::function<void(Result<Revision>)> done) {
  Propose({}, deadline, [done = std::move(done)](const Outcome& outcome) {
    if (outcome.status.ok())
      done(outcome.at);
    else
      done(outcome.status);
  });
}

Log::Freshness Embedded::Fresh() const {
  const BootTime now = BootClock::now();
  const MutexLock lock(mutex_);
  if (!failure_.ok()) return {last_ok_, false, failure_.message()};
  if (!committing_since_) return {now, true, ""};
  const auto since = now - *committing_since_;
  if (since < kSlowCommit) return {*committing_since_, true, ""};
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
  return {*committing_since_, false,
          "a commit has waited for the disc for " + std::to_string(ms) + " ms"};
}

void Embedded::Stop() {
  const MutexLock one(stop_mutex_);
  {
    const MutexLock lock(mutex_);
    if (!stopping_) stop_by_ = BootClock::now() + kStopMost;
    stopping_ = true;
  }
  wake_.notify_one();
  if (writer_.joinable()) writer_.join();
}

void Embedded::Run() {
  std::deque<Item> work;
  while (WaitForWork(&work)) {
    if (failed_ && BootClock::now() - tried_ >= kRetryEvery) TryAgain();
    size_t expected = 0;
    while (!work.empty()) expected = Commit(work);
    Gather(expected);
  }
}

bool Embedded::WaitForWork(std::deque<Item>* work) {
  MutexLock lock(mutex_);
  while (queue_.empty() && !stopping_) {
    if (!failed_) {
      wake_.wait(lock);
      continue;
    }
    wake_.wait_for(lock, kRetryEvery);
    if (queue_.empty() && !stopping_) break;  // nothing to write: try to get well
  }
  if (queue_.empty() && stopping_) return false;
  work->swap(queue_);
  return true;
}

// Who was just answered is likely to come again at once. Without this, callers that each wait for
// their answer would split: some are queued while the others are written, for ever.
void Embedded::Gather(size_t until) {
  if (until == 0) return;
  MutexLock lock(mutex_);
  wake_at_ = until;
  wake_.wait_for(lock, gather_,
                 [this]() DW_REQUIRES(mutex_) { return queue_.size() >= wake_at_ || stopping_; });
  wake_at_ = 1;
}

size_t Embedded::Commit(std::deque<Item>& work) {
  const BootTime now = BootClock::now();
  BootTime stop_by = BootTime::max();
  {
    const MutexLock lock(mutex_);
    committing_since_ = now;
    if (stopping_) stop_by = stop_by_;
  }
  LookAtSpace();
  const Revision applied = view_.Applied();
  Group group({applied.epoch, applied.number + 1},
              [this](const std::string& key) { return view_.Get(key); });
  std::deque<Answer> answers;
  size_t taken = 0;
  while (!work.empty()) {
    Item& item = work.front();
    const size_t takes = Admission::ChangesThatTake(item.op);
    if (now > item.deadline || now > stop_by) {
      answers.push_back({std::move(item.done),
                         Refusal({Code::kUnavailable, "not written: its deadline passed first"})});
    } else if (Status blocked = Blocked(item.op); !blocked.ok()) {
      answers.push_back({std::move(item.done), Refusal(std::move(blocked))});
    } else if (group.Fits(item.op)) {
      Take(std::move(item), group, answers);
    } else {
      break;
    }
    taken += takes;
    work.pop_front();
  }
  if (group.writes()) MakeRoom();
  const Status written = group.writes() ? Write(group) : Status::Ok();
  if (group.writes()) SetHealth(written);
  size_t queued = 0;
  {
    const MutexLock lock(mutex_);
    committing_since_.reset();
    admission_.Leave(taken);
    if (failure_.ok()) last_ok_ = BootClock::now();
    queued = queue_.size();  // before anybody answered can be among them
  }
  const Revision at = view_.Applied();
  for (Answer& answer : answers) {
    if (answer.outcome.status.ok()) {
      answer.outcome.status = written;
      answer.outcome.at = at;
    }
    answer.done(answer.outcome);
  }
  AfterGroup();
  return group.writes() && written.ok() ? queued + answers.size() : 0;
}

void Embedded::Take(Item item, Group& group, std::deque<Answer>& answers) {
  Outcome outcome = group.Add(item.op);
  if (!outcome.status.ok()) outcome.at = view_.Applied();
  answers.push_back({std::move(item.done), std::move(outcome)});
}

Status Embedded::Write(const Group& group) {
  const Revision at = group.batch().at;
  staged_.Clear();
  if (Status staged = view_.Stage(group.batch(), staged_); !staged.ok()) {
    view_.Discard(at);
    return {Code::kUnavailable, "not written: " + staged.message()};
  }
  rocksdb::WriteOptions options;
  options.sync = view_.options().sync;
  const rocksdb::Status status = view_.db().Write(options, staged_.GetWriteBatch());
  if (status.ok()) {
    view_.Publish(at);
    return {};
  }
  view_.Discard(at);
  failed_ = true;
  resumable_ = status.IsNoSpace() || status.subcode() == rocksdb::Status::kNoSpace;
  tried_ = BootClock::now();
  if (resumable_)
    return Status(Code::kOverloaded, "no space on the disc of " + view_.path()).set_retry_after(1s);
  return {Code::kOutcomeUnknown,
          "a write to the disc failed, the store must be reopened: restart "
          "the directory (" +
              status.ToString() + ")"};
}

Status Embedded::Blocked(const Op& op) {
  const bool only_reads = op.changes.empty();
  if (failed_) {
    const MutexLock lock(mutex_);
    if (resumable_) return failure_;
    return {Code::kUnavailable, "not written: " + failure_.message()};
  }
  if (space_low_ && !op.frees_space && !only_reads)
    return Status(Code::kOverloaded, space_).set_retry_after(1s);
  return {};
}

// Below the reserve only ops that free space go through, and until the ballast is back: with what
// is left a withdraw can still be written and compaction can still work.
void Embedded::LookAtSpace() {
  const uint64_t reserve = view_.options().reserve_bytes;
  if (reserve == 0 || !view_.db().GetEnv()->GetFreeSpace(view_.path(), &free_).ok()) return;
  if (!ballast_.complete() && free_ >= 2 * reserve) ballast_.Take();
  space_low_ = free_ < reserve || !ballast_.complete();
  if (space_low_)
    space_ = "no space: " + std::to_string(free_ >> 10) + " KiB are free on the disc of " +
             view_.path() + ", at least " + std::to_string(reserve >> 9) + " KiB are wanted";
}

// The ballast goes as late as can be, lest another program take its room too, but before a write
// would fail: RocksDB needs seconds to recover from one.
void Embedded::MakeRoom() {
  if (free_ < view_.options().reserve_bytes / 4) ballast_.Release();
}

// RocksDB recovers by itself from a lack of space, and refuses writes until it has. (Its Resume()
// can wait for ever if a compaction fails meanwhile.) After any other failed write or sync it is
// unknown what the disc holds, and only reopening tells.
void Embedded::TryAgain() {
  tried_ = BootClock::now();
  if (!resumable_) return;
  rocksdb::WriteBatch nothing;
  if (!view_.db().Write({}, &nothing).ok()) return;
  failed_ = false;
  SetHealth(Status::Ok());
}

void Embedded::SetHealth(const Status& status) {
  const MutexLock lock(mutex_);
  failure_ = failed_ ? status : Status::Ok();
}

}  // namespace

Result<std::unique_ptr<Log>> OpenEmbedded(View& view, BootClock::duration gather) {
  return std::unique_ptr<Log>(new Embedded(view, gather));
}

}  // namespace datawire::directory
