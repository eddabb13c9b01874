#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/ground.h"
#include "core/orphans.h"
#include "core/session_table.h"
#include "core/tether_line.h"
#include "datawire/mutex.h"

namespace datawire::directory {

/// Moved by each commit of expiries, so that they come one after another (P11).
inline constexpr char kBudgetKey[] = "l/budget";

/// The Tether verb: sessions on their streams, their ops exactly once, and the commits that the
/// session table asks for. One lock over table and ops; reads, commits and messages happen outside
/// of it. Thread-safe.
class Tethers : public std::enable_shared_from_this<Tethers> {
 public:
  /// Reads the sessions that are in the store.
  static Result<std::shared_ptr<Tethers>> Open(std::shared_ptr<Ground> ground, BootTime now);
  Tethers(std::shared_ptr<Ground> ground, BootTime now) : ground_(std::move(ground)), table_(now) {}

  std::unique_ptr<Tether> OpenTether(const Peer& peer, Stream& stream);
  /// Answers the ops that a group brought to their end: those of one tether in one go.
  void AfterGroup();
  void Tick(BootTime now, bool healthy);
  /// What the view was told of sessions: other nodes take them over, end and mark them, too.
  void OnPublished(const Published& published);
  /// Tells every tether to move; later ones are refused.
  void Stop();

  struct Summary {
    uint64_t sessions = 0, suspects = 0, brake_trips = 0;
    bool brake_on = false;
    std::chrono::milliseconds brake_remaining{};
  };
  Summary summary() const;
  /// `host`, pid, program, age of the last heartbeat: one line for people; empty: no such session.
  std::string Describe(const std::string& session_id) const;
  // session_admin.cc: what operators see and do.
  Result<pb::ListSessionsResponse> ListSessions(const pb::ListSessionsRequest& request) const;
  void EndSession(const pb::EndSessionRequest& request, const Peer& peer,
                  std::function<void(Result<pb::EndSessionResponse>)> done);
  Result<pb::ReleaseBrakeResponse> ReleaseBrake();
  using RevisionCall = std::function<void(Result<Revision>)>;
  void DrainSession(const std::string& id, bool undo, const Peer& peer, RevisionCall done);
  /// The clock of sessions, which stands still while the node is not healthy.
  BootTime healthy_clock() const;

 private:
  friend class TetherStream;

  /// What a session has in flight and had lately.
  struct Ops {
    std::unordered_map<uint64_t, std::shared_ptr<SessionOp>> pending;  // queued and in flight
    std::deque<std::shared_ptr<SessionOp>> queue;  // in order: the first waits for its addresses
    std::set<std::string> busy;                    // addresses of ops in flight
    std::map<uint64_t, Revision> done;             // the latest results, oldest first in `order`
    std::deque<uint64_t> order;
    std::vector<std::pair<uint64_t, std::shared_ptr<TetherLine>>> drains;  // wait for the mark
    std::vector<std::function<void(Result<Revision>)>> drain_calls;        // of operators, as well
    size_t registrations = 0;  // at least as many as it has, counted again at the limit
    bool counted = true;
    Quotas::Held session;  // it counts for its principal
  };
  using Line = std::shared_ptr<TetherLine>;

  // tethers.cc: streams and sessions.
  void OnMessage(const Line& line, const pb::TetherRequest& request);
  void Handle(const Line& line, const pb::TetherRequest& request, After& after) DW_REQUIRES(mu_);
  void OnHello(const Line& line, const pb::TetherRequest::Hello& hello, After& after)
      DW_REQUIRES(mu_);
  void OnHeartbeat(const Line& line, uint64_t number, After& after) DW_REQUIRES(mu_);
  void ProposeOpen(const Line& line, const pb::TetherRequest::Hello& hello);
  void Resume(const Line& line, const pb::TetherRequest::Hello& hello, int attempt);
  void Resumed(const Line& line, const pb::TetherRequest::Hello& hello, int attempt,
               const Outcome& outcome);
  void Welcome(const Line& line, const Session& session, const std::string& secret, bool resumed,
               Revision at, After& after) DW_REQUIRES(mu_);
  void RefuseResume(const Line& line, const std::string& id, SessionTable::Verdict verdict,
                    uint64_t present, After& after) DW_REQUIRES(mu_);
  void EndUnknown(const Line& line, const std::string& id);
  void EndLine(const Line& line, const Status& status, const std::string& reason,
               uint64_t present_attach_number, After& after) DW_REQUIRES(mu_);
  void Gone(const Line& line);

  // shared_sessions.cc: sessions between the nodes of a cluster.
  void TakeOver(const Line& line, const pb::TetherRequest::Hello& hello, int attempt);
  void OnRecord(const Record& record, After& after) DW_REQUIRES(mu_);
  void TakenOver(const Line& line, const Session& session, const Quotas::Held& held,
                 const Outcome& outcome);
  void Lose(const std::string& id, uint64_t attach_number, After& after) DW_REQUIRES(mu_);
  void EndedElsewhere(const std::string& id, const record::v1::SessionEnded& ended, After& after)
      DW_REQUIRES(mu_);
  void LookForOrphans(BootTime now);
  void ReadOwners();
  void AdoptOrphans(const Orphans::Owner& owner, BootTime now);
  void ReturnOrphans(const Orphans::Owner& owner);
  void ForgetOrphans();
  void ForgetOrphan(const std::string& id) DW_REQUIRES(mu_);
  void SendAway(BootTime now, bool healthy, After& after) DW_REQUIRES(mu_);
  /// Proposes `change` of the session as it is, until no other change comes in between.
  void ChangeForeign(const std::string& id, std::function<Op(const Session&)> change,
                     RevisionCall done, int attempt = 0);
  /// As the view has it; nothing: there is none.
  Result<std::optional<Session>> ReadSession(const std::string& id) const;
  bool IsOwn(const record::v1::Session& session) const;
  /// Nobody changed its record since: false, and another node has it or it is over.
  bool IsStill(const std::string& id, uint64_t modified) const;
  /// The record of a session that `hello` resumes here.
  record::v1::Session Resumption(record::v1::Session record, const Peer& peer,
                                 const pb::TetherRequest::Hello& hello) const;

  // tether_ops.cc: ops of a session.
  void Admit(const Line& line, std::shared_ptr<SessionOp> op, After& after) DW_REQUIRES(mu_);
  void OnDrain(const Line& line, const pb::TetherRequest::Drain& drain, After& after)
      DW_REQUIRES(mu_);
  void Pump(const std::string& id, Ops& ops, After& after) DW_REQUIRES(mu_);
  void StartOp(const std::shared_ptr<SessionOp>& op);
  Status Reserve(const std::shared_ptr<SessionOp>& op, const Plan& plan);
  void OpDone(const std::shared_ptr<SessionOp>& op, const Outcome& outcome);
  void FinishOp(const std::shared_ptr<SessionOp>& op, const Result<Revision>& result);
  void Finish(const SessionOp& op, const Result<Revision>& result, After& after) DW_REQUIRES(mu_);

  // session_commits.cc: what the table wants committed.
  void Flush(After& after) DW_REQUIRES(mu_);
  void ProposeEnd(const Session& session);
  void ProposeExpiries(const std::vector<Session>& sessions);
  void EndDone(const std::string& id, EndReason reason, const Outcome& outcome);
  void ProposeMark(const std::string& id, const Session& session);
  Op EndOp(const Session& session, const std::string& by, const std::string& peer) const;
  Op MarkOp(const Session& session, SessionMark wanted) const;
  void MarkDone(const std::string& id, SessionMark written, const Outcome& outcome);
  void AnswerDrains(const std::string& id, const Result<Revision>& result, After& after)
      DW_REQUIRES(mu_);

  // session_admin.cc
  static Status UnknownSession(const std::string& id);
  pb::ListSessionsResponse::Session Show(const Session& session) const DW_REQUIRES(mu_);
  Result<std::optional<pb::ListSessionsResponse::Session>> ShowAny(const std::string& id) const;
  Result<pb::ListSessionsResponse> ShowOne(const std::string& id) const;
  void AnswerEnds(const std::string& id, const Result<Revision>& result, After& after)
      DW_REQUIRES(mu_);

  std::shared_ptr<Ground> ground_;
  mutable Mutex mu_;
  SessionTable table_ DW_GUARDED_BY(mu_);
  std::unordered_map<std::string, Ops> ops_ DW_GUARDED_BY(mu_);
  // Operators who wait for the end of a session.
  std::map<std::string, std::vector<RevisionCall>> ends_ DW_GUARDED_BY(mu_);
  std::unordered_map<uint64_t, Line> lines_ DW_GUARDED_BY(mu_);
  uint64_t next_stream_ DW_GUARDED_BY(mu_) = 1;
  // With other nodes: who owns what, while this one is the reaper; the one budget of expiry.
  Orphans orphans_ DW_GUARDED_BY(mu_);
  bool reaping_ DW_GUARDED_BY(mu_) = false;
  bool reading_owners_ DW_GUARDED_BY(mu_) = false;
  std::set<std::string> changed_meanwhile_
      DW_GUARDED_BY(mu_);  // sessions, since the walk over owners began
  std::set<Orphans::Owner> adopted_ DW_GUARDED_BY(mu_);
  uint64_t budget_modified_ DW_GUARDED_BY(mu_) = 0;  // of `l/budget`, as told; 0: there is none
  uint64_t budget_seen_ DW_GUARDED_BY(mu_) = 0;      // as read at the last look
  bool expiring_ DW_GUARDED_BY(mu_) = false;         // the one op of expiries that is in flight
  size_t expire_most_ DW_GUARDED_BY(mu_) = 1;        // in the next
  BootTime looked_at_{};                             // bound to Tick
  BootTime healthy_at_ DW_GUARDED_BY(mu_){};
  bool sent_away_ DW_GUARDED_BY(mu_) = false;
  bool stopping_ DW_GUARDED_BY(mu_) = false;

  Mutex finished_mu_;
  std::deque<std::pair<std::shared_ptr<SessionOp>, Result<Revision>>> finished_
      DW_GUARDED_BY(finished_mu_);
};

}  // namespace datawire::directory
