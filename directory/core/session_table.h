#pragma once

#include <deque>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "datawire/clock.h"
#include "datawire/record/v1/record.pb.h"

namespace datawire::directory {

/// What `q/<session>` says of a session; a committed fact.
enum class SessionMark { kNone, kDraining, kSuspect, kSuspectDraining };
SessionMark MarkOf(const record::v1::SessionMark& mark);
/// Why a session is to end.
enum class EndReason { kExpired, kClosed, kOperator };
enum class BrakeState { kOff, kOn, kReleasing };

/// One session as its node knows it. Value.
struct Session {
  std::string id;
  record::v1::Session record;  ///< as committed
  uint64_t modified = 0;       ///< revision number of that
  uint64_t stream = 0;         ///< the tether that holds it; 0: none
  BootTime seen, deadline;     ///< on the table's clock, which stands still when the node is away
  bool draining = false, suspect = false;       ///< as wanted
  SessionMark marked = SessionMark::kNone;      ///< as committed
  uint64_t mark_modified = 0;                   ///< revision number of `q/`; 0: there is none
  SessionMark marking_as = SessionMark::kNone;  ///< while `marking`
  bool marking = false;                         ///< a commit of the mark is in flight
  bool orphan = false;  ///< of a node that is gone: nobody's until it is resumed somewhere
  std::optional<EndReason> ending;       ///< wanted, perhaps in flight: that commit decides
  std::string drained_by, drained_peer;  ///< who asked for it, or for its end
  std::string ended_by, ended_peer;      ///< kOperator: who wants it
};

/// Lives and deaths of the sessions of this node: TTLs, grace, fencing, the brake on mass expiry
/// (PROMISES P9-P13, P24). It decides; commits are made by its caller, who reports their outcome.
/// No lock, clock or I/O: `now` comes in. Thread-compatible.
class SessionTable {
 public:
  explicit SessionTable(BootTime now) : last_tick_(now) {}

  /// A session found in the store at start: its deadline is now + max(TTL, 60 s).
  void Recover(const std::string& id, record::v1::Session record, uint64_t modified,
               SessionMark mark, BootTime now);
  void Opened(const std::string& id, record::v1::Session record, uint64_t modified, uint64_t stream,
              BootTime now);

  /// A session that another node held is resumed here; it keeps its mark.
  void TakenOver(const std::string& id, record::v1::Session record, uint64_t modified,
                 SessionMark mark, uint64_t mark_modified, uint64_t stream, BootTime now);
  /// One of a node that is gone: this one counts its time, max(TTL, 30 s).
  void Adopt(const std::string& id, record::v1::Session record, uint64_t modified, SessionMark mark,
             uint64_t mark_modified, BootTime now);
  /// It is another's, or over: no word of it any more.
  void Forget(const std::string& id);
  /// What a mark says now, whoever wrote it.
  void MarkIs(const std::string& id, SessionMark mark, uint64_t modified);
  /// Another node committed an expiry: it is in the same budget.
  void ExpiredElsewhere() { expired_.push_back(clock()); }

  enum class Verdict { kOk, kUnknown, kForeignSecret, kForeignIdentity, kFenced };
  Verdict MayResume(const std::string& id, const std::string& secret_sha256,
                    const std::string& identity, uint64_t attach_number) const;
  /// The same of a record that another node holds.
  static Verdict MayResume(const record::v1::Session& record, const std::string& secret_sha256,
                           const std::string& identity, uint64_t attach_number);
  /// A resume was committed. Returns the stream that is fenced by it, 0 if none.
  uint64_t Resumed(const std::string& id, uint64_t attach_number, uint64_t modified,
                   uint64_t stream, BootTime now, const std::string& peer = "");

  /// Time since the session was last seen. Nothing: not the holder's stream, or its end is being
  /// committed (if that fails, the heartbeat has counted).
  std::optional<BootClock::duration> Heartbeat(const std::string& id, uint64_t stream,
                                               BootTime now);
  /// The stream is gone; the session lives on until its deadline.
  void Lost(const std::string& id, uint64_t stream);
  void SetDraining(const std::string& id, bool draining, const std::string& by = "",
                   const std::string& peer = "");
  void Close(const std::string& id, EndReason why = EndReason::kClosed, const std::string& by = "",
             const std::string& peer = "");

  /// `healthy`: commits work. Unhealthy spans, and gaps between ticks of 1 s and more, do not count
  /// for any deadline; after 3 s of them on end every deadline is at least now + max(TTL, 60 s).
  /// `live`: sessions that the budget is a share of, over all nodes; nothing: those in here. At
  /// most `expire_most` are to end by expiry.
  void Tick(BootTime now, bool healthy, std::optional<size_t> live = {},
            size_t expire_most = ~size_t{0});

  /// Ends to commit now; each is reported by Ended or EndFailed.
  std::vector<std::string> TakeEnds();
  void Ended(const std::string& id);
  void EndFailed(const std::string& id);
  /// Sessions whose mark is to be committed; each is reported by Marked.
  std::vector<std::string> TakeMarks();
  static SessionMark Wanted(const Session& session);
  void Marked(const std::string& id, bool ok, SessionMark written, uint64_t at = 0);

  const Session* Find(const std::string& id) const;
  size_t size() const { return sessions_.size(); }
  const std::unordered_map<std::string, Session>& sessions() const { return sessions_; }
  size_t suspects() const;
  BrakeState brake() const { return brake_; }
  uint64_t brake_trips() const { return trips_; }
  /// An operator's: what is due expires at the budget's rate. False: it is off.
  bool ReleaseBrake();
  /// Until the brake gives up; 0 when it is off.
  BootClock::duration brake_remaining() const;
  /// Expiries allowed in any 60 s.
  size_t budget() const;
  /// Goes on only while the node is healthy.
  BootTime clock(BootTime now) const { return now - frozen_; }
  BootTime clock() const { return clock(last_tick_); }

 private:
  using Entry = std::pair<BootTime, std::string>;
  Session* Mutable(const std::string& id);
  Session& Add(const std::string& id, record::v1::Session record, uint64_t modified);
  void Begin(Session& session, SessionMark mark, BootClock::duration life, BootTime now);
  void Seen(Session& session, BootTime now);
  void GiveGrace();
  void CollectDue();
  void Decide();
  void Expire(size_t most);
  void WantMark(const Session& session);

  std::unordered_map<std::string, Session> sessions_;
  // One entry a live session that is not due; its time may be too early, never too late.
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> timers_;
  std::optional<size_t> live_;    // what the budget is a share of
  size_t expire_most_ = 0;        // in this tick
  std::set<Entry> due_;           // past their deadline, end not wanted yet
  std::deque<BootTime> expired_;  // ends by expiry in the last 60 s, those in flight too
  size_t expiring_ = 0;           // in flight
  std::set<std::string> ends_, marks_;
  std::set<std::string> ends_again_, marks_again_;  // failed: with the next healthy tick
  BootTime last_tick_;
  BootClock::duration frozen_{};
  BootClock::duration away_{};  // of frozen_, without a healthy tick gap since
  bool healthy_ = true;
  BrakeState brake_ = BrakeState::kOff;
  BootTime brake_since_{};
  uint64_t trips_ = 0;
};

}  // namespace datawire::directory
