#include "memory_log.h"

#include <rocksdb/db.h>
#include <rocksdb/utilities/write_batch_with_index.h>

#include "engine/group.h"

namespace datawire::sim {

Status Apply(View& view, const Batch& batch) {
  rocksdb::WriteBatchWithIndex staged(rocksdb::BytewiseComparator(), 0, /*overwrite_key=*/true);
  DW_RETURN_IF_ERROR(view.Stage(batch, staged));
  const rocksdb::Status written = view.db().Write({}, staged.GetWriteBatch());
  if (!written.ok()) return {Code::kInternal, written.ToString()};
  view.Publish(batch.at);
  return {};
}

void MemoryLog::Propose(Op op, BootTime deadline, Done done) {
  Status refused = directory::CheckOp(op);
  if (refused.ok() && stopped_) refused = {Code::kUnavailable, "the directory is stopping"};
  if (!refused.ok()) {
    Outcome outcome;
    outcome.status = std::move(refused);
    outcome.at = view_.Applied();
    done(outcome);
    return AfterGroup();
  }
  if (queue_.empty()) waiting_since_ = BootClock::now();
  queue_.push_back({std::move(op), deadline, std::move(done), scheduler_.now()});
  Schedule();
}

void MemoryLog::ReadBarrier(BootTime deadline, std::function<void(Result<Revision>)> done) {
  Propose({}, deadline, [done = std::move(done)](const Outcome& outcome) {
    outcome.status.ok() ? done(outcome.at) : done(outcome.status);
  });
}

Log::Freshness MemoryLog::Fresh() const {
  const BootTime now = BootClock::now();
  if (Failing()) return {last_ok_, false, "writes fail"};
  if (queue_.empty()) return {now, true, ""};
  return {waiting_since_, now - waiting_since_ < 1s, ""};
}

void MemoryLog::Schedule() {
  if (scheduled_) return;
  scheduled_ = true;
  const Time when = scheduler_.now() + scheduler_.Between(50us, commit_most);
  scheduler_.At(std::max(when, stalled_until_), &process_, [this] { Commit(); });
}

void MemoryLog::Commit() {
  scheduled_ = false;
  if (scheduler_.now() < stalled_until_) return Schedule();
  const BootTime now = BootClock::now();
  const Revision applied = view_.Applied();
  directory::Group group({applied.epoch, applied.number + 1},
                         [this](const std::string& key) { return view_.Get(key); });
  std::vector<std::pair<Done, Outcome>> answers;
  Decided decided;
  while (!queue_.empty()) {
    Item& item = queue_.front();
    Outcome outcome;
    if (now > item.deadline) {
      outcome.status = {Code::kUnavailable, "not written: its deadline passed first"};
    } else if (Failing() && !item.op.changes.empty()) {
      outcome.status = {Code::kUnavailable, "not written: writes fail"};
    } else if (!group.Fits(item.op)) {
      break;
    } else {
      for (const directory::Change& change : item.op.changes)
        if (change.key.starts_with("t/")) decided[change.key] = item.proposed;
      outcome = group.Add(item.op);
      if (!outcome.status.ok()) outcome.at = applied;
    }
    answers.emplace_back(std::move(item.done), std::move(outcome));
    queue_.pop_front();
  }
  if (group.writes() && !Write(group.batch(), decided)) return;
  if (!Failing()) last_ok_ = now;
  waiting_since_ = now;
  const Revision at = view_.Applied();
  for (auto& [done, outcome] : answers)
    if (outcome.status.ok()) outcome.at = at;
  scheduled_ = true;  // one commit at a time: its answers come before the next
  scheduler_.After(scheduler_.Between(1us, commit_most / 4), &process_, [this, answers] {
    scheduled_ = false;
    for (const auto& [done, outcome] : answers) done(outcome);
    AfterGroup();
    if (!queue_.empty()) Schedule();
  });
}

bool MemoryLog::Write(const Batch& batch, const Decided& decided) {
  if (const Status status = Apply(view_, batch); !status.ok()) {
    scheduler_.Fail("the view refuses a batch: " + status.ToString());
    return false;
  }
  observer_(batch, decided);
  return !scheduler_.failed();
}

void FollowerLog::Propose(Op, BootTime, Done done) {
  Outcome outcome;
  outcome.status = {Code::kUnavailable, "not written: this is a replica"};
  outcome.at = view_.Applied();
  done(outcome);
  AfterGroup();
}

}  // namespace datawire::sim
