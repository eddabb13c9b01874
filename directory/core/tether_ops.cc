#include "core/tethers.h"
#include "datawire/wire.h"

// The ops of a session: exactly once by op id, in order where they meet at an address.

namespace datawire::directory {
namespace {

constexpr int kAttempts = 8;

std::string OpIdBytes(uint64_t op_id) {
  std::string out;
  for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(op_id >> shift);
  return out;
}

pb::TetherResponse DoneMessage(uint64_t op_id, const Result<Revision>& result) {
  pb::TetherResponse response;
  auto* done = response.mutable_done();
  done->set_op_id(op_id);
  if (result.ok())
    ToWire(*result, done->mutable_revision());
  else
    ToWire(result.status(), done->mutable_refusal());
  return response;
}

}  // namespace

void Tethers::Admit(const Line& line, std::shared_ptr<SessionOp> op, After& after) {
  const Session* session = table_.Find(line->session_id);
  if (session == nullptr) return;  // its end is on the way
  Ops& ops = ops_[line->session_id];
  if (const auto it = ops.done.find(op->op_id); it != ops.done.end()) {
    after.sends.emplace_back(line, DoneMessage(op->op_id, it->second));
    return;
  }
  if (const auto it = ops.pending.find(op->op_id); it != ops.pending.end()) {
    it->second->line = line;
    it->second->attach_number = session->record.attach_number();
    return;
  }
  if (ops.pending.size() >= kTetherOps) {
    ++ground_->counts.refused;
    Status full(Code::kOverloaded, std::to_string(kTetherOps) + " ops of this session in flight");
    full.set_retry_after(std::chrono::milliseconds(100));
    after.sends.emplace_back(line, DoneMessage(op->op_id, full));
    return;
  }
  op->session_id = session->id;
  op->attach_number = session->record.attach_number();
  op->identity = session->record.identity();
  op->line = line;
  for (const auto& registration : op->registrations)
    op->addresses.push_back(registration.address.text());
  for (const auto& withdrawal : op->withdrawals) op->addresses.push_back(withdrawal.address.text());
  ++(op->registrations.empty() ? ground_->counts.withdraws : ground_->counts.registers);
  ops.pending[op->op_id] = op;
  ops.queue.push_back(std::move(op));
  Pump(line->session_id, ops, after);
}

void Tethers::Pump(const std::string&, Ops& ops, After& after) {
  while (!ops.queue.empty()) {
    auto op = ops.queue.front();
    for (const std::string& address : op->addresses)
      if (ops.busy.contains(address)) return;
    ops.busy.insert(op->addresses.begin(), op->addresses.end());
    ops.queue.pop_front();
    auto self = shared_from_this();
    after.calls.push_back([self, op] { self->StartOp(op); });
  }
}

void Tethers::StartOp(const std::shared_ptr<SessionOp>& op) {
  Actor actor{
      .session_id = op->session_id, .identity = op->identity, .op_id = OpIdBytes(op->op_id)};
  Status gone;
  {
    const MutexLock lock(mu_);
    const Session* session = table_.Find(op->session_id);
    if (session == nullptr)
      gone = {Code::kSessionExpired, "the session is over"};
    else if (session->record.attach_number() != op->attach_number)
      gone = {Code::kFenced, "the session was resumed elsewhere"};
    else
      actor.session_modified = session->modified;
    actor.peer = op->line->peer;
  }
  if (!gone.ok()) return FinishOp(op, gone);
  auto plan = op->registrations.empty() ? PlanWithdraw(*ground_, actor, op->withdrawals, false)
                                        : PlanRegister(*ground_, actor, op->registrations);
  if (!plan.ok() && op->attempts == 0 && ground_->log.shared()) {
    ++op->attempts;
    return ground_->CatchUp(ground_->commit_deadline(),
                            [self = shared_from_this(), op](const Status& current) {
                              if (!current.ok()) return self->FinishOp(op, current);
                              self->StartOp(op);
                            });
  }
  if (!plan.ok()) return FinishOp(op, plan.status());
  if (plan->already) return FinishOp(op, *plan->already);
  if (Status full = Reserve(op, *plan); !full.ok()) return FinishOp(op, full);
  auto held = ground_->HoldQuota(plan->principal, plan->more);
  if (!held.ok()) return FinishOp(op, held.status());
  auto self = shared_from_this();
  ground_->log.Propose(std::move(plan->op), ground_->commit_deadline(),
                       [self, op, held = std::move(*held)](const Outcome& outcome) mutable {
                         held.reset();  // what was committed the view counts
                         self->OpDone(op, outcome);
                       });
}

Status Tethers::Reserve(const std::shared_ptr<SessionOp>& op, const Plan& plan) {
  const auto reserve = [&](Ops& ops) {
    ops.registrations -= std::min(ops.registrations, op->reserved);
    op->reserved = 0;
    op->removed = op->registrations.empty() ? plan.removed : 0;
    const bool fits =
        ops.counted && ops.registrations + plan.added <= limits::kSessionRegistrations;
    if (fits || plan.added == 0) {
      ops.registrations += plan.added;
      op->reserved = plan.added;
      return true;
    }
    return false;
  };
  {
    const MutexLock lock(mu_);
    if (reserve(ops_[op->session_id])) return {};
  }
  DW_ASSIGN(const auto present, ground_->view.RegistrationsOf(op->session_id));
  const MutexLock lock(mu_);
  Ops& ops = ops_[op->session_id];
  ops.registrations = present.size();
  for (const auto& [id, other] : ops.pending) ops.registrations += other->reserved;
  ops.counted = true;
  if (reserve(ops)) return {};
  return {Code::kInvalid, "a session holds at most " +
                              std::to_string(limits::kSessionRegistrations) +
                              " registrations, this one has " + std::to_string(present.size())};
}

void Tethers::OpDone(const std::shared_ptr<SessionOp>& op, const Outcome& outcome) {
  const MutexLock lock(finished_mu_);
  if (outcome.status.ok())
    finished_.emplace_back(op, outcome.at);
  else
    finished_.emplace_back(op, outcome.status);
}

void Tethers::AfterGroup() {
  decltype(finished_) finished;
  {
    const MutexLock lock(finished_mu_);
    finished.swap(finished_);
  }
  After after;
  {
    const MutexLock lock(mu_);
    for (const auto& [op, result] : finished) {
      if (result.ok() || result.status().code() != Code::kConflict) {
        Finish(*op, result, after);
      } else if (++op->attempts < kAttempts) {
        // A record or the session changed between reading and the commit: read again.
        after.calls.push_back([self = shared_from_this(), op = op] { self->StartOp(op); });
      } else {
        Status busy(Code::kUnavailable, op->addresses.front() + " keeps changing: try again");
        Finish(*op, busy.set_retry_after(std::chrono::milliseconds(100)), after);
      }
    }
  }
  after.Run();
}

void Tethers::FinishOp(const std::shared_ptr<SessionOp>& op, const Result<Revision>& result) {
  After after;
  {
    const MutexLock lock(mu_);
    Finish(*op, result, after);
  }
  after.Run();
}

void Tethers::Finish(const SessionOp& op, const Result<Revision>& result, After& after) {
  if (!result.ok()) ++ground_->counts.refused;
  if (op.line->state == TetherLine::kOpen)
    after.sends.emplace_back(op.line, DoneMessage(op.op_id, result));
  const auto it = ops_.find(op.session_id);
  if (it == ops_.end()) return;
  Ops& ops = it->second;
  ops.pending.erase(op.op_id);
  for (const std::string& address : op.addresses) ops.busy.erase(address);
  const size_t freed = result.ok() ? op.removed : op.reserved;
  ops.registrations -= std::min(ops.registrations, freed);
  if (result.ok() && ops.done.emplace(op.op_id, *result).second) {
    ops.order.push_back(op.op_id);
    if (ops.order.size() > kTetherResults) {
      ops.done.erase(ops.order.front());
      ops.order.pop_front();
    }
  }
  Pump(op.session_id, ops, after);
}

void Tethers::OnDrain(const Line& line, const pb::TetherRequest::Drain& drain, After& after) {
  const Session* session = table_.Find(line->session_id);
  if (session == nullptr) return;
  Ops& ops = ops_[line->session_id];
  if (ops.drains.size() >= kTetherOps) {
    Status full(Code::kOverloaded, std::to_string(kTetherOps) + " drains wait");
    full.set_retry_after(std::chrono::milliseconds(100));
    after.sends.emplace_back(line, DoneMessage(drain.op_id(), full));
    return;
  }
  ops.drains.emplace_back(drain.op_id(), line);
  table_.SetDraining(line->session_id, !drain.undo(), NameOf(line->peer), line->peer.address);
  if (SessionTable::Wanted(*session) == session->marked && !session->marking)
    AnswerDrains(line->session_id, ground_->view.Applied(), after);
}

void Tethers::AnswerDrains(const std::string& id, const Result<Revision>& result, After& after) {
  const auto it = ops_.find(id);
  if (it == ops_.end()) return;
  for (auto& [op_id, line] : it->second.drains)
    if (line->state == TetherLine::kOpen)
      after.sends.emplace_back(line, DoneMessage(op_id, result));
  it->second.drains.clear();
  for (auto& call : std::exchange(it->second.drain_calls, {}))
    after.calls.push_back([call = std::move(call), result] { call(result); });
}

}  // namespace datawire::directory
