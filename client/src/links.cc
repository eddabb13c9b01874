#include "links.h"

#include <algorithm>
#include <limits>

#include "peer_link.h"

namespace datawire {

void Links::Peer::Start(amqp::Io& io, const EndpointUrl& url, const std::string& identity,
                        const std::string& container_id, std::shared_ptr<amqp::Tls> tls) {
  amqp::ConnectionOptions options;
  options.handshake_timeout = limits::kPeerHandshake;
  options.container_id = container_id;
  options.virtual_host = url.host();
  options.tls = std::move(tls);
  options.identity = identity;
  auto connection = amqp::Connection::Open(
      io, HostPort{url.host(), url.port()}, std::move(options), shared_from_this(),
      [self = shared_from_this()](const Status& status) { self->OnClosed(status); });
  const std::lock_guard lock(mutex_);
  if (!over_) connection_ = std::move(connection);
}

bool Links::Peer::Add(const std::shared_ptr<LinkOfPeer>& link) {
  std::shared_ptr<amqp::Connection> connection;
  {
    const std::lock_guard lock(mutex_);
    if (over_ || all_.size() >= limits::kConnectionLinks) return false;
    all_.push_back(link);
    connection = connection_;
  }
  // When it is closed, or closes before this runs, OnClosed has the link in all_.
  connection->Post([self = shared_from_this(), link, connection] {
    if (!link->Start(connection->proton())) return;
    self->active_.push_back(link);
  });
  return true;
}

void Links::Peer::Remove(const std::shared_ptr<LinkOfPeer>& link) {
  std::erase(active_, link);
  link->Drop();
  std::shared_ptr<amqp::Connection> connection;
  uint64_t turn = 0;
  {
    const std::lock_guard lock(mutex_);
    std::erase(all_, link);
    if (over_ || !all_.empty()) return;
    connection = connection_;
    turn = ++unused_turn_;
  }
  if (!connection) return;
  connection->After(limits::kConnectionIdle, [self = shared_from_this(), turn] {
    std::shared_ptr<amqp::Connection> unused;
    {
      const std::lock_guard lock(self->mutex_);
      if (self->over_ || !self->all_.empty() || self->unused_turn_ != turn) return;
      self->over_ = true;
      unused = self->connection_;
    }
    if (unused) unused->Close();
  });
}

bool Links::Peer::Post(std::function<void()> task) {
  std::shared_ptr<amqp::Connection> connection;
  {
    const std::lock_guard lock(mutex_);
    connection = connection_;
  }
  return connection && connection->Post(std::move(task));
}

void Links::Peer::After(std::chrono::milliseconds delay, std::function<void()> task) {
  std::shared_ptr<amqp::Connection> connection;
  {
    const std::lock_guard lock(mutex_);
    connection = connection_;
  }
  if (connection) connection->After(delay, std::move(task));
}

bool Links::Peer::over() {
  const std::lock_guard lock(mutex_);
  return over_;
}

void Links::Peer::Close(std::chrono::milliseconds wait) {
  std::shared_ptr<amqp::Connection> connection;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    connection = connection_;
  }
  if (connection) connection->Close(wait);
}

void Links::Peer::WaitClosed(BootTime until) {
  std::unique_lock lock(mutex_);
  while (connection_ && BootClock::now() < until) {
    closed_.wait_for(lock, until - BootClock::now(), [this] { return !connection_; });
  }
}

void Links::Peer::OnClosed(const Status& status) {
  std::vector<std::shared_ptr<LinkOfPeer>> all;
  std::shared_ptr<amqp::Connection> connection;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    all.swap(all_);
    connection = std::exchange(connection_, nullptr);
  }
  closed_.notify_all();
  active_.clear();
  const bool denied = status.code() == Code::kDenied;
  const std::string condition(
      MappingOf(denied ? Code::kDenied : Code::kUnavailable).amqp_condition);
  const std::string text = status.ok() ? "the peer closed the connection" : status.message();
  for (const auto& link : all) link->Lose(condition, text);
}

std::shared_ptr<LinkOfPeer> Links::Peer::Of(const proton::link& link) const {
  for (const auto& active : active_) {
    if (active->Has(link)) return active;
  }
  return nullptr;
}

void Links::Peer::on_sender_open(proton::sender& sender) {
  if (!sender.active()) return sender.close();  // nobody attaches to a client
  if (const auto link = Of(sender)) link->OnAttached(sender);
}
void Links::Peer::on_receiver_open(proton::receiver& receiver) {
  if (!receiver.active()) return receiver.close();
  if (const auto link = Of(receiver)) link->OnAttached(receiver);
}
void Links::Peer::on_sender_close(proton::sender& sender) {
  Detached(sender);
}
void Links::Peer::on_sender_detach(proton::sender& sender) {
  Detached(sender);
}
void Links::Peer::on_receiver_close(proton::receiver& receiver) {
  Detached(receiver);
}
void Links::Peer::on_receiver_detach(proton::receiver& receiver) {
  Detached(receiver);
}

void Links::Peer::Detached(const proton::link& detached) {
  const auto link = Of(detached);
  if (!link) return;
  const amqp::RemoteError error = amqp::ErrorOf(detached);
  link->CloseHalves();
  Remove(link);
  link->Lose(error.condition, error.condition.empty() ? "the peer closed the link"
                                                      : error.condition + ": " + error.description);
}

/// Without its session no link of ours works.
void Links::Peer::on_session_close(proton::session&) {
  std::shared_ptr<amqp::Connection> connection;
  {
    const std::lock_guard lock(mutex_);
    connection = connection_;
  }
  if (connection) connection->Abort(Status(Code::kUnavailable, "the peer closed the session"));
}

void Links::Peer::on_sendable(proton::sender& sender) {
  if (const auto link = Of(sender)) link->ReportCredit();
}
void Links::Peer::on_sender_drain_start(proton::sender& sender) {
  amqp::ReturnCreditIfDraining(sender);
  if (const auto link = Of(sender)) link->ReportCredit();
}
/// A peer that tells the outcome and leaves it to us to settle.
void Links::Peer::Told(proton::tracker& tracker) {
  if (tracker.settled()) return;  // on_tracker_settle follows
  on_tracker_settle(tracker);
  tracker.settle();
}
void Links::Peer::on_tracker_settle(proton::tracker& tracker) {
  if (const auto link = Of(tracker.sender())) link->OnSettled(tracker);
}
void Links::Peer::on_receiver_drain_finish(proton::receiver& receiver) {
  if (const auto link = Of(receiver)) link->OnDrained();
}
void Links::Peer::on_message(proton::delivery& delivery, proton::message& message) {
  if (const auto link = Of(delivery.receiver())) {
    link->OnMessage(delivery, message);
  } else {
    delivery.release();
  }
}

Status NeedsCertificates(const EndpointUrl& url) {
  return {Code::kInvalid, url.text() + " wants certificates: give tls-cert, tls-key and tls-ca"};
}

Links::~Links() {
  Close(std::chrono::milliseconds(0));
}

std::shared_ptr<PeerLink> Links::Open(const EndpointUrl& url, LinkSpec spec,
                                      std::shared_ptr<LinkEvents> events) {
  if (url.secure() && !tls_) {
    io_.Post([events, url] {
      events->OnLost(std::string(MappingOf(Code::kInvalid).amqp_condition),
                     NeedsCertificates(url).message());
    });
    return std::make_shared<LinkOfPeer>(nullptr, std::move(spec), nullptr, nullptr);
  }
  spec.peer = url.authority();
  const std::lock_guard lock(mutex_);
  std::erase_if(peers_, [](const auto& entry) { return entry.second->over(); });
  const std::string identity = spec.identity;
  const std::string key =
      (url.secure() ? "amqps://" : "amqp://") + url.authority() + " " + identity;
  const auto [begin, end] = peers_.equal_range(key);
  for (auto it = begin; it != end; ++it) {
    auto link = std::make_shared<LinkOfPeer>(it->second, spec, events, book_);
    if (it->second->Add(link)) return link;
  }
  auto peer = std::make_shared<Peer>();
  auto link = std::make_shared<LinkOfPeer>(peer, std::move(spec), events, book_);
  peers_.emplace(key, peer);
  peer->Start(io_, url, identity, container_id_, url.secure() ? tls_ : nullptr);
  if (!peer->Add(link)) {
    io_.Post([events, url] {
      events->OnLost(std::string(MappingOf(Code::kUnavailable).amqp_condition),
                     "cannot connect to " + url.authority());
    });
  }
  return link;
}

void Links::Close(std::chrono::milliseconds wait) {
  std::multimap<std::string, std::shared_ptr<Peer>> peers;
  {
    const std::lock_guard lock(mutex_);
    peers.swap(peers_);
  }
  for (const auto& [authority, peer] : peers) peer->Close(wait);
  const BootTime until = BootClock::now() + wait;
  for (const auto& [authority, peer] : peers) peer->WaitClosed(until);
}

}  // namespace datawire
