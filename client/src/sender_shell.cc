#include "sender_shell.h"

#include <algorithm>
#include <future>
#include <proton/message_id.hpp>
#include <random>

#include "amqp/encoded_message.h"
#include "datawire/stage.h"

namespace datawire {

namespace {

std::string RandomPrefix() {
  std::random_device device;
  char text[32];
  std::snprintf(text, sizeof text, "%08x%08x-", device(), device());
  return text;
}

SenderCore::Options CoreOptions(const ClientOptions& client, const SenderOptions& options,
                                bool requests) {
  std::random_device device;
  SenderCore::Options core;
  core.presettled = options.settlement == Settlement::kAtMostOnce;
  core.again = !requests;
  core.selection = client.selection;
  core.locality = client.locality;
  core.seed = uint64_t{device()} << 32 | device();
  core.random_seed = uint64_t{device()} << 32 | device();
  return core;
}

std::string ConditionOf(Code code) {
  return std::string(MappingOf(code).amqp_condition);
}

constexpr size_t kScratchBytes = 64 * 1024;  // kept by a thread that sends

proton::message Decoded(const std::vector<char>& encoded) {
  proton::message message;
  message.decode(encoded);
  return message;
}

}  // namespace

Result<Destination> Destination::Parse(std::string_view text) {
  Destination destination;
  if (text.starts_with("amqp://") || text.starts_with("amqps://")) {
    DW_ASSIGN(destination.physical, EndpointUrl::Parse(text));
  } else {
    DW_ASSIGN(destination.address, Address::Parse(text));
  }
  return destination;
}

std::string Destination::Node(const Address& matched, const EndpointUrl& url) const {
  return physical ? url.node() : LinkTarget(*address, matched, url);
}

std::shared_ptr<const Answer> Destination::Fixed() const {
  Answer answer{Address::Parse("//physical").value()};
  answer.status = AnswerStatus::kFound;
  answer.endpoints.push_back(Endpoint{*physical});
  answer.total = 1;
  return std::make_shared<const Answer>(std::move(answer));
}

/// What happens on one link, brought into the turn.
class SenderShell::Events final : public LinkEvents {
 public:
  Events(std::weak_ptr<SenderShell> shell, SenderCore::LinkId link)
      : shell_(std::move(shell)), link_(link) {}

  void OnOpened() override {
    Post([](SenderCore& core, SenderCore::LinkId link, BootTime) { core.LinkOpened(link); });
  }
  void OnCredit(uint64_t granted) override {
    Post([granted](SenderCore& core, SenderCore::LinkId link, BootTime) {
      core.Credit(link, granted);
    });
  }
  void OnSettled(uint64_t id, SenderCore::Outcome outcome) override {
    if (const auto shell = shell_.lock()) shell->Post(Settled{link_, id, std::move(outcome)});
  }
  void OnWritten(uint64_t id) override {
    Post([id](SenderCore& core, SenderCore::LinkId link, BootTime now) {
      core.Written(link, id, now);
    });
  }
  void OnBounced(uint64_t id) override {
    Post([id](SenderCore& core, SenderCore::LinkId link, BootTime) { core.Bounced(link, id); });
  }
  void OnMessage(uint64_t, proton::message message) override {
    const auto shell = shell_.lock();
    if (!shell) return;
    auto reply = std::make_shared<proton::message>(std::move(message));
    shell->Post([shell = shell.get(), reply](BootTime) { shell->Replied(*reply); });
  }
  void OnLost(const std::string& condition, const std::string& description) override {
    const auto shell = shell_.lock();
    if (!shell) return;
    shell->Post([shell = shell.get(), link = link_, condition, description](BootTime now) {
      shell->open_.erase(link);
      shell->core_.LinkLost(link, condition, description, now);
      shell->LinkGone(link, description);
    });
  }

 private:
  template <typename F>
  void Post(F event) {
    if (const auto shell = shell_.lock()) {
      shell->Post([shell = shell.get(), link = link_, event = std::move(event)](BootTime now) {
        event(shell->core_, link, now);
      });
    }
  }

  const std::weak_ptr<SenderShell> shell_;
  const SenderCore::LinkId link_;
};

SenderShell::SenderShell(amqp::Io& io, std::shared_ptr<Links> links, const ClientOptions& client,
                         Destination destination, SenderOptions options, bool requests)
    : io_(io),
      links_(std::move(links)),
      destination_(std::move(destination)),
      options_(options),
      requests_(requests),
      id_prefix_(RandomPrefix()),
      core_(CoreOptions(client, options, requests)) {}

void SenderShell::Start(Resolver* resolver) {
  if (destination_.physical) {
    return Post(
        [this, answer = destination_.Fixed()](BootTime now) { core_.AnswerChanged(answer, now); });
  }
  auto subscription =
      resolver->Subscribe(*destination_.address,
                          [weak = weak_from_this(), resolver](const Resolver::AnswerPtr& answer) {
                            const auto self = weak.lock();
                            if (!self) return;
                            std::string why;
                            if (answer->status == AnswerStatus::kUnavailable)
                              why = resolver->LastError().message();
                            self->Post([self = self.get(), answer, why](BootTime now) {
                              self->core_.AnswerChanged(answer, now);
                              if (!why.empty()) self->core_.AnswerFailed(why);
                            });
                          });
  const std::lock_guard lock(mutex_);
  subscription_ = std::move(subscription);
  resolver_ = resolver;
}

Delivery SenderShell::Send(const proton::message& message, SendOptions options) {
  return Take(message, std::move(options), nullptr);
}

Delivery SenderShell::Take(const proton::message& message, SendOptions options,
                           std::shared_ptr<Asked> asked) {
  auto state = std::make_shared<Delivery::State>();
  state->done = std::move(options.done);
  const auto wait = options.deadline.count() > 0 ? options.deadline : options_.deadline;
  const BootTime now = BootClock::now();
  state->deadline = now + wait;
  state->sender = weak_from_this();
  const auto refuse = [&state](const Status& status) {
    state->End({DeliveryEnd::kNotSent, ConditionOf(status.code()), status.message(), "", 0});
    return Delivery(state);
  };

  state->expires = ExpiryOf(message, now);
  if (asked) state->expires = std::min(state->expires, state->deadline);
  Given given{next_id_++, {state, std::move(asked), {}}, std::move(options.key), false};
  state->id = given.id;
  if (Status status = Encode(message, given); !status.ok()) return refuse(status);
  if (state->encoded.size() > limits::kMessageBytes) {
    return refuse(Status(Code::kInvalid, "the message is " + std::to_string(state->encoded.size()) +
                                             " bytes, at most " +
                                             std::to_string(limits::kMessageBytes)));
  }
  std::unique_lock lock(mutex_);
  if (Status full = WaitForRoom(lock, state->deadline); !full.ok()) {
    lock.unlock();
    return refuse(full);
  }
  given.displaces = Full();
  displacing_ += given.displaces ? 1 : 0;
  ++in_use_;
  bytes_ += state->encoded.size();
  // Under the lock that found the sender open: Close, which comes later, finds the message.
  const bool idle = Queue(std::move(given));
  lock.unlock();
  if (idle) Schedule();
  return Delivery(std::move(state));
}

/// Encoded once, on the caller's thread; what it lacks is filled in there.
Status SenderShell::Encode(const proton::message& message, Given& given) const {
  static thread_local std::vector<char> scratch;
  amqp::MessageFields fields;
  std::string new_id;
  try {
    const proton::message_id id = message.id();
    if (id.empty()) fields.message_id = new_id = id_prefix_ + std::to_string(given.id);
    if (given.flight.asked) {
      const proton::message_id correlation = message.correlation_id();
      fields.correlate = correlation.empty();
      given.flight.reply_key = !correlation.empty() ? proton::to_string(correlation)
                               : id.empty()         ? new_id
                                                    : proton::to_string(id);
    }
    message.encode(scratch);
  } catch (const std::exception& e) {
    return Status(Code::kInvalid, std::string("the message cannot be encoded: ") + e.what());
  }
  DW_ASSIGN(given.flight.state->encoded,
            amqp::WithFields({scratch.data(), scratch.size()}, fields));
  if (scratch.capacity() > 2 * kScratchBytes) std::vector<char>().swap(scratch);
  return {};
}

Status SenderShell::WaitForRoom(std::unique_lock<std::mutex>& lock, BootTime until) {
  const auto room = [this] {
    // Before the turn has dropped any there may be two buffers full, no more.
    const bool drops = options_.when_full == WhenFull::kDropOldest &&
                       displacing_ < options_.buffer && bytes_ / 2 < options_.buffer_bytes;
    return closed_ || drops || !Full();
  };
  while (!room()) {
    const std::string most = bytes_ >= options_.buffer_bytes && in_use_ < options_.buffer
                                 ? std::to_string(options_.buffer_bytes) + " bytes"
                                 : std::to_string(options_.buffer) + " messages";
    // kDropOldest: a moment, until the turn has made room. This thread may be who makes it.
    if (options_.when_full == WhenFull::kFail || !io_.MayBeWaitedFor()) {
      return Status(Code::kOverloaded, "the sender's buffer is full: " + most);
    }
    const auto left = until - BootClock::now();
    if (left <= left.zero()) {
      return Status(Code::kTimeout, "the deadline passed while the sender's buffer was full: " +
                                        most + " are not settled");
    }
    room_.wait_for(lock, left, room);
  }
  if (closed_) return Status(Code::kCancelled, "the sender is closed");
  return {};
}

bool SenderShell::Queue(Event event) {
  inbox_.push_back(std::move(event));
  return !std::exchange(scheduled_, true);
}

void SenderShell::Schedule() {
  io_.Post([self = shared_from_this()] { self->Turn(); });
}

void SenderShell::Post(Event event) {
  {
    const std::lock_guard lock(mutex_);
    if (!Queue(std::move(event))) return;
  }
  Schedule();
}

void SenderShell::Turn() {
  {
    const std::lock_guard lock(mutex_);
    running_.swap(inbox_);
  }
  const BootTime now = BootClock::now();
  for (Event& event : running_) Run(event, now);
  running_.clear();
  GiveUp(now);
  core_.Pump(now);
  core_.TakeActions(actions_);
  size_t ended = 0, bytes = 0;
  for (const SenderCore::Action& action : actions_) {
    const auto* finish = std::get_if<SenderCore::Finish>(&action);
    if (!finish) continue;
    ++ended;
    bytes += finish->bytes;
  }
  {
    // Before anybody learns of an end: who does finds it counted, and room for another message.
    const std::lock_guard lock(mutex_);
    counters_ = core_.counters();
    in_use_ -= ended;
    bytes_ -= bytes;
  }
  if (ended > 0) room_.notify_all();
  Act();
  Arm(now);
  {
    const std::lock_guard lock(mutex_);
    scheduled_ = !inbox_.empty();
    if (!scheduled_) return;
  }
  Schedule();
}

void SenderShell::Run(Event& event, BootTime now) {
  if (auto* given = std::get_if<Given>(&event)) {
    if (given->displaces) core_.Pump(now);  // what can go to a peer is not dropped
    const Delivery::State& state = *given->flight.state;
    core_.Give(given->id, std::move(given->key), state.deadline, state.expires,
               state.encoded.size());
    flights_.emplace(given->id, std::move(given->flight));
    if (!given->displaces) return;
    MakeRoom();
  } else if (auto* settled = std::get_if<Settled>(&event)) {
    core_.Settled(settled->link, settled->id, settled->outcome, now);
  } else {
    std::get<std::function<void(BootTime)>>(event)(now);
  }
}

/// For a message that came when the buffer was full, or seemed so.
void SenderShell::MakeRoom() {
  while (core_.live() > options_.buffer || core_.live_bytes() > options_.buffer_bytes)
    if (!core_.DropOldest("dropped for a newer one: the sender's buffer is full")) break;
  const std::lock_guard lock(mutex_);
  --displacing_;
}

void SenderShell::Act() {
  std::map<SenderCore::LinkId, std::vector<PeerLink::Item>> batches;
  for (const SenderCore::Action& action : actions_) {
    if (const auto* open = std::get_if<SenderCore::OpenLink>(&action)) {
      LinkSpec spec;
      spec.kind = requests_ ? LinkSpec::Kind::kRequester : LinkSpec::Kind::kSender;
      spec.node = destination_.Node(open->matched, open->url);
      spec.identity = open->identity;
      spec.presettled = options_.settlement == Settlement::kAtMostOnce;
      open_[open->link] = links_->Open(open->url, std::move(spec),
                                       std::make_shared<Events>(weak_from_this(), open->link));
    } else if (const auto* transmit = std::get_if<SenderCore::Transmit>(&action)) {
      Flight& flight = flights_.at(transmit->id);
      flight.link = transmit->link;
      batches[transmit->link].push_back({transmit->id,
                                         {flight.state, &flight.state->encoded},
                                         transmit->redelivered,
                                         transmit->ttl_left});
    }
  }
  for (auto& [link, items] : batches) {
    if (const auto it = open_.find(link); it != open_.end()) it->second->Transmit(std::move(items));
  }
  for (SenderCore::Action& action : actions_) {
    if (const auto* close = std::get_if<SenderCore::CloseLink>(&action)) {
      if (const auto node = open_.extract(close->link)) node.mapped()->Close();
      LinkGone(close->link, "the link was closed");
    } else if (const auto* forget = std::get_if<SenderCore::Forget>(&action)) {
      if (const auto it = open_.find(forget->link); it != open_.end()) {
        it->second->Forget(forget->id);
      }
    } else if (auto* finish = std::get_if<SenderCore::Finish>(&action)) {
      Ended(*finish);
    } else if (const auto* ejected = std::get_if<SenderCore::Ejected>(&action)) {
      TellEjected(*ejected);
    }
  }
  actions_.clear();
}

void SenderShell::Ended(SenderCore::Finish& finish) {
  auto node = flights_.extract(finish.id);
  Flight& flight = node.mapped();
  if (flight.asked) Ask(flight, finish.outcome);
  flight.state->End(std::move(finish.outcome));
}

void SenderShell::TellEjected(const SenderCore::Ejected& ejected) {
  Resolver* resolver = nullptr;
  {
    const std::lock_guard lock(mutex_);
    resolver = resolver_;  // Close waits for this turn before it may go
  }
  if (!resolver) return;
  resolver->NoteEjected(ejected.url, Status(Code::kUnavailable,
                                            "left out for " + std::to_string(ejected.out.count()) +
                                                " ms: " + ejected.why));
}

void SenderShell::Arm(BootTime now) {
  std::optional<BootTime> next = core_.NextWake(now);
  if (!awaited_until_.empty())
    next = std::max(std::min(next.value_or(BootTime::max()), awaited_until_.begin()->first),
                    now + std::chrono::milliseconds(1));
  if (!next || (armed_ && *armed_ <= *next)) return;
  armed_ = next;
  const auto delay = std::chrono::ceil<std::chrono::milliseconds>(*next - now);
  io_.After(delay, [weak = weak_from_this(), at = *next] {
    const auto self = weak.lock();
    if (!self) return;
    self->Post([self = self.get(), at](BootTime) {
      if (self->armed_ == at) self->armed_.reset();
    });
  });
}

std::vector<proton::message> SenderShell::Close(std::chrono::milliseconds wait) {
  std::unique_ptr<Resolver::Subscription> subscription;
  {
    std::unique_lock lock(mutex_);
    const bool first = !std::exchange(closed_, true);
    room_.notify_all();
    if (!first) return {};
    room_.wait_for(lock, wait, [this] { return in_use_ == 0; });
    subscription = std::move(subscription_);
    resolver_ = nullptr;
  }
  subscription.reset();
  auto unsettled = std::make_shared<std::promise<std::vector<proton::message>>>();
  std::future<std::vector<proton::message>> future = unsettled->get_future();
  Post([this, unsettled](BootTime) {
    std::vector<proton::message> messages;
    for (const SenderCore::MessageId id : core_.Abandon("the sender was closed")) {
      messages.push_back(Decoded(flights_.at(id).state->encoded));
    }
    core_.CloseLinks();
    // In the next turn: when Close returns, every delivery has ended and its `done` has run.
    Post([unsettled, messages = std::move(messages)](BootTime) mutable {
      unsettled->set_value(std::move(messages));
    });
  });
  while (future.wait_for(std::chrono::seconds(1)) != std::future_status::ready)
    if (!io_.MayBeWaitedFor()) return {};
  return future.get();
}

void SenderShell::Cancel(SenderCore::MessageId id) {
  Post([this, id](BootTime) { core_.Cancel(id); });
}

void Delivery::Cancel() {
  if (const auto sender = state_->sender.lock()) sender->Cancel(state_->id);
}

Sender::Counters SenderShell::counters() {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace datawire
