#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <proton/delivery.hpp>
#include <proton/messaging_handler.hpp>
#include <proton/receiver.hpp>
#include <proton/sender.hpp>
#include <set>
#include <string>
#include <vector>

#include "amqp/connection.h"
#include "datawire/address.h"
#include "exchange.h"
#include "link_book.h"
#include "outlet.h"

namespace datawire {

/// What a service's connections have in common. Thread-safe.
struct ServiceNode {
  Address address;
  bool subtree = false;
  uint32_t credit = limits::kServiceCredit;
  /// Takes messages to the handler; must not block.
  std::function<void(std::vector<std::shared_ptr<Exchange::State>>&)> deliver;
  Feed feed;
  std::shared_ptr<LinkBook> book;
  std::shared_ptr<DeadLetters> dead_letters;  ///< null: failures go back to the sender for ever
  std::shared_ptr<SpareMessages> spare;

  /// The logical address of an attach to `target`; nothing when it is not ours.
  std::optional<std::string> Match(const std::string& target) const;
};

/// One connection that a peer made to a service: its links in, the reply nodes it asked for, what
/// was handed to the handler. Answers come from any thread; all else is bound to the strand.
class ServiceConnection final : public proton::messaging_handler,
                                public Answerer,
                                public std::enable_shared_from_this<ServiceConnection> {
 public:
  explicit ServiceConnection(std::shared_ptr<const ServiceNode> node) : node_(std::move(node)) {}

  /// Before any event.
  void Opened(const std::shared_ptr<amqp::Connection>& connection) { connection_ = connection; }
  void Closed();
  /// Gives no more credit and asks back what is left, releases what comes, closes when the peer has
  /// given it back (or a little later: many peers do not) and nothing is in progress. Any thread.
  void Drain();
  void Abort();

  // Answerer
  void Answer(uint64_t token, Settle how) override;
  Status Reply(uint64_t token, const std::string& reply_to, std::vector<char> encoded) override;

  void on_receiver_open(proton::receiver& receiver) override;
  void on_receiver_close(proton::receiver& receiver) override;
  void on_receiver_detach(proton::receiver& receiver) override;
  void on_receiver_drain_finish(proton::receiver& receiver) override;
  void on_sender_open(proton::sender& sender) override;
  void on_sender_close(proton::sender& sender) override;
  void on_sender_detach(proton::sender& sender) override;
  void on_session_close(proton::session& session) override;
  void on_sendable(proton::sender& sender) override;
  void on_sender_drain_start(proton::sender& sender) override;
  void on_tracker_accept(proton::tracker& tracker) override { Heard(tracker); }
  void on_tracker_reject(proton::tracker& tracker) override { Heard(tracker); }
  void on_tracker_release(proton::tracker& tracker) override { Heard(tracker); }
  void on_tracker_settle(proton::tracker& tracker) override;
  void on_message(proton::delivery& delivery, proton::message& message) override;
  void on_error(const proton::error_condition&) override {}  // the default throws

 private:
  struct In {
    proton::receiver receiver;
    std::string address;
    std::shared_ptr<LinkBook::Page> page;
    uint32_t owed = 0;      // done with, and no new credit given for it yet
    bool draining = false;  // the credit is asked back, and more may be on its way
  };
  struct Waiting {
    std::vector<char> encoded;
    uint64_t in;
  };
  struct Out {  // a reply node
    proton::sender sender;
    std::deque<Waiting> replies;  // without credit; bounded by the credit of the links in
    uint64_t next_tag = 1;
  };
  struct Told {  // by the handler
    uint64_t token;
    Settle how;
    std::string reply_to;  // empty: no reply
    std::vector<char> reply;
  };
  struct Held {
    proton::delivery delivery;
    uint64_t in;
  };

  void OpenOutlet(proton::sender& sender, std::string address);
  std::shared_ptr<LinkOutlet> OutletOf(const proton::sender& sender) const;
  void Heard(proton::tracker& tracker);
  void Deliver();
  void Tell(Told told);
  void Hear();
  std::optional<uint64_t> SettleHeld(uint64_t token, const Settle& how);
  void Done(uint64_t in);
  void SendReplies(Out& out);
  void Gone(const proton::receiver& receiver);
  void Gone(const proton::sender& sender);
  void Gone(const std::shared_ptr<LinkOutlet>& outlet);
  void CloseWhenDone();

  const std::shared_ptr<const ServiceNode> node_;
  std::weak_ptr<amqp::Connection> connection_;  // set once, before it is shared
  std::map<uint64_t, In> in_;
  std::map<std::string, Out> out_;  // by the node's address
  std::vector<std::shared_ptr<LinkOutlet>> outlets_;
  std::map<uint64_t, Held> held_;  // handed out, not settled; at most credit a link
  std::vector<std::shared_ptr<Exchange::State>> came_;  // in this turn of the connection
  std::vector<Told> hearing_;                           // told_, while it is worked on
  uint64_t next_ = 1;
  bool draining_ = false;

  std::mutex mutex_;
  std::set<std::string> reply_nodes_;  // guarded by mutex_; the keys of out_
  std::vector<Told> told_;             // guarded by mutex_; at most one for each held
};

}  // namespace datawire
