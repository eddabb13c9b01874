#include "tether_core.h"

#include <algorithm>

#include "datawire/wire.h"

namespace datawire {
namespace {

using std::chrono::milliseconds;

// Connect and hello together; a server that accepts and never answers is passed by after it.
constexpr milliseconds kGreetingMost{3000};
constexpr milliseconds kBackOffLeast{250};
// Ops sent and not acknowledged; the server refuses more than 256 a tether.
constexpr size_t kInFlight = 64;

bool WorthTryingAgain(Code code) {
  return code == Code::kOverloaded || code == Code::kUnavailable || code == Code::kBehind ||
         code == Code::kTimeout || code == Code::kOutcomeUnknown || code == Code::kAborted ||
         code == Code::kSessionExpired || code == Code::kFenced;
}

Status Superseded() {
  return {Code::kCancelled, "a later call for the same address and endpoint took its place"};
}

pb::TetherRequest RegisterMessage(const RegistrationSpec& spec) {
  pb::TetherRequest message;
  auto* registration = message.mutable_register_()->add_registrations();
  registration->set_address(spec.address.text());
  auto* endpoint = registration->mutable_endpoint();
  endpoint->set_url(spec.url.text());
  endpoint->set_match(spec.subtree ? pb::MATCH_SUBTREE : pb::MATCH_EXACT);
  endpoint->set_priority(spec.priority);
  endpoint->set_weight(spec.weight);
  endpoint->set_region(spec.region);
  endpoint->set_zone(spec.zone);
  endpoint->mutable_labels()->insert(spec.labels.begin(), spec.labels.end());
  endpoint->set_identity(spec.identity);
  return message;
}

}  // namespace

TetherCore::TetherCore(Options options, uint64_t seed)
    : options_(std::move(options)), random_(seed), ttl_(options_.ttl) {
  if (options_.servers > 0) server_ = random_() % options_.servers;
}

void TetherCore::SetServers(size_t count, std::optional<size_t> present, BootTime now) {
  options_.servers = count;
  ordered_ = true;
  server_ = present.value_or(0);
  if (present) return;
  if (phase_ == Phase::kGreeting || phase_ == Phase::kAttached) {
    Observe("moves: DNS lists its server no longer");
    actions_.push_back(TetherDisconnect{});
  } else if (phase_ != Phase::kWaiting) {
    return;
  }
  Connect(now);
}

void TetherCore::Register(RegistrationSpec spec, TetherClient::Done done, BootTime now) {
  if (closing_) return Finish(std::move(done), Status(Code::kCancelled, "the session is closing"));
  const Key key{spec.address.text(), spec.url.text()};
  if (wanted_.size() >= limits::kSessionRegistrations && !wanted_.contains(key))
    return Finish(std::move(done),
                  Status(Code::kOverloaded, "a session holds at most " +
                                                std::to_string(limits::kSessionRegistrations) +
                                                " registrations"));
  wanted_.insert_or_assign(key, std::move(spec));
  withdrawn_.erase(key);
  EnqueueRegister(key, std::move(done));
  Start(now);
}

void TetherCore::Withdraw(const Address& address, const EndpointUrl& url, TetherClient::Done done,
                          BootTime now) {
  const Key key{address.text(), url.text()};
  if (wanted_.erase(key) == 0)
    return Finish(std::move(done), Status(Code::kNotFound, url.text() + " is not registered at " +
                                                               address.text() + " here"));
  if (withdrawn_.size() < limits::kSessionRegistrations) withdrawn_.insert(key);
  EnqueueWithdraw(key, std::move(done));
  Start(now);
}

void TetherCore::Drain(bool undo, TetherClient::Done done, BootTime now) {
  draining_ = !undo;
  drain_asked_ = true;
  pb::TetherRequest message;
  message.mutable_drain()->set_undo(undo);
  Enqueue(std::move(message), std::move(done));
  Start(now);
}

void TetherCore::Close(BootTime now) {
  if (closing_) return;
  closing_ = true;
  wanted_.clear();
  if (session_id_.empty() && phase_ != Phase::kGreeting) return BecomeClosed();
  if (phase_ == Phase::kWaiting) return Connect(now);
  SendDue(now);
}

void TetherCore::Abandon() {
  closing_ = true;
  BecomeClosed();
}

uint64_t TetherCore::Enqueue(pb::TetherRequest message, TetherClient::Done done) {
  const uint64_t id = ++last_op_;
  if (message.has_register_()) message.mutable_register_()->set_op_id(id);
  if (message.has_withdraw()) message.mutable_withdraw()->set_op_id(id);
  if (message.has_drain()) message.mutable_drain()->set_op_id(id);
  ops_[id] = PendingOp{.message = std::move(message), .done = std::move(done)};
  return id;
}

void TetherCore::EnqueueRegister(const Key& key, TetherClient::Done done) {
  Supersede(key);
  const uint64_t id = Enqueue(RegisterMessage(wanted_.at(key)), std::move(done));
  ops_[id].key = key;
}

void TetherCore::EnqueueWithdraw(const Key& key, TetherClient::Done done) {
  pb::TetherRequest message;
  auto* withdrawal = message.mutable_withdraw()->add_withdrawals();
  withdrawal->set_address(key.first);
  withdrawal->set_url(key.second);
  Supersede(key);
  ops_[Enqueue(std::move(message), std::move(done))].key = key;
}

void TetherCore::Supersede(const Key& key) {
  for (auto it = ops_.begin(); it != ops_.end();) {
    if (it->second.key == key && it->second.not_before) {
      Finish(std::move(it->second.done), Superseded());
      it = ops_.erase(it);
    } else {
      ++it;
    }
  }
}

bool TetherCore::Overtaken(Ops::const_iterator op) const {
  return op->second.key && std::any_of(std::next(op), ops_.end(), [&](const auto& later) {
           return later.second.key == op->second.key;
         });
}

void TetherCore::Start(BootTime now) {
  if (phase_ == Phase::kIdle) Connect(now);
  if (phase_ == Phase::kAttached) SendDue(now);
}

void TetherCore::Connect(BootTime now) {
  if (options_.servers == 0) {
    phase_ = Phase::kWaiting;
    waiting_until_ = BootTime::max();  // SetServers
    return;
  }
  phase_ = Phase::kGreeting;
  greeting_until_ = now + kGreetingMost;
  answer_until_.reset();
  // Whether an op was done that was sent and not answered, only sending it again tells. But after a
  // later op for the same, which may have been done, it would undo that.
  for (auto it = ops_.begin(); it != ops_.end();) {
    if (it->second.sent && Overtaken(it)) {
      Finish(std::move(it->second.done), Superseded());
      it = ops_.erase(it);
    } else {
      it++->second.sent = false;
    }
  }
  actions_.push_back(TetherConnect{server_});
  SendHello();
}

void TetherCore::SendHello() {
  pb::TetherRequest message;
  auto* hello = message.mutable_hello();
  if (!session_id_.empty()) {
    hello->set_session_id(session_id_);
    hello->set_secret(secret_);
    hello->set_attach_number(++attach_number_);  // for every attempt, answered or not
  }
  hello->set_ttl_ms(options_.ttl.count());
  hello->set_host(options_.host);
  hello->set_pid(options_.pid);
  hello->set_program(options_.program);
  actions_.push_back(TetherSend{std::move(message)});
}

void TetherCore::Retry(BootTime now, milliseconds least) {
  if (phase_ == Phase::kClosed) return;
  if (closing_ && session_id_.empty()) return BecomeClosed();
  const milliseconds ceiling =
      std::min(BackOffMost(), kBackOffLeast * (1 << std::min(failures_, 16u)));
  ++failures_;
  const bool anew = ordered_ && phase_ == Phase::kAttached && server_ > 0;
  server_ = anew ? 0 : (server_ + 1) % options_.servers;
  const milliseconds wait(random_() % (static_cast<uint64_t>(ceiling.count()) + 1));
  phase_ = Phase::kWaiting;
  answer_until_.reset();
  waiting_until_ = now + std::max(wait, std::min(least, BackOffMost()));
}

milliseconds TetherCore::BackOffMost() const {
  return std::min(ttl_ / 3, milliseconds(30'000));
}

void TetherCore::SendDue(BootTime now) {
  if (phase_ != Phase::kAttached) return;
  size_t in_flight = 0;
  for (auto& [id, op] : ops_) {
    if (op.not_before && *op.not_before > now) continue;
    if (++in_flight > kInFlight) break;
    if (op.sent) continue;
    op.sent = true;
    op.not_before.reset();
    actions_.push_back(TetherSend{op.message});
    if (!answer_until_) answer_until_ = now + std::max<milliseconds>(ttl_ / 3, milliseconds(1000));
  }
  if (closing_ && !bye_sent_) {
    bye_sent_ = true;
    pb::TetherRequest message;
    message.mutable_bye()->set_reason("closed");
    actions_.push_back(TetherSend{std::move(message)});
  }
}

void TetherCore::OnMessage(const pb::TetherResponse& message, BootTime now) {
  if (phase_ != Phase::kGreeting && phase_ != Phase::kAttached) return;
  switch (message.kind_case()) {
    case pb::TetherResponse::kWelcome:
      return OnWelcome(message.welcome(), now);
    case pb::TetherResponse::kDone:
      return OnDone(message.done(), now);
    case pb::TetherResponse::kHeartbeat:
      if (message.heartbeat().number() != last_heartbeat_) return;
      answer_until_.reset();
      renewing_ = false;
      failures_ = 0;  // not at the welcome: a server that welcomes and ends meets the back-off
      return;
    case pb::TetherResponse::kEnded:
      return OnEnded(message.ended(), now);
    case pb::TetherResponse::kMove:
      Observe("asked to move: " + message.move().reason());
      actions_.push_back(TetherDisconnect{});
      return Retry(now);
    case pb::TetherResponse::KIND_NOT_SET:
      return;  // of a newer server
  }
}

void TetherCore::OnWelcome(const pb::TetherResponse::Welcome& welcome, BootTime now) {
  if (phase_ != Phase::kGreeting) return;
  phase_ = Phase::kAttached;
  if (!welcome.resumed()) {
    session_id_ = welcome.session_id();
    secret_ = welcome.secret();
  }
  attach_number_ = std::max(attach_number_, welcome.attach_number());
  if (welcome.ttl_ms() > 0) ttl_ = milliseconds(welcome.ttl_ms());
  const Revision before = std::exchange(welcomed_at_, FromWire(welcome.revision()));
  heartbeat_due_ = now + ttl_ / 3;
  Observe(std::string("session ") + (welcome.resumed() ? "resumed" : "opened") + " at node " +
          welcome.source().node_id());
  if (welcome.resumed() && before.epoch > 0 && welcomed_at_.epoch > before.epoch) AfterRestore();
  SendDue(now);
}

// The directory was restored from a backup: it knows the session, but not what was acknowledged
// after that was made. What is still pending is sent again anyhow.
void TetherCore::AfterRestore() {
  Observe("the directory was restored from a backup: all is registered again");
  const auto pending = [this](const Key& key) {
    return std::any_of(ops_.begin(), ops_.end(),
                       [&](const auto& op) { return op.second.key == key; });
  };
  for (const auto& [key, spec] : wanted_)
    if (!pending(key)) EnqueueRegister(key, nullptr);
  for (const Key& key : withdrawn_)
    if (!pending(key)) EnqueueWithdraw(key, nullptr);
  if (!drain_asked_) return;
  pb::TetherRequest message;
  message.mutable_drain()->set_undo(!draining_);
  Enqueue(std::move(message), nullptr);
}

void TetherCore::OnDone(const pb::TetherResponse::Done& done, BootTime now) {
  const auto it = ops_.find(done.op_id());
  if (it == ops_.end()) return;
  answer_until_.reset();
  if (!done.has_refusal()) {
    Finish(std::move(it->second.done), FromWire(done.revision()));
    ops_.erase(it);
    return SendDue(now);
  }
  Status status = FromWire(done.refusal());
  if (WorthTryingAgain(status.code()) && !closing_) {
    if (Overtaken(it)) {  // sent again now it would undo what was asked for after it
      Finish(std::move(it->second.done), Superseded());
      ops_.erase(it);
      return SendDue(now);
    }
    it->second.sent = false;
    it->second.not_before =
        now + std::clamp<milliseconds>(status.retry_after().value_or(kBackOffLeast), kBackOffLeast,
                                       milliseconds(30'000));
    return;
  }
  if (it->second.message.has_register_()) wanted_.erase(*it->second.key);
  Finish(std::move(it->second.done), std::move(status));
  ops_.erase(it);
  SendDue(now);
}

void TetherCore::OnEnded(const pb::TetherResponse::Ended& ended, BootTime now) {
  Status why = FromWire(ended.refusal());
  actions_.push_back(TetherDisconnect{});
  if (closing_ && (bye_sent_ || why.code() != Code::kFenced)) return BecomeClosed();
  Observe("session ended: " + (ended.reason().empty() ? why.ToString() : ended.reason()));
  switch (why.code()) {
    case Code::kFenced:  // by an earlier attempt of our own that arrived late
      attach_number_ = std::max(attach_number_, ended.present_attach_number());
      return Retry(now);
    case Code::kInvalid: {  // our hello is refused: trying again would not change it
      wanted_.clear();
      for (auto& [id, op] : std::exchange(ops_, {})) Finish(std::move(op.done), why);
      NewSession();
      phase_ = Phase::kIdle;
      return;
    }
    case Code::kSessionExpired:
    case Code::kDenied:
      // At once, unless it is a new session that is ended before it has lasted.
      if (std::exchange(renewing_, true)) {
        NewSession();
        return Retry(now);
      }
      NewSession();
      return Connect(now);
    default:
      return Retry(now, why.retry_after().value_or(milliseconds(0)));
  }
}

void TetherCore::NewSession() {
  session_id_.clear();
  secret_.clear();
  attach_number_ = 0;
  withdrawn_.clear();
  // Acknowledgements still owed pass to the op that registers the same again; what was to be
  // withdrawn went with the old session.
  std::map<Key, TetherClient::Done> owed;
  for (auto& [id, op] : std::exchange(ops_, {})) {
    if (op.message.has_register_() && wanted_.contains(*op.key)) {
      TetherClient::Done& done = owed[*op.key];
      if (done && op.done)
        done = [first = std::move(done), second = std::move(op.done)](const Result<Revision>& r) {
          first(r);
          second(r);
        };
      else if (op.done)
        done = std::move(op.done);
    } else if (op.message.has_register_()) {  // withdrawn before it was done: OK would be untrue
      Finish(std::move(op.done), Superseded());
    } else {
      Finish(std::move(op.done), welcomed_at_);
    }
  }
  for (const auto& [key, spec] : wanted_) {
    const auto it = owed.find(key);
    EnqueueRegister(key, it == owed.end() ? nullptr : std::move(it->second));
  }
  if (draining_) {
    pb::TetherRequest message;
    message.mutable_drain();
    Enqueue(std::move(message), nullptr);
  }
}

void TetherCore::OnLost(const Status& why, BootTime now) {
  if (phase_ != Phase::kGreeting && phase_ != Phase::kAttached) return;
  if (closing_ && bye_sent_) return BecomeClosed();
  if (phase_ == Phase::kAttached || failures_ == 0)
    Observe("directory not reached: " + why.message());
  Retry(now);
}

void TetherCore::Tick(BootTime now) {
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kClosed:
      return;
    case Phase::kWaiting:
      if (now >= waiting_until_) Connect(now);
      return;
    case Phase::kGreeting:
      if (now < greeting_until_) return;
      actions_.push_back(TetherDisconnect{});
      return OnLost(Status(Code::kTimeout, "the directory did not answer the hello within 3 s"),
                    now);
    case Phase::kAttached:
      if (answer_until_ && now >= *answer_until_) {
        actions_.push_back(TetherDisconnect{});
        return OnLost(Status(Code::kTimeout, "the directory does not answer heartbeats"), now);
      }
      if (now >= heartbeat_due_) {
        pb::TetherRequest message;
        message.mutable_heartbeat()->set_number(++last_heartbeat_);
        actions_.push_back(TetherSend{std::move(message)});
        heartbeat_due_ = now + ttl_ / 3;
        if (!answer_until_)
          answer_until_ = now + std::max<milliseconds>(ttl_ / 3, milliseconds(1000));
      }
      SendDue(now);
  }
}

std::optional<BootTime> TetherCore::NextDue() const {
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kClosed:
      return std::nullopt;
    case Phase::kWaiting:
      return waiting_until_;
    case Phase::kGreeting:
      return greeting_until_;
    case Phase::kAttached:
      break;
  }
  BootTime due = heartbeat_due_;
  if (answer_until_) due = std::min(due, *answer_until_);
  for (const auto& [id, op] : ops_)
    if (!op.sent && op.not_before) due = std::min(due, *op.not_before);
  return due;
}

void TetherCore::Finish(TetherClient::Done done, Result<Revision> result) {
  if (done) actions_.push_back(TetherFinish{std::move(done), std::move(result)});
}

void TetherCore::BecomeClosed() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  actions_.push_back(TetherDisconnect{});
  for (auto& [id, op] : std::exchange(ops_, {}))
    Finish(std::move(op.done), Status(Code::kCancelled, "the session closed"));
}

}  // namespace datawire
