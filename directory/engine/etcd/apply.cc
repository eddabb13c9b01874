#include "engine/etcd/apply.h"

#include <rocksdb/db.h>

#include <algorithm>
#include <utility>

namespace datawire::directory::etcd {
namespace {

using namespace std::chrono_literals;

constexpr size_t kQueueBytes = 64u << 20;    // of the watch, ahead of the view
constexpr size_t kListingBytes = 64u << 20;  // of differences: more, and it begins anew
constexpr size_t kRevisionsAtOnce = 500;     // in one write
constexpr size_t kOwnRemembered = 8;         // of own transactions: one is in flight

size_t BytesOf(const Record& record) {
  return record.key.size() + record.value.size() + 64;
}

size_t BytesOf(const Batch& batch) {
  size_t bytes = 128;
  for (const Record& put : batch.puts) bytes += BytesOf(put);
  for (const std::string& key : batch.erased) bytes += key.size() + 32;
  return bytes;
}

bool Same(const Record& a, const Record& b) {
  return a.modified == b.modified && a.created == b.created && a.value == b.value;
}

}  // namespace

Apply::Apply(View& view, NodeKeys keys, Hooks hooks)
    : view_(view), keys_(std::move(keys)), hooks_(std::move(hooks)) {
  thread_ = std::thread([this] { Run(); });
}

Apply::~Apply() {
  Stop();
}

bool Apply::Push(std::vector<Followed> revisions) {
  if (revisions.empty()) return true;
  Work work;
  for (const Followed& one : revisions) work.bytes += BytesOf(one.batch);
  work.revisions = std::move(revisions);
  return PushWork(std::move(work));
}

bool Apply::Push(ListedPage page) {
  Work work;
  for (const Record& record : page.records) work.bytes += BytesOf(record);
  work.page = std::move(page);
  return PushWork(std::move(work));
}

bool Apply::PushWork(Work work) {
  MutexLock lock(mutex_);
  idle_.wait(lock, [this]() DW_REQUIRES(mutex_) {
    return work_bytes_ < kQueueBytes || stopping_ || failed_;
  });
  if (stopping_ || failed_) return false;
  if (work.page) listing_now_ = true;
  work_bytes_ += work.bytes;
  work_.push_back(std::move(work));
  wake_.notify_one();
  return true;
}

void Apply::Complete(uint64_t at, std::deque<Answer> answers, bool repeated, uint64_t number) {
  if (answers.empty()) return;
  const MutexLock lock(mutex_);
  waiting_.emplace(at, Completion{std::move(answers), repeated, number});
  wake_.notify_one();
}

bool Apply::WaitAnswered(BootClock::duration most) {
  MutexLock lock(mutex_);
  return idle_.wait_for(lock, most, [this]() DW_REQUIRES(mutex_) {
    return stopping_ || (waiting_.empty() && !answering_);
  });
}

void Apply::WaitListed() {
  MutexLock lock(mutex_);
  idle_.wait(lock, [this]() DW_REQUIRES(mutex_) { return !listing_now_ || stopping_ || failed_; });
}

void Apply::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
    idle_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Apply::Run() {
  while (true) {
    Work work;
    bool some = false;
    {
      MutexLock lock(mutex_);
      // Without news from etcd answers are still due at their deadlines.
      wake_.wait_for(lock, 100ms, [this]() DW_REQUIRES(mutex_) {
        return stopping_ || !work_.empty() ||
               (!waiting_.empty() && waiting_.begin()->first <= view_.Applied().number);
      });
      if (stopping_) break;
      if (!work_.empty() && !failed_) {
        some = true;
        work = std::move(work_.front());
        work_.pop_front();
        work_bytes_ -= work.bytes;
      }
    }
    const bool last_page = work.page && work.page->last;
    if (some) {
      Status status = Do(work);
      while (status.code() == Code::kUnavailable && !work.page && WaitToRetry()) status = Do(work);
      if (!status.ok()) {
        {
          const MutexLock lock(mutex_);
          failed_ = true;
        }
        hooks_.failed(status);
      }
      hooks_.applied(view_.Applied().number);
    }
    AnswerUpTo(view_.Applied().number);
    const MutexLock lock(mutex_);
    if (last_page) listing_now_ = false;
    idle_.notify_all();
  }
  AnswerUpTo(view_.Applied().number);
  // The rest is committed, or may be; nobody will see it here.
  std::multimap<uint64_t, Completion> rest;
  {
    const MutexLock lock(mutex_);
    rest.swap(waiting_);
  }
  for (auto& [at, completion] : rest) {
    if (completion.repeated)
      for (Answer& answer : completion.answers)
        answer.outcome.status = {Code::kOutcomeUnknown, "the directory stopped before it was seen"};
    Tell(completion.answers);
  }
}

// The disc is full, or was: what waits for the view waits, and nothing is lost.
bool Apply::WaitToRetry() {
  MutexLock lock(mutex_);
  wake_.wait_for(lock, 250ms, [this]() DW_REQUIRES(mutex_) { return stopping_; });
  return !stopping_;
}

Status Apply::Do(Work& work) {
  if (work.page) return ApplyPage(*work.page);
  return ApplyRevisions(work.revisions);
}

Status Apply::ApplyRevisions(std::vector<Followed>& revisions) {
  size_t staged = 0;
  for (Followed& one : revisions) {
    if (one.batch.at <= view_.Applied()) continue;
    for (const Record& slot : one.slots) {
      if (kPrefix + slot.key != keys_.Slot()) continue;
      const auto number = keys_.NumberIn(slot.value);
      if (!number) continue;
      std::set<std::string>& keys = own_[*number];
      for (const Record& put : one.batch.puts) keys.insert(put.key);
      keys.insert(one.batch.erased.begin(), one.batch.erased.end());
      while (own_.size() > kOwnRemembered) own_.erase(own_.begin());
    }
    if (staged == 0) staged_.Clear();
    DW_RETURN_IF_ERROR(view_.Stage(one.batch, staged_));
    const bool told = std::any_of(one.slots.begin(), one.slots.end(), [](const Record& slot) {
      return slot.key.starts_with(kCheckKey) || slot.key.starts_with(kHashPrefix);
    });
    if (++staged < kRevisionsAtOnce && !told) continue;
    staged = 0;
    DW_RETURN_IF_ERROR(Write(one.batch.at.number));
    if (!told) continue;
    for (const Record& slot : one.slots) hooks_.skipped(one.batch.at.number, slot);
  }
  if (staged == 0) return {};
  return Write(revisions.back().batch.at.number);
}

Status Apply::Write(uint64_t at) {
  const Revision revision{view_.authority().epoch, at};
  rocksdb::WriteOptions options;
  options.disableWAL = !view_.options().wal;
  const rocksdb::Status status = view_.db().Write(options, staged_.GetWriteBatch());
  if (!status.ok()) {
    view_.Discard({revision.epoch, 0});
    return {Code::kUnavailable,
            "a write to the disc of " + view_.path() + " failed (" + status.ToString() + ")"};
  }
  view_.Publish(revision);
  return {};
}

// A view that holds something is compared with the page, so that it serves on and few records are
// written; an empty one takes it as it is.
Status Apply::ApplyPage(ListedPage& page) {
  const Revision at{view_.authority().epoch, page.at};
  const auto stage = [&](Batch batch, bool complete) -> Status {
    batch.at = at;
    batch.listing = true;
    batch.complete = complete;
    staged_.Clear();
    DW_RETURN_IF_ERROR(view_.Stage(batch, staged_));
    return Write(page.at);
  };
  if (view_.Applied().number == 0) {
    Batch batch;
    batch.puts = std::move(page.records);
    DW_RETURN_IF_ERROR(stage(std::move(batch), page.last));
    return page.last ? view_.Flush().status() : Status::Ok();
  }
  auto there = page.records.begin();
  const auto differs = [this](Record record) {
    listing_bytes_ += BytesOf(record);
    listing_.puts.push_back(std::move(record));
  };
  DW_RETURN_IF_ERROR(view_.Scan(page.from, page.to, [&](const Record& here) {
    while (there != page.records.end() && there->key < here.key) differs(std::move(*there++));
    if (there != page.records.end() && there->key == here.key) {
      if (!Same(*there, here)) differs(std::move(*there));
      ++there;
    } else {
      listing_bytes_ += here.key.size();
      listing_.erased.push_back(here.key);
    }
    return listing_bytes_ < kListingBytes;
  }));
  while (there != page.records.end()) differs(std::move(*there++));
  if (listing_bytes_ >= kListingBytes) {
    DW_RETURN_IF_ERROR(view_.MarkWrong());
    return {Code::kAborted, "this replica is so far behind that it begins anew"};
  }
  if (!page.last) return {};
  listing_bytes_ = 0;
  DW_RETURN_IF_ERROR(stage(std::exchange(listing_, {}), true));
  return view_.Flush().status();
}

void Apply::AnswerUpTo(uint64_t applied) {
  std::vector<Completion> ready;
  {
    const BootTime now = BootClock::now();
    const MutexLock lock(mutex_);
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      // Past the deadline the truth is told, though the view does not show it yet.
      const bool late = std::all_of(it->second.answers.begin(), it->second.answers.end(),
                                    [&](const Answer& answer) { return answer.deadline < now; });
      if (it->first > applied && !late) {
        ++it;
        continue;
      }
      ready.push_back(std::move(it->second));
      it = waiting_.erase(it);
    }
    answering_ = !ready.empty();
  }
  if (ready.empty()) return;
  for (Completion& completion : ready) {
    if (completion.repeated) Decide(completion);
    Tell(completion.answers);
  }
  const MutexLock lock(mutex_);
  answering_ = false;
  idle_.notify_all();
}

void Apply::Tell(std::deque<Answer>& answers) {
  const Revision applied = view_.Applied();
  for (Answer& answer : answers) {
    answer.outcome.at.epoch = applied.epoch;
    if (answer.outcome.at.number == 0) answer.outcome.at = applied;
    answer.done(answer.outcome);
  }
  hooks_.after_answers();
}

// Etcd has said that the transaction was done before, not how each op of it went: what its revision
// changed tells.
void Apply::Decide(Completion& completion) {
  const auto own = own_.find(completion.number);
  for (Answer& answer : completion.answers) {
    const Op& op = answer.op;
    const bool held = op.guards.empty() ||
                      (own != own_.end() &&
                       std::any_of(op.changes.begin(), op.changes.end(), [&](const Change& change) {
                         return own->second.contains(change.key);
                       }));
    if (held) continue;
    answer.outcome.status = {Code::kConflict, "a guard did not hold"};
    if (op.read_on_failure.empty()) continue;
    auto record = view_.Get(op.read_on_failure);
    if (record.ok() && *record) answer.outcome.read.push_back(std::move(**record));
  }
}

}  // namespace datawire::directory::etcd
