#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <proton/connection.hpp>
#include <proton/delivery.hpp>
#include <proton/messaging_handler.hpp>
#include <proton/receiver.hpp>
#include <proton/sender.hpp>
#include <proton/tracker.hpp>
#include <string>
#include <vector>

#include "amqp/proton_extras.h"
#include "links.h"

namespace datawire {

/// One link on a shared connection; a requester has two halves. Its PeerLink interface is
/// thread-safe, all else is bound to the strand of the connection.
class LinkOfPeer final : public PeerLink, public std::enable_shared_from_this<LinkOfPeer> {
 public:
  LinkOfPeer(std::shared_ptr<Links::Peer> peer, LinkSpec spec, std::shared_ptr<LinkEvents> events,
             std::shared_ptr<LinkBook> book)
      : peer_(std::move(peer)),
        spec_(std::move(spec)),
        events_(std::move(events)),
        book_(std::move(book)) {}

  void Transmit(std::vector<Item> items) override;
  void Forget(uint64_t id) override;
  void SettleMessage(uint64_t token, Settle how) override;
  void Leave() override;
  void Close() override;

  /// False when it was closed meanwhile.
  bool Start(proton::connection connection);
  bool Has(const proton::link& link) const;
  void OnAttached(const proton::link& link);
  void ReportCredit();
  void OnSettled(const proton::tracker& tracker);
  void OnMessage(proton::delivery& delivery, proton::message& message);
  void OnDrained();
  void CloseHalves();
  /// Gives up the proton objects.
  void Drop();
  void Lose(const std::string& condition, const std::string& description);

 private:
  void Send(const Item& item);
  void LeaveWhenDone();

  const std::shared_ptr<Links::Peer> peer_;
  const LinkSpec spec_;
  std::shared_ptr<LinkEvents> events_;
  const std::shared_ptr<LinkBook> book_;
  std::shared_ptr<LinkBook::Page> page_;  // once it is attached
  proton::sender sender_;
  proton::receiver receiver_;
  bool sender_attached_ = false, receiver_attached_ = false, closed_ = false;
  std::string reply_to_;
  uint64_t sent_ = 0;
  std::map<uint64_t, proton::delivery> deliveries_;  // handed out, to be settled; at most credit
  uint64_t next_token_ = 1;
  uint32_t owed_ = 0;                       // settled, and no new credit given for it yet
  bool leaving_ = false, drained_ = false;  // of Leave
};

/// A connection and the links on it. Thread-safe; the handler and active_ belong to the strand.
class Links::Peer final : public proton::messaging_handler,
                          public std::enable_shared_from_this<Links::Peer> {
 public:
  void Start(amqp::Io& io, const EndpointUrl& url, const std::string& identity,
             const std::string& container_id, std::shared_ptr<amqp::Tls> tls);
  /// False when it is closed or full.
  bool Add(const std::shared_ptr<LinkOfPeer>& link);
  /// On the strand.
  void Remove(const std::shared_ptr<LinkOfPeer>& link);
  bool Post(std::function<void()> task);
  void After(std::chrono::milliseconds delay, std::function<void()> task);
  bool over();
  void Close(std::chrono::milliseconds wait);
  void WaitClosed(BootTime until);

  void on_sender_open(proton::sender& sender) override;
  void on_receiver_open(proton::receiver& receiver) override;
  void on_sender_close(proton::sender& sender) override;
  void on_sender_detach(proton::sender& sender) override;
  void on_receiver_close(proton::receiver& receiver) override;
  void on_receiver_detach(proton::receiver& receiver) override;
  void on_session_close(proton::session& session) override;
  void on_sendable(proton::sender& sender) override;
  void on_sender_drain_start(proton::sender& sender) override;
  void on_tracker_accept(proton::tracker& tracker) override { Told(tracker); }
  void on_tracker_reject(proton::tracker& tracker) override { Told(tracker); }
  void on_tracker_release(proton::tracker& tracker) override { Told(tracker); }
  void on_tracker_settle(proton::tracker& tracker) override;
  void on_receiver_drain_finish(proton::receiver& receiver) override;
  void on_message(proton::delivery& delivery, proton::message& message) override;
  void on_error(const proton::error_condition&) override {}  // the default throws

 private:
  void OnClosed(const Status& status);
  void Told(proton::tracker& tracker);
  void Detached(const proton::link& link);
  std::shared_ptr<LinkOfPeer> Of(const proton::link& link) const;

  std::vector<std::shared_ptr<LinkOfPeer>> active_;
  std::mutex mutex_;
  std::condition_variable closed_;
  bool over_ = false;                             // guarded by mutex_; takes no more links
  std::shared_ptr<amqp::Connection> connection_;  // guarded by mutex_; null before and after
  std::vector<std::shared_ptr<LinkOfPeer>> all_;  // guarded by mutex_
  uint64_t unused_turn_ = 0;                      // guarded by mutex_
};

}  // namespace datawire
