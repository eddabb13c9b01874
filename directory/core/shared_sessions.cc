#include "core/tethers.h"
#include "datawire/wire.h"

// Sessions between the nodes of a cluster: one that another node held is resumed here, or the other
// way round; ends and marks that others commit; the reaper's care for those of nodes that are gone.

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;

constexpr int kAttempts = 8;
constexpr auto kLookEvery = 1s;
constexpr size_t kAdoptAtOnce = 1000;  // read without the lock

Orphans::Owner OwnerOf(const record::v1::Session& session) {
  return {session.owner(), session.owner_incarnation()};
}

}  // namespace

Result<std::optional<Session>> Tethers::ReadSession(const std::string& id) const {
  DW_ASSIGN(const auto record, ground_->view.Get(keys::Session(id)));
  if (!record) return std::optional<Session>();
  Session out;
  out.id = id;
  out.modified = record->modified;
  if (!out.record.ParseFromString(record->value))
    return Status(Code::kCorrupt, "a session record does not parse");
  DW_ASSIGN(const auto mark, ground_->view.Get(keys::SessionMark(id)));
  record::v1::SessionMark value;
  if (mark && !value.ParseFromString(mark->value))
    return Status(Code::kCorrupt, "a session mark does not parse");
  if (mark) {
    out.marked = MarkOf(value);
    out.mark_modified = mark->modified;
  }
  out.suspect = out.marked == SessionMark::kSuspect || out.marked == SessionMark::kSuspectDraining;
  out.draining =
      out.marked == SessionMark::kDraining || out.marked == SessionMark::kSuspectDraining;
  return std::optional(std::move(out));
}

bool Tethers::IsOwn(const record::v1::Session& session) const {
  return session.owner() == ground_->options.node_id &&
         session.owner_incarnation() == ground_->options.incarnation;
}

// ---- resumed here

void Tethers::TakeOver(const Line& line, const pb::TetherRequest::Hello& hello, int attempt) {
  const std::string& id = hello.session_id();
  auto self = shared_from_this();
  const auto end = [&](const Status& status) {
    After after;
    {
      const MutexLock lock(mu_);
      EndLine(line, status, "", 0, after);
    }
    after.Run();
  };
  const auto read = ReadSession(id);
  if (!read.ok()) return end(read.status());
  if (attempt >= kAttempts)
    return end({Code::kUnavailable, "the session keeps changing: try again"});
  if (!*read && (attempt > 0 || !ground_->log.shared())) return EndUnknown(line, id);
  if (!*read)  // opened elsewhere a moment ago, perhaps
    return ground_->CatchUp(ground_->commit_deadline(), [self, line, hello](const Status& current) {
      if (current.ok()) return self->TakeOver(line, hello, 1);
      After after;
      {
        const MutexLock lock(self->mu_);
        self->EndLine(line, current, "", 0, after);
      }
      after.Run();
    });
  Session session = **read;
  const auto verdict = SessionTable::MayResume(session.record, Sha256(hello.secret()),
                                               line->peer.identity, hello.attach_number());
  if (verdict != SessionTable::Verdict::kOk) {
    ++ground_->counts.refused;
    After after;
    {
      const MutexLock lock(mu_);
      RefuseResume(line, id, verdict, session.record.attach_number(), after);
    }
    return after.Run();
  }
  Op op;
  op.guards.push_back({Guard::kModEquals, keys::Session(id), session.modified});
  session.record = Resumption(session.record, line->peer, hello);
  op.changes.push_back({false, keys::Session(id), session.record.SerializeAsString()});
  op.frees_space = true;  // takes none, and a refusal would end who is alive
  auto held = ground_->quotas->Charge(Quotas::Kind::kSessions, PrincipalOf(line->peer));
  ground_->log.Propose(
      std::move(op), ground_->commit_deadline(),
      [self, line, hello, attempt, session, held = std::move(held)](const Outcome& outcome) {
        if (outcome.status.code() == Code::kConflict) return self->Resume(line, hello, attempt + 1);
        self->TakenOver(line, session, held, outcome);
      });
}

void Tethers::TakenOver(const Line& line, const Session& session, const Quotas::Held& held,
                        const Outcome& outcome) {
  const bool still = !outcome.status.ok() || IsStill(session.id, outcome.at.number);
  After after;
  {
    const MutexLock lock(mu_);
    if (!outcome.status.ok() || !still) {
      EndLine(line,
              still ? outcome.status : Status(Code::kFenced, "the session was resumed elsewhere"),
              "", 0, after);
    } else {
      const bool here = line->state == TetherLine::kOpening;
      table_.TakenOver(session.id, session.record, outcome.at.number, session.marked,
                       session.mark_modified, here ? line->id : 0, ground_->now());
      Ops& ops = ops_[session.id];
      ops.counted = false;
      ops.session = held;
      ++ground_->counts.sessions_resumed;
      if (here) Welcome(line, *table_.Find(session.id), "", true, outcome.at, after);
    }
    Flush(after);
  }
  after.Run();
}

bool Tethers::IsStill(const std::string& id, uint64_t modified) const {
  if (!ground_->log.shared()) return true;
  const auto record = ground_->view.Get(keys::Session(id));
  return !record.ok() || (*record && (*record)->modified == modified);
}

// ---- what others commit

void Tethers::OnPublished(const Published& published) {
  if (published.records.empty() && published.sessions_gone.empty()) return;
  After after;
  {
    const MutexLock lock(mu_);
    std::map<std::string, record::v1::SessionEnded> ended;
    for (const Record& record : published.records) {
      if (record.key.starts_with("t/"))
        static_cast<void>(ended[record.key.substr(2)].ParseFromString(record.value));
      OnRecord(record, after);
    }
    for (const std::string& id : published.sessions_gone) {
      if (reading_owners_) changed_meanwhile_.insert(id);
      if (reaping_) orphans_.Gone(id);
      const Session* session = table_.Find(id);
      // One whose end is on its way from here hears of that.
      if (session != nullptr && !session->ending) EndedElsewhere(id, ended[id], after);
    }
    Flush(after);
  }
  after.Run();
}

void Tethers::OnRecord(const Record& record, After& after) {
  const std::string id = record.key.substr(2);
  if (record.key == kBudgetKey) {
    budget_modified_ = std::max(budget_modified_, record.modified);
  } else if (record.key.starts_with("t/")) {
    record::v1::SessionEnded ended;
    const Session* session = table_.Find(id);
    const bool own = session != nullptr && session->ending == EndReason::kExpired;
    if (!own && ended.ParseFromString(record.value) && ended.reason() == pb::REASON_EXPIRED)
      table_.ExpiredElsewhere();
  } else if (record.key.starts_with("q/")) {
    record::v1::SessionMark mark;
    if (!mark.ParseFromString(record.value)) return;
    table_.MarkIs(id, MarkOf(mark), record.modified);
    const Session* session = table_.Find(id);
    if (session != nullptr && SessionTable::Wanted(*session) == session->marked)
      AnswerDrains(id, ground_->At(record.modified), after);
  } else if (record.key.starts_with("s/")) {
    record::v1::Session session;
    if (!session.ParseFromString(record.value)) return;
    const bool own = IsOwn(session);
    if (reading_owners_) changed_meanwhile_.insert(id);
    if (reaping_ && own) orphans_.Gone(id);
    if (reaping_ && !own) orphans_.Owned(id, OwnerOf(session));
    if (!own) Lose(id, session.attach_number(), after);
  }
}

void Tethers::Lose(const std::string& id, uint64_t attach_number, After& after) {
  const Session* session = table_.Find(id);
  if (session == nullptr) return;
  if (const auto it = lines_.find(session->stream); it != lines_.end())
    EndLine(it->second, {Code::kFenced, "the session was resumed on another node"}, "",
            attach_number, after);
  AnswerDrains(id, Status(Code::kUnavailable, "the session moved to another node: again"), after);
  AnswerEnds(id, Status(Code::kUnavailable, "the session moved to another node: again"), after);
  table_.Forget(id);
  ops_.erase(id);
}

void Tethers::EndedElsewhere(const std::string& id, const record::v1::SessionEnded& ended,
                             After& after) {
  const Session* session = table_.Find(id);
  if (session == nullptr) return;
  ++ground_->counts.sessions_ended;
  const auto line = lines_.find(session->stream);
  AnswerDrains(id, Status(Code::kSessionExpired, "the session is over"), after);
  table_.Forget(id);
  ops_.erase(id);
  AnswerEnds(id, ground_->view.Applied(), after);
  if (line == lines_.end()) return;
  const bool expired = ended.reason() == pb::REASON_EXPIRED;
  EndLine(line->second,
          {Code::kSessionExpired, expired ? "no heartbeat within the session's TTL"
                                          : "ended by an operator, " + ended.by()},
          expired ? "expired" : "ended", 0, after);
}

// ---- the reaper

void Tethers::LookForOrphans(BootTime now) {
  if (now - looked_at_ < kLookEvery) return;
  looked_at_ = now;
  if (const auto budget = ground_->view.Get(kBudgetKey); budget.ok() && *budget) {
    // What this node was told of last, but for the moments before it began to listen.
    const MutexLock lock(mu_);
    if (budget_seen_ == (*budget)->modified)
      budget_modified_ = std::max(budget_modified_, budget_seen_);
    budget_seen_ = (*budget)->modified;
  }
  if (!ground_->log.Role("reaper")) return ForgetOrphans();
  bool known = false;
  {
    const MutexLock lock(mu_);
    known = reaping_;
  }
  if (!known) ReadOwners();
  std::vector<Orphans::Owner> owners;
  {
    const MutexLock lock(mu_);
    owners = orphans_.owners();
  }
  for (const Orphans::Owner& owner : owners) {
    const auto record = ground_->view.Get("alive/" + owner.first);
    record::v1::NodeAlive alive;
    if (!record.ok()) continue;
    if (!*record || !alive.ParseFromString((*record)->value) || alive.incarnation() != owner.second)
      AdoptOrphans(owner, now);
    else
      ReturnOrphans(owner);
  }
}

// Whoever holds what now, and from here on what OnRecord is told.
void Tethers::ReadOwners() {
  {
    const MutexLock lock(mu_);
    reaping_ = reading_owners_ = true;
  }
  std::vector<std::pair<std::string, Orphans::Owner>> found;
  const Status read = ground_->view.Scan("s/", "s0", [&](const Record& record) {
    record::v1::Session session;
    if (session.ParseFromString(record.value) && !IsOwn(session))
      found.emplace_back(record.key.substr(2), OwnerOf(session));
    return true;
  });
  const MutexLock lock(mu_);
  for (auto& [id, owner] : found)
    if (!changed_meanwhile_.contains(id)) orphans_.Owned(id, owner);
  changed_meanwhile_.clear();
  reading_owners_ = false;
  reaping_ = read.ok();
}

void Tethers::AdoptOrphans(const Orphans::Owner& owner, BootTime now) {
  std::vector<std::string> ids;
  {
    const MutexLock lock(mu_);
    adopted_.insert(owner);
    for (const std::string& id : orphans_.of(owner)) {
      if (table_.Find(id) != nullptr) continue;
      ids.push_back(id);
      if (ids.size() == kAdoptAtOnce) break;  // the rest with the next look
    }
  }
  for (const std::string& id : ids) {
    const auto read = ReadSession(id);
    if (!read.ok() || !*read || OwnerOf((*read)->record) != owner) continue;
    const Session& session = **read;
    const MutexLock lock(mu_);
    if (!orphans_.of(owner).contains(id)) continue;  // resumed meanwhile
    table_.Adopt(id, session.record, session.modified, session.marked, session.mark_modified, now);
  }
}

void Tethers::ReturnOrphans(const Orphans::Owner& owner) {
  const MutexLock lock(mu_);
  if (adopted_.erase(owner) == 0) return;
  for (const std::string& id : orphans_.of(owner)) ForgetOrphan(id);
}

void Tethers::ForgetOrphans() {
  const MutexLock lock(mu_);
  if (!reaping_) return;
  reaping_ = false;
  for (const Orphans::Owner& owner : orphans_.owners())
    for (const std::string& id : orphans_.of(owner)) ForgetOrphan(id);
  orphans_.Clear();
  adopted_.clear();
}

void Tethers::ForgetOrphan(const std::string& id) {
  const Session* session = table_.Find(id);
  if (session != nullptr && session->orphan && !session->ending) table_.Forget(id);
}

// A node that is cut off answers heartbeats of sessions that the reaper, who cannot see it, will
// end: their holders are told to go elsewhere while there is time.
void Tethers::SendAway(BootTime now, bool healthy, After& after) {
  if (healthy || healthy_at_ == BootTime{}) {
    healthy_at_ = now;
    sent_away_ = false;
    return;
  }
  if (sent_away_ || now - healthy_at_ < limits::kMoveAfter) return;
  sent_away_ = true;
  pb::TetherResponse move;
  move.mutable_move()->set_reason("this node is cut off from the others");
  for (const auto& [id, line] : lines_)
    if (line->state == TetherLine::kOpen) after.sends.emplace_back(line, move);
}

// ---- operators, of sessions that another node holds

void Tethers::ChangeForeign(const std::string& id, std::function<Op(const Session&)> change,
                            RevisionCall done, int attempt) {
  const auto read = ReadSession(id);
  if (!read.ok()) return done(read.status());
  auto self = shared_from_this();
  if (!*read && attempt == 0 && ground_->log.shared())
    return ground_->CatchUp(ground_->commit_deadline(),
                            [self, id, change, done](const Status& current) {
                              if (!current.ok()) return done(current);
                              self->ChangeForeign(id, change, done, 1);
                            });
  if (!*read) return done(UnknownSession(id));
  ground_->log.Propose(change(**read), ground_->commit_deadline(),
                       [self, id, change, done, attempt](const Outcome& outcome) {
                         if (outcome.status.ok()) return done(outcome.at);
                         if (outcome.status.code() != Code::kConflict || attempt >= kAttempts)
                           return done(outcome.status);
                         self->ChangeForeign(id, change, done, attempt + 1);
                       });
}

}  // namespace datawire::directory
