#include "peer_link.h"

#include <algorithm>
#include <proton/receiver_options.hpp>
#include <proton/sender_options.hpp>
#include <proton/source.hpp>
#include <proton/source_options.hpp>
#include <proton/target_options.hpp>

#include "amqp/encoded_message.h"
#include "datawire/assert.h"

namespace datawire {

SenderCore::Outcome OutcomeOf(const proton::tracker& tracker, LinkBook::Page& page) {
  using From = amqp::RemoteOutcome::Kind;
  using To = SenderCore::Outcome::Kind;
  amqp::RemoteOutcome remote = amqp::Outcome(tracker);
  SenderCore::Outcome outcome;
  outcome.condition = std::move(remote.condition);
  outcome.description = std::move(remote.description);
  outcome.failed = remote.failed;
  outcome.undeliverable_here = remote.undeliverable_here;
  switch (remote.kind) {
    case From::kAccepted:
      outcome.kind = To::kAccepted;
      break;
    case From::kRejected:
      outcome.kind = To::kRejected;
      break;
    case From::kReleased:
      outcome.kind = To::kReleased;
      break;
    case From::kModified:
      outcome.kind = To::kModified;
      break;
    case From::kNone:  // settled without saying how: nothing is known of it
      outcome.kind = To::kModified;
      outcome.failed = true;
      break;
  }
  if (outcome.kind == To::kAccepted)
    page.Accepted();
  else if (outcome.kind == To::kRejected)
    page.Rejected();
  else
    page.GivenBack();
  return outcome;
}

void Apply(const Settle& how, proton::delivery& delivery) {
  switch (how.kind) {
    case Settle::Kind::kAccept:
      return delivery.accept();
    case Settle::Kind::kReject:
      return amqp::Reject(delivery, how.condition, how.reason);
    case Settle::Kind::kRelease:
      return delivery.release();
    case Settle::Kind::kModify:
      return amqp::Modify(delivery, true, false);
  }
}

void Note(const Settle& how, LinkBook::Page& page) {
  if (how.kind == Settle::Kind::kAccept) return page.Accepted();
  if (how.kind == Settle::Kind::kReject) return page.Rejected();
  page.GivenBack();
}

bool LinkOfPeer::Start(proton::connection connection) {
  if (closed_) return false;
  events_->OnStart(weak_from_this());
  if (spec_.kind == LinkSpec::Kind::kReceiver) {
    proton::source_options source;
    source.address(spec_.node);
    receiver_ = connection.open_receiver(
        spec_.node, proton::receiver_options().source(source).credit_window(0).auto_accept(false));
    return true;
  }
  sender_ = connection.open_sender(
      spec_.node, proton::sender_options()
                      .target(proton::target_options().address(spec_.node))
                      .delivery_mode(spec_.presettled ? proton::delivery_mode::AT_MOST_ONCE
                                                      : proton::delivery_mode::AT_LEAST_ONCE));
  if (spec_.kind == LinkSpec::Kind::kRequester) {
    proton::source_options source;
    source.dynamic(true);
    receiver_ =
        connection.open_receiver("", proton::receiver_options().source(source).credit_window(0));
  }
  return true;
}

bool LinkOfPeer::Has(const proton::link& link) const {
  return (!!sender_ && static_cast<const proton::link&>(sender_) == link) ||
         (!!receiver_ && static_cast<const proton::link&>(receiver_) == link);
}

void LinkOfPeer::OnAttached(const proton::link& link) {
  if (amqp::Refused(link)) return;  // a detach with the reason follows
  if (!!sender_ && static_cast<const proton::link&>(sender_) == link) {
    sender_attached_ = true;
  } else {
    receiver_attached_ = true;
    if (spec_.kind == LinkSpec::Kind::kRequester) {
      reply_to_ = receiver_.source().address();
      receiver_.add_credit(limits::kReplyCredit);
    }
    if (spec_.kind == LinkSpec::Kind::kReceiver) receiver_.add_credit(spec_.credit);
  }
  const bool sender_ready = sender_attached_ || spec_.kind == LinkSpec::Kind::kReceiver;
  const bool receiver_ready = receiver_attached_ || spec_.kind == LinkSpec::Kind::kSender;
  if (!sender_ready || !receiver_ready) return;
  page_ = book_->Open({.peer = spec_.peer,
                       .node = spec_.node,
                       .ours = true,
                       .incoming = spec_.kind == LinkSpec::Kind::kReceiver});
  events_->OnOpened();
  if (sender_attached_) ReportCredit();
}

void LinkOfPeer::ReportCredit() {
  if (!sender_attached_) return;
  events_->OnCredit(sent_ + static_cast<uint64_t>(std::max(sender_.credit(), 0)));
}

void LinkOfPeer::Transmit(std::vector<Item> items) {
  if (!peer_) return;
  peer_->Post([self = shared_from_this(), items = std::move(items)] {
    if (self->closed_) return;
    for (const Item& item : items) self->Send(item);
  });
}

void LinkOfPeer::Send(const Item& item) {
  if (!sender_ || sender_.credit() <= 0) return events_->OnBounced(item.id);
  const auto ttl_ms = static_cast<uint32_t>(std::min<int64_t>(item.ttl_left.count(), UINT32_MAX));
  const bool as_it_is = item.redelivered == 0 && reply_to_.empty() && ttl_ms == 0;
  std::vector<char> added;
  if (!as_it_is) {
    auto with = amqp::WithFields(
        {item.encoded->data(), item.encoded->size()},
        {.reply_to = reply_to_, .more_deliveries = item.redelivered, .ttl_ms = ttl_ms});
    DW_ASSERT(with.ok());  // it was encoded here
    added = std::move(with).value();
  }
  const std::vector<char>& bytes = as_it_is ? *item.encoded : added;
  const uint64_t most = amqp::RemoteMaxMessageSize(sender_);
  if (most > 0 && bytes.size() > most) {
    ++sent_;  // a turn of the core's, though not of the link's: its credit is still there
    ReportCredit();
    events_->OnSettled(item.id,
                       {SenderCore::Outcome::Kind::kRejected, "amqp:link:message-size-exceeded",
                        "the message is " + std::to_string(bytes.size()) + " bytes, at most " +
                            std::to_string(most) + " at the peer",
                        false, false});
    return;
  }
  if (!amqp::SendEncoded(sender_, {bytes.data(), bytes.size()}, item.id).ok())
    return events_->OnBounced(item.id);
  ++sent_;
  page_->Message();
  if (spec_.presettled) events_->OnWritten(item.id);
}

void LinkOfPeer::Forget(uint64_t id) {
  if (!peer_) return;
  peer_->Post([self = shared_from_this(), id] {
    if (!self->closed_ && !!self->sender_) amqp::Forget(self->sender_, id);
  });
}

void LinkOfPeer::OnSettled(const proton::tracker& tracker) {
  const uint64_t id = amqp::TagOf(tracker);
  if (id == 0) return;
  events_->OnSettled(id, OutcomeOf(tracker, *page_));
}

void LinkOfPeer::OnMessage(proton::delivery& delivery, proton::message& message) {
  if (closed_) return;
  if (spec_.kind == LinkSpec::Kind::kRequester) {
    events_->OnMessage(0, std::move(message));  // accepted by proton
    if (++owed_ * 4 >= limits::kReplyCredit) receiver_.add_credit(std::exchange(owed_, 0));
    return;
  }
  page_->Message();
  const uint64_t token = next_token_++;
  deliveries_.emplace(token, delivery);
  events_->OnMessage(token, std::move(message));
}

void LinkOfPeer::SettleMessage(uint64_t token, Settle how) {
  if (!peer_) return;
  peer_->Post([self = shared_from_this(), token, how = std::move(how)] {
    const auto it = self->deliveries_.find(token);
    if (it == self->deliveries_.end()) return;
    proton::delivery delivery = it->second;
    self->deliveries_.erase(it);
    Apply(how, delivery);
    Note(how, *self->page_);
    if (self->leaving_) return self->LeaveWhenDone();
    if (++self->owed_ * 4 < self->spec_.credit) return;
    self->receiver_.add_credit(std::exchange(self->owed_, 0));
  });
}

void LinkOfPeer::Leave() {
  if (!peer_) return;
  peer_->Post([self = shared_from_this()] {
    if (self->closed_ || std::exchange(self->leaving_, true)) return;
    self->drained_ = !self->receiver_ || self->receiver_.credit() == 0;
    if (!self->drained_) self->receiver_.drain();
    self->LeaveWhenDone();
  });
  peer_->After(limits::kDrainAnswer, [self = shared_from_this()] { self->OnDrained(); });
}

void LinkOfPeer::OnDrained() {
  if (!leaving_) return;
  drained_ = true;
  LeaveWhenDone();
}

void LinkOfPeer::LeaveWhenDone() {
  if (closed_ || !drained_ || !deliveries_.empty()) return;
  CloseHalves();
  peer_->Remove(shared_from_this());
  Lose("", "moved to another endpoint");
}

void LinkOfPeer::Close() {
  if (!peer_) return;
  peer_->Post([self = shared_from_this()] {
    if (self->closed_) return;
    self->CloseHalves();
    if (self->page_) self->page_->End("");
    self->events_.reset();
    self->peer_->Remove(self);
  });
}

void LinkOfPeer::CloseHalves() {
  closed_ = true;
  if (!!sender_ && !sender_.closed()) sender_.close();
  if (!!receiver_ && !receiver_.closed()) receiver_.close();
}

void LinkOfPeer::Drop() {
  closed_ = true;
  deliveries_.clear();
  sender_ = proton::sender();
  receiver_ = proton::receiver();
}

void LinkOfPeer::Lose(const std::string& condition, const std::string& description) {
  Drop();
  if (page_) page_->End(description.empty() ? condition : description);
  if (const auto events = std::exchange(events_, nullptr)) events->OnLost(condition, description);
}

}  // namespace datawire
