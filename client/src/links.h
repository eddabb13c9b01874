#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <proton/delivery.hpp>
#include <proton/message.hpp>
#include <proton/tracker.hpp>
#include <string>
#include <vector>

#include "amqp/connection.h"
#include "datawire/endpoint_url.h"
#include "link_book.h"
#include "sender_core.h"

namespace datawire {

class PeerLink;

/// What happens on a link; called on its connection's strand, `OnLost` last, at most once.
class LinkEvents {
 public:
  virtual ~LinkEvents() = default;
  /// Before all else: the link these are the events of.
  virtual void OnStart(std::weak_ptr<PeerLink> /*link*/) {}
  virtual void OnOpened() {}
  /// All credit the peer ever gave, used or not.
  virtual void OnCredit(uint64_t /*granted*/) {}
  virtual void OnSettled(uint64_t /*id*/, SenderCore::Outcome /*outcome*/) {}
  virtual void OnWritten(uint64_t /*id*/) {}
  virtual void OnBounced(uint64_t /*id*/) {}
  /// A message came: `token` names it for Settle.
  virtual void OnMessage(uint64_t /*token*/, proton::message /*message*/) {}
  virtual void OnLost(const std::string& condition, const std::string& description) = 0;
};

/// Conditions of a rejection: by Exchange::Reject, by Fail after the last try, and of a message
/// whose time to live passed before the handler had it.
inline constexpr const char* kRejected = "datawire:rejected";
inline constexpr const char* kTriedTooOften = "datawire:tried-too-often";
inline constexpr const char* kExpired = "datawire:expired";

/// How a message that came is settled.
struct Settle {
  enum class Kind { kAccept, kReject, kRelease, kModify };
  Kind kind = Kind::kAccept;
  std::string reason;                 // of kReject
  const char* condition = kRejected;  // of kReject
};
/// On the strand of its connection.
void Apply(const Settle& how, proton::delivery& delivery);
void Note(const Settle& how, LinkBook::Page& page);
/// How the peer settled what was sent; without an outcome, as modified with delivery-failed. On the
/// strand of its connection; the page counts it.
SenderCore::Outcome OutcomeOf(const proton::tracker& tracker, LinkBook::Page& page);

/// A link of ours on a shared connection. Thread-safe; what is asked of a lost one is dropped.
class PeerLink {
 public:
  virtual ~PeerLink() = default;

  struct Item {
    uint64_t id;
    std::shared_ptr<const std::vector<char>> encoded;
    uint32_t redelivered;                ///< added to delivery-count
    std::chrono::milliseconds ttl_left;  ///< of its header; 0: as it is
  };
  /// Sends, as far as there is credit; the rest comes back as OnBounced.
  virtual void Transmit(std::vector<Item> items) = 0;
  virtual void Forget(uint64_t id) = 0;
  virtual void SettleMessage(uint64_t token, Settle how) = 0;
  /// Of a receiver: asks its credit back, and detaches once all that came is settled: OnLost.
  virtual void Leave() = 0;
  /// Detaches. An event or two may still be under way, among them OnLost.
  virtual void Close() = 0;
};

/// What is to be opened.
struct LinkSpec {
  enum class Kind {
    kSender,
    kRequester,  ///< a sender, with a dynamic receiver beside it that replies come back on
    kReceiver,
  };
  Kind kind = Kind::kSender;
  std::string node;         ///< target of a sender, source of a receiver
  bool presettled = false;  ///< of a sender
  uint32_t credit = 0;      ///< of a receiver
  std::string identity;     ///< of the peer, which its certificate must name; empty: any
  std::string peer;         ///< HOST:PORT; Open fills it in
};

/// kInvalid, for an amqps URL where there are no certificates.
Status NeedsCertificates(const EndpointUrl& url);

/// One TCP connection a peer, shared by the links of a client; unused ones are closed after a
/// while. Thread-safe.
class Links {
 public:
  /// `tls`: for amqps URLs; without it they are refused.
  Links(amqp::Io& io, std::string container_id, std::shared_ptr<amqp::Tls> tls = nullptr,
        std::shared_ptr<LinkBook> book = std::make_shared<LinkBook>(nullptr))
      : io_(io),
        container_id_(std::move(container_id)),
        tls_(std::move(tls)),
        book_(std::move(book)) {}
  ~Links();

  /// Returns at once; `events` tells how it went. Connects if there is no connection to that host
  /// and port, of that identity. The wrong one is lost with the condition of kDenied, unsent.
  std::shared_ptr<PeerLink> Open(const EndpointUrl& url, LinkSpec spec,
                                 std::shared_ptr<LinkEvents> events);
  /// Closes all connections in an orderly way; waits for that, at most `wait`, then aborts.
  void Close(std::chrono::milliseconds wait);

  class Peer;

 private:
  amqp::Io& io_;
  const std::string container_id_;
  const std::shared_ptr<amqp::Tls> tls_;
  const std::shared_ptr<LinkBook> book_;
  std::mutex mutex_;
  // Guarded by mutex_; by scheme, authority and identity.
  std::multimap<std::string, std::shared_ptr<Peer>> peers_;
};

}  // namespace datawire
