#include <algorithm>

#include "core/tethers.h"
#include "datawire/wire.h"

// Ends and marks of sessions: what the table decides becomes a commit, and only that counts.

namespace datawire::directory {
namespace {

constexpr size_t kExpireMost = 30;  // sessions in one op: what etcd takes in a transaction

const char* NameOf(EndReason reason) {
  switch (reason) {
    case EndReason::kExpired:
      return "expired";
    case EndReason::kClosed:
      return "closed";
    case EndReason::kOperator:
      return "ended";
  }
  return "";
}

// What its tether is told; a client opens a new session after kSessionExpired.
Status WhyEnded(EndReason reason, const std::string& by) {
  switch (reason) {
    case EndReason::kExpired:
      return {Code::kSessionExpired, "no heartbeat within the session's TTL"};
    case EndReason::kClosed:
      return Status::Ok();
    case EndReason::kOperator:
      break;
  }
  return {Code::kSessionExpired, "ended by an operator, " + by};
}

}  // namespace

void Tethers::Flush(After& after) {
  auto self = shared_from_this();
  std::vector<Session> expired;
  for (const std::string& id : table_.TakeEnds()) {
    const Session* session = table_.Find(id);
    if (session == nullptr) continue;
    if (ground_->log.shared() && session->ending == EndReason::kExpired)
      expired.push_back(*session);
    else
      after.calls.push_back([self, copy = *session] { self->ProposeEnd(copy); });
  }
  if (!expired.empty()) {
    expiring_ = true;
    after.calls.push_back([self, expired = std::move(expired)] { self->ProposeExpiries(expired); });
  }
  for (const std::string& id : table_.TakeMarks())
    if (const Session* session = table_.Find(id))
      after.calls.push_back([self, id, copy = *session] { self->ProposeMark(id, copy); });
}

namespace {

// Fenced by the record's revision: a resume that is committed first keeps the session.
void AddEnd(const Session& session, const record::v1::SessionEnded& ended, Op* op) {
  op->guards.push_back({Guard::kModEquals, keys::Session(session.id), session.modified});
  op->changes.push_back({true, keys::Session(session.id), ""});
  op->changes.push_back({true, keys::SessionMark(session.id), ""});
  op->changes.push_back({false, keys::SessionEnded(session.id), ended.SerializeAsString()});
  op->frees_space = true;
}

}  // namespace

// Expiries of all nodes count in one budget: each op of them moves its key, so that of two nodes
// that decide at once one has to look again. An orphan's, the reaper alone ends.
void Tethers::ProposeExpiries(const std::vector<Session>& sessions) {
  record::v1::SessionEnded ended;
  ended.set_reason(pb::REASON_EXPIRED);
  ended.set_by(ground_->options.node_id);
  ended.set_at_wall_ms(WallMillis());
  Op op;
  bool orphans = false;
  for (const Session& session : sessions) {
    AddEnd(session, ended, &op);
    orphans |= session.orphan;
  }
  {
    const MutexLock lock(mu_);
    op.guards.push_back(
        {budget_modified_ == 0 ? Guard::kAbsent : Guard::kModEquals, kBudgetKey, budget_modified_});
  }
  op.changes.push_back({false, kBudgetKey, ground_->options.node_id});
  const auto role = orphans ? ground_->log.Role("reaper") : std::vector<Guard>{};
  auto self = shared_from_this();
  const auto done = [self, sessions](const Outcome& outcome) {
    {
      const MutexLock lock(self->mu_);
      self->expiring_ = false;
      self->expire_most_ = outcome.status.ok() ? std::min(self->expire_most_ * 2, kExpireMost) : 1;
    }
    for (const Session& session : sessions) self->EndDone(session.id, EndReason::kExpired, outcome);
  };
  if (!role) {
    Outcome outcome;
    outcome.status = {Code::kConflict, "this node is not the reaper any more"};
    return done(outcome);
  }
  op.guards.insert(op.guards.end(), role->begin(), role->end());
  ground_->log.Propose(std::move(op), ground_->commit_deadline(), done);
}

void Tethers::ProposeEnd(const Session& session) {
  const EndReason reason = *session.ending;
  record::v1::SessionEnded ended;
  switch (reason) {
    case EndReason::kExpired:
      ended.set_reason(pb::REASON_EXPIRED);
      ended.set_by(ground_->options.node_id);
      break;
    case EndReason::kClosed:
      ended.set_reason(pb::REASON_CLOSED);
      ended.set_by(NameOf({session.record.peer(), session.record.identity()}));
      ended.set_peer(session.record.peer());
      break;
    case EndReason::kOperator:
      ended.set_reason(pb::REASON_ENDED);
      ended.set_by(session.ended_by);
      ended.set_peer(session.ended_peer);
  }
  ended.set_at_wall_ms(WallMillis());
  Op op;
  AddEnd(session, ended, &op);
  auto self = shared_from_this();
  ground_->log.Propose(std::move(op), ground_->commit_deadline(),
                       [self, id = session.id, reason](const Outcome& outcome) {
                         self->EndDone(id, reason, outcome);
                       });
}

void Tethers::EndDone(const std::string& id, EndReason reason, const Outcome& outcome) {
  // Another node may have ended it, or has it now.
  std::optional<record::v1::SessionEnded> elsewhere;
  std::optional<Session> moved;
  if (ground_->log.shared() && outcome.status.code() == Code::kConflict) {
    auto read = ReadSession(id);
    if (read.ok() && !*read) {
      const auto tombstone = ground_->view.Get(keys::SessionEnded(id));
      elsewhere.emplace();
      if (tombstone.ok() && *tombstone)
        static_cast<void>(elsewhere->ParseFromString((*tombstone)->value));
    } else if (read.ok() && !IsOwn((*read)->record)) {
      moved = std::move(**read);
    }
  }
  After after;
  {
    const MutexLock lock(mu_);
    const Session* session = table_.Find(id);
    if (session == nullptr) return;
    if (elsewhere) {
      EndedElsewhere(id, *elsewhere, after);
    } else if (moved && !session->orphan) {
      Lose(id, moved->record.attach_number(), after);
    } else if (!outcome.status.ok()) {
      table_.EndFailed(id);
      if (reason == EndReason::kExpired) AnswerEnds(id, outcome.status, after);
    } else {
      const uint64_t stream = session->stream;
      const std::string by = session->ended_by;
      ++ground_->counts.sessions_ended;
      if (reason == EndReason::kExpired) ++ground_->counts.sessions_expired;
      AnswerDrains(id, Status(Code::kSessionExpired, "the session is over"), after);
      table_.Ended(id);
      ops_.erase(id);
      AnswerEnds(id, outcome.at, after);
      if (const auto it = lines_.find(stream); it != lines_.end())
        EndLine(it->second, WhyEnded(reason, by), NameOf(reason), 0, after);
    }
    Flush(after);
  }
  after.Run();
}

Op Tethers::MarkOp(const Session& session, SessionMark wanted) const {
  const std::string& id = session.id;
  Op op;
  op.guards.push_back({Guard::kModEquals, keys::Session(id), session.modified});
  if (ground_->log.shared())
    op.guards.push_back({session.mark_modified == 0 ? Guard::kAbsent : Guard::kModEquals,
                         keys::SessionMark(id), session.mark_modified});
  record::v1::SessionMark mark;
  if (wanted == SessionMark::kSuspect || wanted == SessionMark::kSuspectDraining) {
    mark.set_state(pb::ENDPOINT_STATE_SUSPECT);
    mark.set_reason(pb::REASON_BRAKED);
    mark.set_by(ground_->options.node_id);
    mark.set_draining(wanted == SessionMark::kSuspectDraining);
  } else if (wanted == SessionMark::kDraining) {
    mark.set_state(pb::ENDPOINT_STATE_DRAINING);
    mark.set_reason(pb::REASON_DRAINED);
    mark.set_by(session.drained_by);
    mark.set_peer(session.drained_peer);
  } else if (session.marked == SessionMark::kSuspect) {  // its holder was seen again
    mark.set_by(NameOf({session.record.peer(), session.record.identity()}));
    mark.set_peer(session.record.peer());
  } else {
    mark.set_by(session.drained_by);
    mark.set_peer(session.drained_peer);
  }
  mark.set_at_wall_ms(WallMillis());
  op.changes.push_back({false, keys::SessionMark(id), mark.SerializeAsString()});
  op.frees_space = true;
  return op;
}

Op Tethers::EndOp(const Session& session, const std::string& by, const std::string& peer) const {
  record::v1::SessionEnded ended;
  ended.set_reason(pb::REASON_ENDED);
  ended.set_by(by);
  ended.set_peer(peer);
  ended.set_at_wall_ms(WallMillis());
  Op op;
  AddEnd(session, ended, &op);
  return op;
}

void Tethers::ProposeMark(const std::string& id, const Session& session) {
  const SessionMark wanted = SessionTable::Wanted(session);
  Op op = MarkOp(session, wanted);
  auto self = shared_from_this();
  ground_->log.Propose(
      std::move(op), ground_->commit_deadline(),
      [self, id, wanted](const Outcome& outcome) { self->MarkDone(id, wanted, outcome); });
}

void Tethers::MarkDone(const std::string& id, SessionMark written, const Outcome& outcome) {
  After after;
  {
    const MutexLock lock(mu_);
    table_.Marked(id, outcome.status.ok(), written, outcome.at.number);
    const Session* session = table_.Find(id);
    if (session != nullptr && SessionTable::Wanted(*session) == session->marked)
      AnswerDrains(id, outcome.at, after);
    Flush(after);
  }
  after.Run();
}

}  // namespace datawire::directory
