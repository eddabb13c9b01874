#include "core/session_table.h"

#include <algorithm>
#include <chrono>

#include "core/ids.h"
#include "datawire/limits.h"

namespace datawire::directory {

namespace pb = ::datawire::directory::v1;

namespace {

constexpr std::chrono::seconds kTickGap{1};  // a longer one: the node itself was away
// A client waits 3 s for the answer to its hello: none noticed a shorter absence (decisions/0004).
constexpr std::chrono::seconds kNoticed{3};

BootClock::duration TtlOf(const Session& session) {
  return std::chrono::milliseconds(session.record.ttl_ms());
}

BootClock::duration GraceOf(const Session& session) {
  return std::max<BootClock::duration>(TtlOf(session), limits::kSessionGrace);
}

}  // namespace

SessionMark MarkOf(const record::v1::SessionMark& mark) {
  switch (mark.state()) {
    case pb::ENDPOINT_STATE_DRAINING:
      return SessionMark::kDraining;
    case pb::ENDPOINT_STATE_SUSPECT:
      return mark.draining() ? SessionMark::kSuspectDraining : SessionMark::kSuspect;
    default:
      return SessionMark::kNone;
  }
}

Session* SessionTable::Mutable(const std::string& id) {
  const auto it = sessions_.find(id);
  return it == sessions_.end() ? nullptr : &it->second;
}

const Session* SessionTable::Find(const std::string& id) const {
  const auto it = sessions_.find(id);
  return it == sessions_.end() ? nullptr : &it->second;
}

Session& SessionTable::Add(const std::string& id, record::v1::Session record, uint64_t modified) {
  Session& session = sessions_[id];
  session.id = id;
  session.record = std::move(record);
  session.modified = modified;
  return session;
}

void SessionTable::Begin(Session& session, SessionMark mark, BootClock::duration life,
                         BootTime now) {
  session.marked = mark;
  session.draining = mark == SessionMark::kDraining || mark == SessionMark::kSuspectDraining;
  session.suspect = mark == SessionMark::kSuspect || mark == SessionMark::kSuspectDraining;
  session.seen = clock(now);
  session.deadline = session.seen + life;
  timers_.emplace(session.deadline, session.id);
}

void SessionTable::Recover(const std::string& id, record::v1::Session record, uint64_t modified,
                           SessionMark mark, BootTime now) {
  Session& session = Add(id, std::move(record), modified);
  Begin(session, mark, GraceOf(session), now);
}

void SessionTable::Opened(const std::string& id, record::v1::Session record, uint64_t modified,
                          uint64_t stream, BootTime now) {
  Session& session = Add(id, std::move(record), modified);
  session.stream = stream;
  session.seen = clock(now);
  session.deadline = session.seen + TtlOf(session);
  timers_.emplace(session.deadline, id);
}

void SessionTable::TakenOver(const std::string& id, record::v1::Session record, uint64_t modified,
                             SessionMark mark, uint64_t mark_modified, uint64_t stream,
                             BootTime now) {
  Forget(id);  // an orphan
  Session& session = Add(id, std::move(record), modified);
  session.mark_modified = mark_modified;
  session.stream = stream;
  Begin(session, mark, TtlOf(session), now);
  Seen(session, now);
}

void SessionTable::Adopt(const std::string& id, record::v1::Session record, uint64_t modified,
                         SessionMark mark, uint64_t mark_modified, BootTime now) {
  if (Find(id) != nullptr) return;
  Session& session = Add(id, std::move(record), modified);
  session.mark_modified = mark_modified;
  session.orphan = true;
  Begin(session, mark, std::max<BootClock::duration>(TtlOf(session), limits::kOrphanLife), now);
}

void SessionTable::Forget(const std::string& id) {
  if (Find(id) != nullptr) Ended(id);
}

void SessionTable::MarkIs(const std::string& id, SessionMark mark, uint64_t modified) {
  Session* session = Mutable(id);
  if (session == nullptr || modified <= session->mark_modified) return;
  const bool own = session->marking && session->marking_as == mark;
  session->marked = mark;
  session->mark_modified = modified;
  if (own) return;
  session->draining = mark == SessionMark::kDraining || mark == SessionMark::kSuspectDraining;
  WantMark(*session);
}

SessionTable::Verdict SessionTable::MayResume(const std::string& id,
                                              const std::string& secret_sha256,
                                              const std::string& identity,
                                              uint64_t attach_number) const {
  const Session* session = Find(id);
  if (session == nullptr) return Verdict::kUnknown;
  return MayResume(session->record, secret_sha256, identity, attach_number);
}

SessionTable::Verdict SessionTable::MayResume(const record::v1::Session& record,
                                              const std::string& secret_sha256,
                                              const std::string& identity, uint64_t attach_number) {
  if (!SameSecret(record.secret_sha256(), secret_sha256)) return Verdict::kForeignSecret;
  if (record.identity() != identity) return Verdict::kForeignIdentity;
  if (attach_number <= record.attach_number()) return Verdict::kFenced;
  return Verdict::kOk;
}

uint64_t SessionTable::Resumed(const std::string& id, uint64_t attach_number, uint64_t modified,
                               uint64_t stream, BootTime now, const std::string& peer) {
  Session* session = Mutable(id);
  if (session == nullptr) return 0;
  session->record.set_attach_number(attach_number);
  session->record.set_peer(peer);
  session->modified = modified;
  Seen(*session, now);
  return std::exchange(session->stream, stream);
}

void SessionTable::Seen(Session& session, BootTime now) {
  const bool was_due = due_.erase({session.deadline, session.id}) > 0;
  session.seen = clock(now);
  // Never earlier than a grace already given.
  session.deadline = std::max(session.deadline, session.seen + TtlOf(session));
  if (was_due) timers_.emplace(session.deadline, session.id);
  if (session.suspect) {
    session.suspect = false;
    WantMark(session);
  }
}

std::optional<BootClock::duration> SessionTable::Heartbeat(const std::string& id, uint64_t stream,
                                                           BootTime now) {
  Session* session = Mutable(id);
  if (session == nullptr || session->stream != stream) return std::nullopt;
  const BootTime before = session->seen;
  Seen(*session, now);
  if (session->ending) return std::nullopt;
  return std::max(session->seen - before, BootClock::duration{});
}

void SessionTable::Lost(const std::string& id, uint64_t stream) {
  Session* session = Mutable(id);
  if (session != nullptr && session->stream == stream) session->stream = 0;
}

void SessionTable::SetDraining(const std::string& id, bool draining, const std::string& by,
                               const std::string& peer) {
  Session* session = Mutable(id);
  if (session == nullptr) return;
  session->draining = draining;
  session->drained_by = by;
  session->drained_peer = peer;
  WantMark(*session);
}

void SessionTable::Close(const std::string& id, EndReason why, const std::string& by,
                         const std::string& peer) {
  Session* session = Mutable(id);
  if (session == nullptr || session->ending) return;
  due_.erase({session->deadline, id});
  session->ending = why;
  session->ended_by = by;
  session->ended_peer = peer;
  ends_.insert(id);
}

void SessionTable::Tick(BootTime now, bool healthy, std::optional<size_t> live,
                        size_t expire_most) {
  live_ = live;
  expire_most_ = expire_most;
  const auto gap = now - last_tick_;
  const bool away = !healthy || !healthy_ || gap >= kTickGap;
  away_ = away ? away_ + gap : BootClock::duration{};
  if (away) frozen_ += gap;
  last_tick_ = now;
  healthy_ = healthy;
  if (!healthy) return;
  if (away_ >= kNoticed) GiveGrace();
  ends_.merge(ends_again_);
  marks_.merge(marks_again_);
  CollectDue();
  Decide();
}

void SessionTable::GiveGrace() {
  due_.clear();
  timers_ = {};
  for (auto& [id, session] : sessions_) {
    session.deadline = std::max(session.deadline, clock() + GraceOf(session));
    if (!session.ending) timers_.emplace(session.deadline, id);
  }
}

void SessionTable::CollectDue() {
  while (!timers_.empty() && timers_.top().first <= clock()) {
    const std::string id = timers_.top().second;
    timers_.pop();
    const Session* session = Find(id);
    if (session == nullptr || session->ending) continue;
    if (session->deadline > clock())
      timers_.emplace(session->deadline, id);
    else
      due_.emplace(session->deadline, id);
  }
}

size_t SessionTable::budget() const {
  // Those whose expiry is in flight are in both.
  const size_t population =
      std::max(live_.value_or(sessions_.size()), expiring_) - expiring_ + expired_.size();
  return std::max(limits::kBrakeLeast, population * limits::kBrakePercent / 100);
}

void SessionTable::Decide() {
  while (!expired_.empty() && clock() - expired_.front() >= limits::kBrakeWindow)
    expired_.pop_front();
  const size_t most = budget();
  const size_t room = most > expired_.size() ? most - expired_.size() : 0;
  switch (brake_) {
    case BrakeState::kOff:
      if (due_.size() > room) {
        brake_ = BrakeState::kOn;
        brake_since_ = clock();
        ++trips_;
      }
      break;
    case BrakeState::kOn:
      if (due_.size() <= room)
        brake_ = BrakeState::kOff;
      else if (clock() - brake_since_ >= limits::kBrakeMost)
        brake_ = BrakeState::kReleasing;
      break;
    case BrakeState::kReleasing:
      if (due_.empty()) brake_ = BrakeState::kOff;
      break;
  }
  if (brake_ != BrakeState::kOn) Expire(std::min(room, expire_most_));
  for (const auto& [deadline, id] : due_) {
    Session* session = Mutable(id);
    if (session->suspect) continue;
    session->suspect = true;
    WantMark(*session);
  }
}

void SessionTable::Expire(size_t most) {
  for (; most > 0 && !due_.empty(); --most) {
    const std::string id = due_.begin()->second;
    due_.erase(due_.begin());
    Mutable(id)->ending = EndReason::kExpired;
    ends_.insert(id);
    expired_.push_back(clock());
    ++expiring_;
  }
}

std::vector<std::string> SessionTable::TakeEnds() {
  std::vector<std::string> out(ends_.begin(), ends_.end());
  ends_.clear();
  return out;
}

void SessionTable::Ended(const std::string& id) {
  const Session* session = Find(id);
  if (session == nullptr) return;
  if (session->ending == EndReason::kExpired) --expiring_;
  due_.erase({session->deadline, id});
  marks_.erase(id);
  ends_.erase(id);
  sessions_.erase(id);
}

void SessionTable::EndFailed(const std::string& id) {
  Session* session = Mutable(id);
  if (session == nullptr) return;
  if (session->ending != EndReason::kExpired) {
    ends_again_.insert(id);
    return;
  }
  session->ending.reset();
  --expiring_;
  if (!expired_.empty()) expired_.pop_back();
  timers_.emplace(session->deadline, id);
}

SessionMark SessionTable::Wanted(const Session& session) {
  if (session.suspect)
    return session.draining ? SessionMark::kSuspectDraining : SessionMark::kSuspect;
  return session.draining ? SessionMark::kDraining : SessionMark::kNone;
}

void SessionTable::WantMark(const Session& session) {
  if (Wanted(session) != session.marked || session.marking) marks_.insert(session.id);
}

std::vector<std::string> SessionTable::TakeMarks() {
  std::vector<std::string> out;
  for (auto it = marks_.begin(); it != marks_.end();) {
    Session* session = Mutable(*it);
    if (session != nullptr && session->marking) {
      ++it;  // after the one in flight: the last one committed is the last one wanted
      continue;
    }
    if (session != nullptr && Wanted(*session) != session->marked) {
      session->marking = true;
      session->marking_as = Wanted(*session);
      out.push_back(*it);
    }
    it = marks_.erase(it);
  }
  return out;
}

void SessionTable::Marked(const std::string& id, bool ok, SessionMark written, uint64_t at) {
  Session* session = Mutable(id);
  if (session == nullptr) return;
  session->marking = false;
  if (ok && at >= session->mark_modified) {
    session->marked = written;
    session->mark_modified = at;
  }
  if (Wanted(*session) != session->marked) (ok ? marks_ : marks_again_).insert(id);
}

size_t SessionTable::suspects() const {
  return std::count_if(sessions_.begin(), sessions_.end(),
                       [](const auto& entry) { return entry.second.suspect; });
}

bool SessionTable::ReleaseBrake() {
  if (brake_ == BrakeState::kOff) return false;
  brake_ = BrakeState::kReleasing;
  return true;
}

BootClock::duration SessionTable::brake_remaining() const {
  if (brake_ != BrakeState::kOn) return {};
  return std::max<BootClock::duration>(limits::kBrakeMost - (clock() - brake_since_), {});
}

}  // namespace datawire::directory
