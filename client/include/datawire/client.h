#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <proton/message.hpp>
#include <string>
#include <vector>

#include "datawire/feed.h"
#include "datawire/resolver.h"
#include "datawire/result.h"
#include "datawire/selection.h"

namespace datawire {

/// How a delivery ended. Closed list; the table is in client/README.md.
enum class DeliveryEnd { kAccepted, kRejected, kNotSent, kOutcomeUnknown };
std::string_view DeliveryEndName(DeliveryEnd end);  ///< `ACCEPTED`, ...

struct DeliveryOutcome {
  DeliveryEnd end = DeliveryEnd::kNotSent;
  std::string condition;  ///< of a rejection, or the reason it was not sent or is unknown
  std::string description;
  std::string peer;       ///< URL of the endpoint that had it last
  uint32_t attempts = 0;  ///< how often it was put on a link
};

/// One message on its way. Cheap to copy. Thread-safe.
class Delivery {
 public:
  struct State;
  explicit Delivery(std::shared_ptr<State> state) : state_(std::move(state)) {}
  /// Waits until it ended; at the latest a little after the send's deadline.
  const DeliveryOutcome& Wait();
  /// The outcome, if it ended already.
  std::optional<DeliveryOutcome> Poll() const;
  /// Ends it soon, if it has not ended: NOT_SENT, or OUTCOME_UNKNOWN if a peer may have it.
  void Cancel();

 private:
  std::shared_ptr<State> state_;
};

enum class Settlement {
  kAtLeastOnce,  ///< settled by the peer; sent again when its link is lost
  kAtMostOnce,   ///< pre-settled: gone when written; may be lost
};
enum class WhenFull {
  kBlock,       ///< Send waits, at most to the deadline; in a `done`, which must not, as kFail
  kFail,        ///< the new one ends as NOT_SENT
  kDropOldest,  ///< the oldest that no peer has does; the new one, if peers have all others
};

struct SenderOptions {
  Settlement settlement = Settlement::kAtLeastOnce;
  WhenFull when_full = WhenFull::kBlock;
  size_t buffer = limits::kSenderBuffer;  ///< messages accepted by Send and not yet settled
  size_t buffer_bytes = limits::kSenderBufferBytes;  ///< with these, encoded, it is full, too
  std::chrono::milliseconds deadline = limits::kSendDeadline;  ///< of each message
};

struct SendOptions {
  std::chrono::milliseconds deadline{0};  ///< 0: the sender's
  std::string key;                        ///< what policy `consistent` hashes
  /// On the client's thread, before Close returns; must not block, and what it throws is dropped.
  std::function<void(const DeliveryOutcome&)> done;
};

/// Sends to whoever the address resolves to, over direct links. Thread-safe.
class Sender {
 public:
  virtual ~Sender() = default;  ///< Close(0)
  /// Takes a copy of the message; blocks (or fails with an ended delivery) while the buffer is
  /// full. What is sent has a message-id. One with a ttl is put on no link after it, and its header
  /// tells the peer what is left of it.
  virtual Delivery Send(const proton::message& message, SendOptions options = {}) = 0;
  /// Waits for what is not settled; returns what is not after `wait`, in the order sent; those
  /// deliveries end as NOT_SENT or OUTCOME_UNKNOWN.
  virtual std::vector<proton::message> Close(std::chrono::milliseconds wait) = 0;

  struct Counters {
    uint64_t sent = 0, accepted = 0, rejected = 0, not_sent = 0, unknown = 0, redelivered = 0;
    uint64_t links_opened = 0, links_lost = 0;
    uint64_t ejections = 0;  ///< of endpoints, for failing too often
  };
  virtual Counters counters() const = 0;
};

/// A message that a peer sent here, to be answered exactly once, now or later, from any thread;
/// destroying it unanswered releases it. Move only.
class Exchange {
 public:
  struct State;
  explicit Exchange(std::shared_ptr<State> state) : state_(std::move(state)) {}
  Exchange(Exchange&&) = default;
  Exchange& operator=(Exchange&&) = default;
  ~Exchange();

  const proton::message& message() const;
  /// The logical address the peer sent to.
  const std::string& address() const;
  /// The link it came on is gone: whoever sent it will not hear the answer, and may send it again.
  /// Known of what came to a service.
  bool abandoned() const;
  void Accept();
  void Reject(const std::string& reason);  ///< final, with condition `datawire:rejected`
  void Release();                          ///< to another endpoint, now
  /// As if the handler had thrown: modified with delivery-failed, so that it comes again; at the
  /// last of ServiceOptions::tries to the dead-letter address, with the reason.
  void Fail(const std::string& reason);
  /// Accepts, and sends `reply` to the message's reply-to (on this connection only) with its
  /// correlation id. kInvalid when the message asks for no reply: it is accepted all the same.
  Status Reply(proton::message reply);

 private:
  std::shared_ptr<State> state_;
};
using Handler = std::function<void(Exchange)>;

struct ServiceOptions {
  std::string listen = "127.0.0.1:0";  ///< HOST:PORT to bind
  std::string announce;  ///< HOST[:PORT] to register; empty: the bound one; for a wildcard bind the
                         ///< local address that routes to the directory
  uint32_t priority = 0;
  uint32_t weight = limits::kWeightDefault;
  std::string region, zone;  ///< both empty: the client's locality
  std::map<std::string, std::string> labels;
  bool subtree = false;                      ///< registers for all addresses below, too
  uint32_t credit = limits::kServiceCredit;  ///< messages in flight a link
  /// A message that failed so often, by its delivery-count, is not tried again; 0: always is. It
  /// goes to `dead_letter` (stage.h) and is accepted once that has it; without one it is rejected
  /// with `datawire:tried-too-often`.
  uint32_t tries = 0;
  std::string dead_letter;
  Feed feed;  ///< of peers that attach to be given messages
  /// The handler runs where the messages come in, without a change of threads: half the latency.
  /// Then it must not block: while it runs, no link of the client does anything.
  bool inline_handler = false;
};

/// A service that listens, is registered, heartbeats. Thread-safe.
class Service {
 public:
  virtual ~Service() = default;  ///< drains: Stop(5 s)
  /// The registered endpoint.
  virtual std::string url() const = 0;
  /// Withdraws, asks credit back, releases what is still on its way, waits for exchanges in
  /// progress, closes. Bounded by `wait`, and the handler's present call.
  virtual void Stop(std::chrono::milliseconds wait) = 0;
  /// OK once registered; waits at most `wait`. A registration comes by itself when the directory
  /// does.
  virtual Status WaitRegistered(std::chrono::milliseconds wait) = 0;
};

struct ReceiverOptions {
  uint32_t credit = limits::kServiceCredit;
};

/// A receiving link to a resolved peer: pull. Thread-safe.
class Receiver {
 public:
  virtual ~Receiver() = default;
  /// The next message, to be answered; kTimeout after `wait`.
  virtual Result<Exchange> Receive(std::chrono::milliseconds wait) = 0;
  virtual void Close() = 0;
};

/// What went over one link: of ours to a peer, or of a peer's to a service.
struct LinkReport {
  std::string peer;                                     ///< HOST:PORT of the other end
  std::string node;                                     ///< what the link names there, or here
  bool ours = false;                                    ///< this side opened it
  bool incoming = false;                                ///< messages come in on it
  uint64_t messages = 0;                                ///< sent, or come
  uint64_t accepted = 0, rejected = 0, given_back = 0;  ///< of these: released or modified
  std::string ended;                                    ///< why; empty: it is open
};

struct ClientOptions {
  ResolverOptions resolver;  ///< its certificates are for links, too: with them services are amqps
  std::string program;       ///< shown with the session; empty: the process's name
  std::chrono::milliseconds session_ttl = limits::kSessionTtlDefault;
  int io_threads = 1;
  Locality locality;  ///< where this process is: near endpoints come first
  SelectionPolicy selection;
  /// Told of each link when it has opened and when it has ended, with its counts. On any thread of
  /// the client; must not block.
  std::function<void(const LinkReport&)> link_observer;
};

/// The entry point: one per process. Owns the session, the resolver and the I/O threads. What it
/// opened must be destroyed before it. Thread-safe.
class Client {
 public:
  explicit Client(ClientOptions options = {});
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// Listens, then registers as soon as the directory answers. An exception of the handler settles
  /// the message as modified(failed). kInvalid or kUnavailable when it cannot listen.
  Result<std::unique_ptr<Service>> Serve(std::string_view address, Handler handler,
                                         ServiceOptions options = {});
  /// A physical `amqp://` or `amqps://` URL in place of an address asks no directory.
  Result<std::unique_ptr<Sender>> OpenSender(std::string_view address, SenderOptions options = {});
  Result<std::unique_ptr<Receiver>> OpenReceiver(std::string_view address,
                                                 ReceiverOptions options = {});
  /// Sends and waits for the reply. kTimeout: not sent; kOutcomeUnknown: sent, no reply in time;
  /// kDenied with the peer's condition: rejected.
  Result<proton::message> Request(std::string_view address, const proton::message& message,
                                  std::chrono::milliseconds timeout);
  /// The same without waiting: `done` runs once, with the reply or as above, on the client's thread
  /// (or here, when it is not sent); must not block. Not to be called once the client is going.
  void Request(std::string_view address, const proton::message& message,
               std::chrono::milliseconds timeout,
               std::function<void(Result<proton::message>)> done);

  /// The links that are open, in no order.
  std::vector<LinkReport> Links();
  Resolver& resolver();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace datawire
