#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "datawire/answer.h"
#include "datawire/directory/v1/directory.pb.h"
#include "datawire/record/v1/record.pb.h"
#include "engine/log.h"
#include "scheduler.h"
#include "view/view.h"

namespace datawire::sim {

namespace pb = ::datawire::directory::v1;

/// Knows what really happened: it reads every commit before anybody is told, and every message that
/// reached the directory, and checks each step against the promises (PROMISES.md). What it does not
/// take from the view it derives by itself from the records. Bound to its Scheduler.
class Oracle {
 public:
  Oracle(Scheduler& scheduler, const MachineClock& clock, std::vector<Address> addresses);

  /// A registration as its record says it. Value.
  struct Registration {
    std::string session, url;
    uint64_t op = 0;
    bool ended = false;
    uint64_t ended_by_op = 0;
    pb::Reason reason = pb::REASON_NONE;
    uint64_t modified = 0;
    Time orphan_since{0};  ///< its session expired then
  };
  struct Session {
    uint64_t attach = 0;
    Time ttl{0};
    Time opened{0};
    std::deque<Time> seen;  ///< of the last minutes
    std::string program;
    std::optional<pb::EndpointState> mark;
  };
  struct Past {
    uint64_t from = 0;  ///< revision number since which the answer is this
    uint64_t hash = 0;
    Time since{0};
  };
  using Key = std::pair<std::string, std::string>;  ///< address, URL

  // What happens, told by who sees it.
  /// `decided`: when each end of a session in it was, by its key; a heartbeat that comes later is
  /// too late.
  void OnCommit(const directory::Batch& batch, const std::map<std::string, Time>& decided,
                const directory::View& view);
  /// The directory starts with what its store holds.
  void OnStart(const directory::View& view);
  /// It was away (stopped, paused, its disc stalled) in that span and is back now.
  void OnAway(Time from);
  /// Arrived at the directory on a stream with that attach number.
  void OnHeartbeat(const std::string& session, uint64_t attach);
  void OnOp(const std::string& session, uint64_t attach, uint64_t op);
  /// A process asked for that, so the directory may do it.
  void OnWithdrawAsked(const std::string& program, const Key& key);
  void OnBye(const std::string& program) { bye_.insert(program); }
  /// A client got OK.
  void OnRegistered(const Key& key, Revision at);
  void OnWithdrawn(const std::string& session, const Key& key);

  /// An answer that a resolver gave to its application. `age_slack`: of messages on their way.
  void OnAnswer(const std::string& who, const Address& address, const Answer& answer,
                Time age_slack);

  // What holds now.
  const Session* Find(const std::string& session) const;
  const Registration* Find(const Key& key) const;
  /// The newest answer's hash.
  uint64_t HashOf(const Address& address) const { return past_.at(address.text()).back().hash; }
  uint64_t applied() const { return applied_; }
  Time last_commit() const { return last_commit_; }
  const std::map<std::string, Session>& sessions() const { return sessions_; }
  const std::vector<Address>& addresses() const { return addresses_; }
  /// Encoded History of each revision that has events, with its number.
  const std::vector<std::pair<uint64_t, std::string>>& events() const { return events_; }
  const std::vector<directory::Batch>& log() const { return log_; }
  size_t expired() const { return expired_total_; }
  size_t suspected() const { return suspected_; }

  bool keep_events = false;  ///< for watchers; costs a read of the history at each commit
  bool keep_log = false;     ///< for replicas
  Time tick_most{0};         ///< between two ticks of the directory

 private:
  using Instances = std::map<std::string, Registration>;  // by record key
  void TakeRegistration(const directory::Record& put);
  void TakeSession(const directory::Record& put);
  void TakeEnd(const directory::Record& put, const Session& session, Time decided);
  void TakeMark(const directory::Record* put, const std::string& key);
  void CheckExpiry(const std::string& id, const Session& session, Time decided);
  void CheckBudget();
  void CheckAnswers(const directory::Batch& batch, const directory::View& view);
  void CheckRow(const Address& address, const directory::Match& match, bool was_empty);
  bool Live(const Registration& registration) const;
  bool MayBeEmpty(const std::string& address) const;
  /// Of the directory's clock; goes on over its restarts.
  Time Local(Time t) const { return clock_.Span(t); }
  std::string NameOf(const std::string& session) const;

  Scheduler& scheduler_;
  const MachineClock& clock_;
  const std::vector<Address> addresses_;
  std::map<std::string, Session> sessions_;
  std::map<std::string, Instances> registrations_;                   // by address
  std::map<Key, std::string> latest_;                                // record key
  std::map<Key, std::set<uint64_t>> written_;                        // revision numbers
  std::map<std::pair<std::string, uint64_t>, uint64_t> done_;        // op -> its revision
  std::map<std::pair<std::string, uint64_t>, uint64_t> brought_by_;  // op -> greatest attach number
  std::set<std::pair<std::string, Key>> withdraw_asked_;
  std::set<std::string> bye_, ended_;
  std::map<std::string, std::vector<Past>> past_;
  std::map<std::string, bool> empty_;
  std::map<std::pair<std::string, std::string>, Revision> shown_;  // who, address
  std::set<std::string> touched_;                                  // addresses, by this batch
  std::set<std::string> emptied_by_will_;  // addresses from which something was taken on purpose
  std::vector<std::pair<uint64_t, std::string>> events_;
  std::vector<directory::Batch> log_;
  std::deque<Time> expiries_;  // on the directory's clock
  Time back_{0};               // of the last time it was away
  uint64_t applied_ = 0;
  Time last_commit_{0};
  size_t expired_total_ = 0, suspected_ = 0;
};

}  // namespace datawire::sim
