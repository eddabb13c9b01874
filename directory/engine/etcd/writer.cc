#include "engine/etcd/writer.h"

#include <algorithm>
#include <utility>

#include "engine/group.h"

namespace datawire::directory::etcd {
namespace {

using namespace std::chrono_literals;

constexpr auto kAttempt = 1000ms;  // of one member; then the same to the next
constexpr auto kSpaceEvery = 1s;   // while there is none
constexpr size_t kFull = 120;      // ops: sent before the one in front is applied

Client::Most Until(BootTime deadline) {
  const auto left = std::chrono::duration_cast<Client::Most>(deadline - BootClock::now());
  return std::clamp<Client::Most>(left, 10ms, kAttempt);
}

}  // namespace

Status AnotherRun(const NodeKeys& keys) {
  return {Code::kFenced, "another run of node " + Shown(keys.node) +
                             " has taken over, or its keys in etcd are gone: each node needs a "
                             "--node-id of its own"};
}

Writer::Writer(Client& client, Apply& apply, NodeKeys keys, std::function<void(Status)> failed)
    : client_(client), apply_(apply), keys_(std::move(keys)), failed_(std::move(failed)) {
  thread_ = std::thread([this] { Run(); });
}

Writer::~Writer() {
  Stop(BootClock::now());
}

bool Writer::Propose(Op op, BootTime deadline, Log::Done done) {
  Status refused = CheckOp(op);
  {
    const MutexLock lock(mutex_);
    if (refused.ok() && stopping_)
      refused = Status(Code::kUnavailable, "the directory is stopping");
    if (refused.ok()) refused = admission_.Admit(op, queue_.size());
    if (refused.ok()) {
      queue_.push_back({std::move(op), std::move(done), deadline, {}});
      wake_.notify_one();
      return true;
    }
  }
  Answer answer{{}, std::move(done), deadline, {}};
  answer.outcome.status = std::move(refused);
  answer.done(answer.outcome);
  return false;
}

void Writer::Stop(BootTime deadline) {
  {
    const MutexLock lock(mutex_);
    if (!stopping_) stop_by_ = deadline;
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

BootTime Writer::StopBy() const {
  const MutexLock lock(mutex_);
  return stop_by_;
}

void Writer::Run() {
  Join();
  while (WaitForWork()) CommitNext();
}

bool Writer::WaitForWork() {
  while (true) {
    {
      MutexLock lock(mutex_);
      wake_.wait(lock, [this]() DW_REQUIRES(mutex_) { return !queue_.empty() || stopping_; });
      if (queue_.empty()) return false;
      if (queue_.size() >= kFull || stopping_) return true;
    }
    if (apply_.WaitAnswered(20ms)) return true;
  }
}

// A run makes itself known before it writes anything, and whatever a former one still has on its
// way is refused from then on.
void Writer::Join() {
  const api::TxnRequest request = JoinRequest(keys_);
  while (true) {
    {
      const MutexLock lock(mutex_);
      if (stopping_) return;
    }
    const auto response = client_.Txn(member_, request, kAttempt);
    if (response.ok()) {
      joined_at_ = static_cast<uint64_t>(response->header().revision());
      return;
    }
    if (response.status().code() == Code::kCancelled) return;
    member_ = (member_ + 1) % client_.members();
    Pause(50ms);
  }
}

void Writer::CommitNext() {
  if (space_low_) LookAtSpace();
  Transaction transaction(most_);
  std::deque<Answer> taken;
  if (!Form(&transaction, &taken)) return;
  Send(transaction, std::move(taken));
}

bool Writer::Form(Transaction* transaction, std::deque<Answer>* taken) {
  const BootTime now = BootClock::now();
  std::deque<Answer> refused;
  {
    const MutexLock lock(mutex_);
    while (!queue_.empty()) {
      Answer& front = queue_.front();
      Status status;
      if (now > front.deadline || now > stop_by_)
        status = {Code::kUnavailable, "not written: its deadline passed first"};
      else if (over_ || joined_at_ == 0)
        status = {Code::kUnavailable, "not written: this node is not part of the cluster"};
      else if (space_low_ && Admission::ChangesThatTake(front.op) > 0)
        status = Status(Code::kOverloaded, "etcd has no space").set_retry_after(1s);
      if (status.ok() && !transaction->Fits(front.op)) break;
      admission_.Leave(front.op);
      if (status.ok()) {
        transaction->Add(front.op);
        taken->push_back(std::move(front));
      } else {
        front.outcome.status = std::move(status);
        refused.push_back(std::move(front));
      }
      queue_.pop_front();
    }
  }
  Refuse(std::move(refused));
  return !taken->empty();
}

void Writer::Refuse(std::deque<Answer> answers) {
  apply_.Complete(0, std::move(answers), false, 0);
}

void Writer::PutBack(std::deque<Answer> taken) {
  const MutexLock lock(mutex_);
  for (auto it = taken.rbegin(); it != taken.rend(); ++it) {
    static_cast<void>(admission_.Admit(it->op, 0));  // it was admitted before
    queue_.push_front(std::move(*it));
  }
}

void Writer::Send(const Transaction& transaction, std::deque<Answer> taken) {
  const uint64_t number = ++number_;
  BootTime deadline{};
  for (const Answer& answer : taken) deadline = std::max(deadline, answer.deadline);
  ++figures_.transactions;
  figures_.ops += transaction.ops();
  bool perhaps = false;  // an attempt may have been done
  for (size_t attempt = 0;; ++attempt) {
    const bool with_slot = !space_low_;
    std::optional<std::pair<uint64_t, uint64_t>> slot;
    if (with_slot) slot.emplace(slot_, number);
    const auto response =
        client_.Txn(member_, transaction.Build(keys_, slot), Until(std::min(deadline, StopBy())));
    if (response.ok()) {
      const Verdict verdict = Transaction::Read(*response, keys_, with_slot, number);
      if (verdict.what == Verdict::kEarlier) {
        slot_ = verdict.slot;  // one that was given up was done after all
        continue;
      }
      return Settle(verdict, std::move(taken), number);
    }
    const Status& status = response.status();
    if (status.code() == Code::kOverloaded) {
      ++figures_.no_space;
      space_low_ = true;
      looked_at_ = BootClock::now();
      RefuseWhatTakesSpace(&taken);
      return PutBack(std::move(taken));
    }
    if (status.code() == Code::kInvalid && transaction.ops() > 1) {
      most_ = std::max<size_t>(most_ / 2, 16);
      return PutBack(std::move(taken));
    }
    perhaps |= status.code() == Code::kTimeout || status.code() == Code::kUnavailable;
    const bool late = BootClock::now() >= std::min(deadline, StopBy());
    if (late || status.code() == Code::kCancelled || status.code() == Code::kInvalid) {
      for (Answer& answer : taken)
        answer.outcome.status =
            perhaps ? Status(Code::kOutcomeUnknown, "no answer from etcd: " + status.message())
                    : Status(Code::kUnavailable, "not written: " + status.message());
      return Refuse(std::move(taken));
    }
    ++figures_.resent;
    member_ = (member_ + 1) % client_.members();
    if (attempt % client_.members() == client_.members() - 1) Pause(20ms);
  }
}

void Writer::Settle(const Verdict& verdict, std::deque<Answer> taken, uint64_t number) {
  const Revision at{0, verdict.at};
  if (verdict.what == Verdict::kForeign) {
    ++figures_.fenced;
    over_ = true;
    for (Answer& answer : taken)
      answer.outcome.status = {
          Code::kUnavailable, "not written: another run of node " + keys_.node + " has taken over"};
    Refuse(std::move(taken));
    return failed_(AnotherRun(keys_));
  }
  if (!space_low_ || verdict.what == Verdict::kRepeated) slot_ = number;
  for (Answer& answer : taken) answer.outcome.at = at;
  if (verdict.what == Verdict::kRepeated) {
    ++figures_.repeated;
    return apply_.Complete(verdict.at, std::move(taken), true, number);
  }
  for (size_t i = 0; i < taken.size() && i < verdict.results.size(); ++i) {
    if (verdict.results[i].held) continue;
    taken[i].outcome.status = {Code::kConflict, "a guard did not hold"};
    if (verdict.results[i].read) taken[i].outcome.read.push_back(*verdict.results[i].read);
  }
  apply_.Complete(verdict.at, std::move(taken), false, number);
}

void Writer::RefuseWhatTakesSpace(std::deque<Answer>* taken) {
  std::deque<Answer> kept, refused;
  for (Answer& answer : *taken) {
    if (Admission::ChangesThatTake(answer.op) == 0) {
      kept.push_back(std::move(answer));
      continue;
    }
    answer.outcome.status =
        Status(Code::kOverloaded, "etcd has no space left within its quota").set_retry_after(1s);
    refused.push_back(std::move(answer));
  }
  *taken = std::move(kept);
  Refuse(std::move(refused));
}

// It is over when etcd takes the flat put again: that of the slot itself.
void Writer::LookAtSpace() {
  if (BootClock::now() - looked_at_ < kSpaceEvery) return;
  looked_at_ = BootClock::now();
  const uint64_t number = ++number_;
  const auto response =
      client_.Txn(member_, Transaction(most_).Build(keys_, std::pair{slot_, number}), kAttempt);
  if (!response.ok()) return;
  const Verdict verdict = Transaction::Read(*response, keys_, true, number);
  if (verdict.what == Verdict::kEarlier) slot_ = verdict.slot;
  if (verdict.what != Verdict::kCommitted) return;
  slot_ = number;
  space_low_ = false;
}

bool Writer::Pause(BootClock::duration most) {
  MutexLock lock(mutex_);
  return !wake_.wait_for(lock, most, [this]() DW_REQUIRES(mutex_) { return stopping_; });
}

}  // namespace datawire::directory::etcd
