#include <algorithm>

#include "core/held_snapshots.h"
#include "core/tethers.h"
#include "datawire/wire.h"

// Sessions as operators see them, and what they may do to them.

namespace datawire::directory {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

constexpr size_t kIdBytes = 16;
constexpr size_t kEndCalls = 64;       // that wait for the end of one session
constexpr int kRegistrations = 1'000;  // of a session that are shown

Status CheckId(const std::string& id) {
  if (id.size() == kIdBytes) return {};
  return {Code::kInvalid, "session id is " + std::to_string(id.size()) + " bytes, must be " +
                              std::to_string(kIdBytes)};
}

}  // namespace

Status Tethers::UnknownSession(const std::string& id) {
  return {Code::kNotFound,
          "session " + Hex(id) + " is unknown: it never was, or ended more than 10 min ago"};
}

pb::ListSessionsResponse::Session Tethers::Show(const Session& session) const {
  pb::ListSessionsResponse::Session out;
  const record::v1::Session& record = session.record;
  out.set_id(session.id);
  out.set_state(session.suspect    ? pb::ENDPOINT_STATE_SUSPECT
                : session.draining ? pb::ENDPOINT_STATE_DRAINING
                                   : pb::ENDPOINT_STATE_UP);
  out.set_attach_number(record.attach_number());
  out.set_ttl_ms(record.ttl_ms());
  out.set_host(record.host());
  out.set_pid(record.pid());
  out.set_program(record.program());
  out.set_identity(record.identity());
  out.set_peer(record.peer());
  out.set_attached(session.stream != 0);
  out.set_opened_wall_ms(record.opened_wall_ms());
  out.set_node(record.owner());
  if (session.seen == BootTime{}) return out;  // what only its own node knows
  const BootTime clock = table_.clock(ground_->now());
  const auto ms = [](BootClock::duration span) {
    return static_cast<uint64_t>(std::max<int64_t>(duration_cast<milliseconds>(span).count(), 0));
  };
  out.set_seen_ms(ms(clock - session.seen));
  out.set_remaining_ms(ms(session.deadline - clock));
  return out;
}

Result<std::optional<pb::ListSessionsResponse::Session>> Tethers::ShowAny(
    const std::string& id) const {
  {
    const MutexLock lock(mu_);
    if (const Session* session = table_.Find(id)) return std::optional(Show(*session));
  }
  DW_ASSIGN(const auto session, ReadSession(id));
  if (!session) return std::optional<pb::ListSessionsResponse::Session>();
  const MutexLock lock(mu_);
  return std::optional(Show(*session));
}

Result<pb::ListSessionsResponse> Tethers::ListSessions(
    const pb::ListSessionsRequest& request) const {
  if (!request.id().empty()) return ShowOne(request.id());
  DW_ASSIGN(const size_t most, PageSize(request.page_size()));
  pb::ListSessionsResponse out;
  *out.mutable_source() = ground_->source;
  std::vector<std::string> ids;
  const std::string from = request.after().empty() ? "s/" : keys::Session(request.after()) + '\0';
  DW_RETURN_IF_ERROR(ground_->view.Scan(from, "s0", [&](const Record& record) {
    if (ids.size() == most) out.set_more(true);
    if (ids.size() < most) ids.push_back(record.key.substr(2));
    return !out.more();
  }));
  for (const std::string& id : ids) {
    DW_ASSIGN(auto session, ShowAny(id));
    if (session) *out.add_sessions() = std::move(*session);
  }
  for (auto& session : *out.mutable_sessions()) {
    DW_ASSIGN(const auto registrations, ground_->view.RegistrationsOf(session.id()));
    session.set_registrations(registrations.size());
  }
  return out;
}

Result<pb::ListSessionsResponse> Tethers::ShowOne(const std::string& id) const {
  DW_RETURN_IF_ERROR(CheckId(id));
  pb::ListSessionsResponse out;
  *out.mutable_source() = ground_->source;
  DW_ASSIGN(auto shown, ShowAny(id));
  if (shown) *out.add_sessions() = std::move(*shown);
  if (out.sessions().empty()) {
    DW_ASSIGN(const auto stored, ground_->view.Get(keys::SessionEnded(id)));
    if (!stored) return UnknownSession(id);
    record::v1::SessionEnded ended;
    if (!ended.ParseFromString(stored->value))
      return Status(Code::kCorrupt, "the tombstone of a session does not parse");
    auto* session = out.add_sessions();
    session->set_id(id);
    session->set_ended(true);
    session->set_reason(ended.reason());
    session->set_ended_by(ended.by());
    session->set_ended_wall_ms(ended.at_wall_ms());
    return out;
  }
  DW_ASSIGN(const auto keys, ground_->view.RegistrationsOf(id));
  out.mutable_sessions(0)->set_registrations(keys.size());
  for (const std::string& key : keys) {
    if (out.registrations_size() == kRegistrations) break;
    DW_ASSIGN(const auto parsed, keys::ParseRegistration(key));
    DW_ASSIGN(const auto stored, ground_->view.Get(key));
    record::v1::Registration registration;
    if (!stored || !registration.ParseFromString(stored->value)) continue;  // it went meanwhile
    auto* one = out.add_registrations();
    one->set_address(parsed.first.text());
    one->set_url(registration.endpoint().url());
  }
  return out;
}

void Tethers::EndSession(const pb::EndSessionRequest& request, const Peer& peer,
                         std::function<void(Result<pb::EndSessionResponse>)> done) {
  const std::string& id = request.id();
  Status refused = CheckId(id);
  const RevisionCall answer = [done](const Result<Revision>& result) {
    if (!result.ok()) return done(result.status());
    pb::EndSessionResponse response;
    ToWire(*result, response.mutable_revision());
    done(std::move(response));
  };
  After after;
  if (refused.ok()) {
    MutexLock lock(mu_);
    if (table_.Find(id) == nullptr) {
      lock.unlock();
      return ChangeForeign(
          id,
          [self = shared_from_this(), peer](const Session& session) {
            return self->EndOp(session, directory::NameOf(peer), peer.address);
          },
          answer);
    } else if (stopping_) {
      refused = {Code::kUnavailable, "this node stops"};
    } else if (ends_[id].size() >= kEndCalls) {
      refused = {Code::kOverloaded, std::to_string(kEndCalls) + " calls wait for its end"};
      refused.set_retry_after(std::chrono::seconds(1));
    } else {
      ends_[id].push_back(answer);
      // One that is ending already ends as it began to.
      table_.Close(id, EndReason::kOperator, directory::NameOf(peer), peer.address);
      Flush(after);
    }
  }
  after.Run();
  if (refused.ok()) return;
  ++ground_->counts.refused;
  done(refused);
}

void Tethers::AnswerEnds(const std::string& id, const Result<Revision>& result, After& after) {
  const auto it = ends_.find(id);
  if (it == ends_.end()) return;
  for (RevisionCall& call : it->second)
    after.calls.push_back([call = std::move(call), result] { call(result); });
  ends_.erase(it);
}

void Tethers::DrainSession(const std::string& id, bool undo, const Peer& peer, RevisionCall done) {
  Status refused;
  After after;
  {
    MutexLock lock(mu_);
    const Session* session = table_.Find(id);
    if (session == nullptr) {
      lock.unlock();
      return ChangeForeign(
          id,
          [self = shared_from_this(), undo, peer](Session foreign) {
            foreign.draining = !undo;
            foreign.drained_by = directory::NameOf(peer);
            foreign.drained_peer = peer.address;
            return self->MarkOp(foreign, SessionTable::Wanted(foreign));
          },
          done);
    } else if (stopping_) {
      refused = {Code::kUnavailable, "this node stops"};
    } else if (ops_[id].drain_calls.size() >= kEndCalls) {
      refused = {Code::kOverloaded, std::to_string(kEndCalls) + " drains of it wait"};
      refused.set_retry_after(std::chrono::seconds(1));
    } else {
      ops_[id].drain_calls.push_back(done);
      table_.SetDraining(id, !undo, directory::NameOf(peer), peer.address);
      if (SessionTable::Wanted(*session) == session->marked && !session->marking)
        AnswerDrains(id, ground_->view.Applied(), after);
      Flush(after);
    }
  }
  after.Run();
  if (refused.ok()) return;
  ++ground_->counts.refused;
  done(refused);
}

Result<pb::ReleaseBrakeResponse> Tethers::ReleaseBrake() {
  const MutexLock lock(mu_);
  if (!table_.ReleaseBrake())
    return Status(Code::kConflict, "the brake is off: there is nothing to release");
  pb::ReleaseBrakeResponse out;
  out.set_sessions_suspect(table_.suspects());
  return out;
}

}  // namespace datawire::directory
