#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "datawire/answer.h"
#include "datawire/client.h"
#include "datawire/clock.h"
#include "datawire/endpoint_health.h"

namespace datawire {

/// The state machine of one sender: which message goes on which link, again or not, and how each
/// ends. No clock, thread, socket or message body: messages are numbers, `now` is an argument.
/// The rules are the delivery contract of client/README.md. Thread-compatible.
class SenderCore {
 public:
  using MessageId = uint64_t;
  using LinkId = uint64_t;
  using milliseconds = std::chrono::milliseconds;

  struct Options {
    bool presettled = false;
    /// False (requests): a message on a lost link, or modified, ends as OUTCOME_UNKNOWN at once.
    bool again = true;
    size_t links = limits::kSenderLinks;
    uint64_t seed = 0;
    uint64_t random_seed = 0;
    SelectionPolicy selection;
    Locality locality;
  };
  explicit SenderCore(const Options& options)
      : options_(options),
        random_(options.random_seed),
        health_(options.selection, options.locality) {}

  /// How a receiver settled.
  struct Outcome {
    enum class Kind { kAccepted, kRejected, kReleased, kModified };
    Kind kind = Kind::kAccepted;
    std::string condition, description;
    bool failed = false, undeliverable_here = false;
  };

  // What the shell has to do, in this order.
  struct OpenLink {
    LinkId link;
    EndpointUrl url;
    Address matched;
    std::string identity;  ///< of the peer; empty: any
  };
  struct CloseLink {
    LinkId link;
  };
  struct Transmit {
    LinkId link;
    MessageId id;
    uint32_t redelivered;   ///< added to the message's delivery-count
    milliseconds ttl_left;  ///< what its header says; 0: as it is
  };
  /// The message is finished; a settlement that comes later means nothing.
  struct Forget {
    LinkId link;
    MessageId id;
  };
  struct Finish {
    MessageId id;
    DeliveryOutcome outcome;
    size_t bytes;
  };
  /// An endpoint was ejected for so long; to be told.
  struct Ejected {
    std::string url;
    milliseconds out;
    std::string why;
  };
  using Action = std::variant<OpenLink, CloseLink, Transmit, Forget, Finish, Ejected>;

  // What happened. Each may be followed by Pump.
  void AnswerChanged(std::shared_ptr<const Answer> answer, BootTime now);
  /// Why there is no answer, for those who wait for one.
  void AnswerFailed(std::string reason) { no_answer_ = std::move(reason); }
  /// `expires`: from then on it is put on no link. `bytes`: of its body, for live_bytes.
  void Give(MessageId id, std::string key, BootTime deadline, BootTime expires = BootTime::max(),
            size_t bytes = 0);
  void LinkOpened(LinkId link);
  /// `granted`: all credit the peer ever gave on this link, used or not; it falls by a drain.
  void Credit(LinkId link, uint64_t granted);
  /// A pre-settled message left: it is done.
  void Written(LinkId link, MessageId id, BootTime now);
  /// There was no credit left when its turn came; it was not sent.
  void Bounced(LinkId link, MessageId id);
  void Settled(LinkId link, MessageId id, const Outcome& outcome, BootTime now);
  /// Refused, failed to open, closed by the peer or cut: what was on it goes again.
  void LinkLost(LinkId link, std::string condition, std::string description, BootTime now);

  /// Ends it, if it has not ended.
  void Cancel(MessageId id);
  /// Ends one that no peer has, the one given first among those that are next.
  /// False: there is none.
  bool DropOldest(const std::string& reason);

  /// Ends what is overdue, opens and closes links, assigns messages.
  void Pump(BootTime now);
  /// Ends all that is not settled; in the order given.
  std::vector<MessageId> Abandon(const std::string& reason);
  /// Closes all links.
  void CloseLinks();

  /// What is to be done since the last call. In exchange for a vector to be filled next.
  void TakeActions(std::vector<Action>& actions) {
    actions.clear();
    actions.swap(actions_);
  }
  /// When to call Pump without another event.
  std::optional<BootTime> NextWake(BootTime now) const;
  /// Messages that have not ended.
  size_t live() const { return messages_.size(); }
  size_t live_bytes() const { return live_bytes_; }
  const Sender::Counters& counters() const { return counters_; }

 private:
  struct Link {
    LinkId id = 0;
    bool open = false;
    BootTime since;      // asked to open
    BootTime last_used;  // had something unsettled or to send
    uint64_t granted = 0, assigned = 0;
    uint32_t unsettled = 0;
    bool credit() const { return open && granted > assigned; }
  };
  struct Peer {
    explicit Peer(Endpoint e) : endpoint(std::move(e)) {}
    Endpoint endpoint;
    bool listed = true;   // in the present answer
    bool failed = false;  // and did not work since
    std::optional<Link> link;
  };
  enum class Where { kQueued, kWaiting, kOnLink };
  struct Message {
    std::string key;
    BootTime deadline, expires;
    size_t bytes = 0;
    Where where = Where::kQueued;
    Peer* peer = nullptr;  // of kOnLink
    uint32_t attempts = 0, redelivered = 0, pauses = 0;
    bool maybe_done = false;         // an attempt ended without the peer saying it did nothing
    std::vector<std::string> avoid;  // endpoints that gave it back
    std::string last_peer, last_reason;
  };
  using Messages = std::unordered_map<MessageId, Message>;

  Peer* PeerOf(LinkId link);
  Message* OnLink(LinkId link, MessageId id);
  void GiveBack(MessageId id, Message& message, const Outcome& outcome);
  void Requeue(std::vector<MessageId> ids);
  void WakeAt(BootTime at, MessageId id);
  void End(MessageId id, DeliveryEnd end, std::string condition, std::string description);
  void EndUnsettled(MessageId id, const std::string& reason);
  void Failed(Peer& peer, EndpointHealth::Failure how, const std::string& why, BootTime now);
  void Worked(Peer& peer, BootTime now);
  void Close(Peer& peer);

  void Expire(BootTime now);
  void WakeWaiting(BootTime now);
  void Choose(BootTime now);
  void CloseUnused(BootTime now);
  void Assign(BootTime now);
  enum class Step { kGone, kStays, kStop };
  Step AssignOne(MessageId id, Message& message, BootTime now);
  void Pause(MessageId id, Message& message, BootTime now);
  bool Open(Peer& peer, BootTime now);
  Policy policy() const { return answer_ ? answer_->policy : Policy::kBalanced; }
  std::pair<std::string, std::string> WhyUnsent() const;

  const Options options_;
  Random random_;
  EndpointHealth health_;
  std::shared_ptr<const Answer> answer_;
  std::string no_answer_, last_failure_, last_condition_;
  std::map<std::string, Peer> peers_;  // by URL
  std::unordered_map<LinkId, Peer*> links_;
  std::vector<Peer*> chosen_;  // candidates of this pump, as candidates_
  std::vector<Candidate> candidates_;
  std::optional<BootTime> next_back_;  // when one that was not usable in this pump may be
  Messages messages_;
  size_t live_bytes_ = 0;
  std::deque<MessageId> queue_;                 // may name ended ones
  std::multimap<BootTime, MessageId> waiting_;  // may name ended ones
  // A heap of deadlines and expiries; may name ended ones.
  std::vector<std::pair<BootTime, MessageId>> deadlines_;
  std::vector<Action> actions_;
  Sender::Counters counters_;
  LinkId next_link_ = 1;
};

}  // namespace datawire
