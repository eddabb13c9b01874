#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "datawire/client.h"
#include "delivery.h"
#include "links.h"
#include "sender_core.h"

namespace datawire {

/// Where messages go: an address, or one endpoint without a directory.
struct Destination {
  std::optional<Address> address;
  std::optional<EndpointUrl> physical;

  /// `//domain/path` or `amqp://host:port/node`; kInvalid with the rule.
  static Result<Destination> Parse(std::string_view text);
  /// What a link to `url` names.
  std::string Node(const Address& matched, const EndpointUrl& url) const;
  /// A physical endpoint as an answer: always FOUND.
  std::shared_ptr<const Answer> Fixed() const;
};

/// One Request on its way. Thread-safe.
struct Asked {
  std::mutex mutex;
  std::condition_variable answered;
  std::optional<Result<proton::message>> result;  // guarded by mutex
  bool accepted = false;                          // guarded by mutex; the peer has taken it
  /// In place of one who waits. Set before it is shared.
  std::function<void(Result<proton::message>)> done;

  void Answer(Result<proton::message> with);
};

/// A SenderCore with its threads, links, timer and buffer: events come in from any thread and run
/// one after the other on an Io thread (the "turn"). Thread-safe.
class SenderShell : public std::enable_shared_from_this<SenderShell> {
 public:
  SenderShell(amqp::Io& io, std::shared_ptr<Links> links, const ClientOptions& client,
              Destination destination, SenderOptions options, bool requests);

  /// Follows the answers of `resolver`; null for a physical destination.
  void Start(Resolver* resolver);
  Delivery Send(const proton::message& message, SendOptions options);
  Result<proton::message> Request(const proton::message& message,
                                  std::chrono::milliseconds timeout);
  void Request(const proton::message& message, std::chrono::milliseconds timeout,
               std::function<void(Result<proton::message>)> done);
  std::vector<proton::message> Close(std::chrono::milliseconds wait);
  void Cancel(SenderCore::MessageId id);
  Sender::Counters counters();

 private:
  class Events;
  struct Flight {
    std::shared_ptr<Delivery::State> state;
    std::shared_ptr<Asked> asked;  // of a request
    std::string reply_key;
    std::multimap<BootTime, std::string>::iterator until;  // in awaited_until_, if asked->done
    SenderCore::LinkId link = 0;
  };
  // The two that come with every message are values: nothing is allocated for them.
  struct Given {
    SenderCore::MessageId id;
    Flight flight;
    std::string key;
    bool displaces;  // the buffer was full: another one, or this one, is dropped
  };
  struct Settled {
    SenderCore::LinkId link;
    SenderCore::MessageId id;
    SenderCore::Outcome outcome;
  };
  using Event = std::variant<Given, Settled, std::function<void(BootTime now)>>;

  Delivery Take(const proton::message& message, SendOptions options, std::shared_ptr<Asked> asked);
  Status Encode(const proton::message& message, Given& given) const;
  Status WaitForRoom(std::unique_lock<std::mutex>& lock, BootTime until);
  bool Full() const {  // under mutex_
    return in_use_ - displacing_ >= options_.buffer || bytes_ >= options_.buffer_bytes;
  }
  void MakeRoom();
  void Post(Event event);
  bool Queue(Event event);  // under mutex_; true: Schedule is due
  void Schedule();
  void Turn();
  void Run(Event& event, BootTime now);
  void Act();
  void Ended(SenderCore::Finish& finish);
  void TellEjected(const SenderCore::Ejected& ejected);
  void Arm(BootTime now);

  void Replied(proton::message& reply);
  void LinkGone(SenderCore::LinkId link, const std::string& why);
  void Ask(Flight& flight, const DeliveryOutcome& outcome);
  Delivery AskFor(const proton::message& message, std::chrono::milliseconds timeout,
                  const std::shared_ptr<Asked>& asked);
  /// In the turn: those whose reply did not come in time.
  void GiveUp(BootTime now);
  std::shared_ptr<Asked> NoMoreAwaited(std::map<std::string, Flight>::iterator flight);

  amqp::Io& io_;
  const std::shared_ptr<Links> links_;
  const Destination destination_;
  const SenderOptions options_;
  const bool requests_;
  const std::string id_prefix_;
  std::atomic<SenderCore::MessageId> next_id_ = 1;

  // Of the turn only.
  SenderCore core_;
  std::unordered_map<SenderCore::MessageId, Flight> flights_;
  std::map<SenderCore::LinkId, std::shared_ptr<PeerLink>> open_;
  std::map<std::string, Flight> awaited_;               // accepted requests, by reply key
  std::multimap<BootTime, std::string> awaited_until_;  // those that nobody waits for
  std::optional<BootTime> armed_;
  // Empty between turns; kept for their memory.
  std::vector<Event> running_;
  std::vector<SenderCore::Action> actions_;

  std::mutex mutex_;
  std::condition_variable room_;
  std::vector<Event> inbox_;   // guarded by mutex_; bounded by buffer and by credit
  bool scheduled_ = false;     // guarded by mutex_
  bool closed_ = false;        // guarded by mutex_
  size_t in_use_ = 0;          // guarded by mutex_; messages taken and not ended
  size_t bytes_ = 0;           // guarded by mutex_; of them, encoded
  size_t displacing_ = 0;      // guarded by mutex_; of these, on their way to drop another
  Sender::Counters counters_;  // guarded by mutex_; as of the last turn
  std::unique_ptr<Resolver::Subscription> subscription_;  // guarded by mutex_
  Resolver* resolver_ = nullptr;  // guarded by mutex_; null when physical or closed
};

}  // namespace datawire
