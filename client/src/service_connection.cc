#include "service_connection.h"

#include <algorithm>
#include <proton/receiver_options.hpp>
#include <proton/sender_options.hpp>
#include <proton/session.hpp>
#include <proton/source.hpp>
#include <proton/source_options.hpp>
#include <proton/target.hpp>
#include <proton/target_options.hpp>
#include <proton/tracker.hpp>
#include <random>

#include "amqp/proton_extras.h"

namespace datawire {

namespace {

std::string NewReplyNode() {
  std::random_device device;
  char text[40];
  std::snprintf(text, sizeof text, "reply-%08x%08x%08x", device(), device(), device());
  return text;
}

/// A link without the address it asks for.
void RefuseUnknown(proton::link& link, const std::string& wanted, const ServiceNode& node) {
  amqp::Refuse(link, MappingOf(Code::kNotFound).amqp_condition,
               "no node " + Shown(wanted) + " here; this service is " + node.address.text() +
                   (node.subtree ? " and what is below it" : ""));
}

}  // namespace

std::optional<std::string> ServiceNode::Match(const std::string& target) const {
  const Result<Address> wanted = Address::Parse(target);
  if (!wanted.ok()) return std::nullopt;
  if (*wanted == address || (subtree && wanted->IsWithin(address))) return wanted->text();
  return std::nullopt;
}

void ServiceConnection::on_receiver_open(proton::receiver& receiver) {
  const std::string target = receiver.target().address();
  std::optional<std::string> address = node_->Match(target);
  if (!address || receiver.target().dynamic()) return RefuseUnknown(receiver, target, *node_);
  if (draining_) {
    return amqp::Refuse(receiver, "amqp:link:detach-forced", "the service stops");
  }
  amqp::SetMaxMessageSize(receiver, limits::kMessageBytes);
  proton::target_options echo;
  echo.address(target);
  receiver.open(proton::receiver_options().target(echo).credit_window(0).auto_accept(false));
  receiver.add_credit(node_->credit);
  const auto connection = connection_.lock();
  auto page = node_->book->Open(
      {.peer = connection ? connection->peer() : "", .node = *address, .incoming = true});
  in_.emplace(next_++, In{receiver, *std::move(address), std::move(page)});
}

void ServiceConnection::on_sender_open(proton::sender& sender) {
  if (!sender.source().dynamic()) {
    const std::string source = sender.source().address();
    auto address = node_->Match(source);
    if (!address) return RefuseUnknown(sender, source, *node_);
    if (draining_) return amqp::Refuse(sender, "amqp:link:detach-forced", "the service stops");
    if (node_->feed.attached) return OpenOutlet(sender, *std::move(address));
    return amqp::Refuse(sender, "amqp:not-allowed",
                        "messages are sent to " + Shown(source) + ", none are received from it");
  }
  const std::string name = NewReplyNode();
  proton::source_options source;
  source.address(name);  // dynamic(true) as well would null the address
  sender.open(proton::sender_options().source(source));
  out_.emplace(name, Out{sender, {}});
  const std::lock_guard lock(mutex_);
  reply_nodes_.insert(name);
}

void ServiceConnection::OpenOutlet(proton::sender& sender, std::string address) {
  const auto connection = connection_.lock();
  if (!connection) return;
  proton::source_options source;
  source.address(sender.source().address());
  sender.open(proton::sender_options().source(source));
  auto page = node_->book->Open({.peer = connection->peer(), .node = address});
  const auto outlet =
      std::make_shared<LinkOutlet>(connection, sender, std::move(address), std::move(page));
  outlets_.push_back(outlet);
  node_->feed.attached(outlet);
}

std::shared_ptr<LinkOutlet> ServiceConnection::OutletOf(const proton::sender& sender) const {
  for (const auto& outlet : outlets_)
    if (outlet->Has(sender)) return outlet;
  return nullptr;
}

void ServiceConnection::Heard(proton::tracker& tracker) {
  if (tracker.settled()) return;  // on_tracker_settle follows
  on_tracker_settle(tracker);
  tracker.settle();
}

void ServiceConnection::on_tracker_settle(proton::tracker& tracker) {
  if (const auto outlet = OutletOf(tracker.sender())) outlet->Settled(tracker);
  CloseWhenDone();
}

void ServiceConnection::on_message(proton::delivery& delivery, proton::message& message) {
  const auto in = std::find_if(in_.begin(), in_.end(), [&](const auto& entry) {
    return entry.second.receiver == delivery.receiver();
  });
  if (in == in_.end() || draining_) return delivery.release();
  in->second.page->Message();
  const uint64_t token = next_++;
  held_.emplace_hint(held_.end(), token, Held{delivery, in->first});
  came_.push_back(std::make_shared<Exchange::State>(shared_from_this(), token, in->second.address,
                                                    node_->spare->Swap(message), node_->spare,
                                                    node_->dead_letters, in->second.page));
  if (came_.size() > 1) return;
  // All that came in this turn wakes the handler once.
  if (const auto connection = connection_.lock()) {
    connection->Post([self = shared_from_this()] { self->Deliver(); });
  }
}

void ServiceConnection::Deliver() {
  node_->deliver(came_);
  came_.clear();
}

void ServiceConnection::Answer(uint64_t token, Settle how) {
  Tell({token, std::move(how), {}, {}});
}

void ServiceConnection::Tell(Told told) {
  const auto connection = connection_.lock();
  if (!connection) return;
  {
    const std::lock_guard lock(mutex_);
    told_.push_back(std::move(told));
    if (told_.size() > 1) return;  // the first has told that there is something to hear
  }
  connection->Post([self = shared_from_this()] { self->Hear(); });
}

void ServiceConnection::Hear() {
  {
    const std::lock_guard lock(mutex_);
    hearing_.swap(told_);
  }
  for (Told& told : hearing_) {
    const auto in = SettleHeld(told.token, told.how);
    if (!in) continue;
    const auto out = out_.find(told.reply_to);
    if (told.reply_to.empty() || out == out_.end()) {
      Done(*in);
      continue;
    }
    out->second.replies.push_back({std::move(told.reply), *in});
    SendReplies(out->second);
  }
  hearing_.clear();
  CloseWhenDone();
}

Status ServiceConnection::Reply(uint64_t token, const std::string& reply_to,
                                std::vector<char> encoded) {
  bool ours = false;
  {
    const std::lock_guard lock(mutex_);
    ours = reply_nodes_.contains(reply_to);
  }
  if (!ours) {
    Answer(token, {Settle::Kind::kAccept, {}});
    return Status(Code::kInvalid, "reply-to " + Shown(reply_to) +
                                      " is no reply node of the connection the message came on");
  }
  Tell({token, {Settle::Kind::kAccept, {}}, reply_to, std::move(encoded)});
  return {};
}

std::optional<uint64_t> ServiceConnection::SettleHeld(uint64_t token, const Settle& how) {
  auto node = held_.extract(token);
  if (!node) return std::nullopt;
  Apply(how, node.mapped().delivery);
  if (const auto in = in_.find(node.mapped().in); in != in_.end()) Note(how, *in->second.page);
  return node.mapped().in;
}

/// One message less in flight: room for another, told in portions.
void ServiceConnection::Done(uint64_t in) {
  const auto it = in_.find(in);
  if (it == in_.end() || draining_) return;
  if (++it->second.owed * 4 < node_->credit) return;
  it->second.receiver.add_credit(std::exchange(it->second.owed, 0));
}

/// Replies are pre-settled: the requester asks again, or not.
void ServiceConnection::SendReplies(Out& out) {
  while (!out.replies.empty() && out.sender.credit() > 0) {
    const Waiting& reply = out.replies.front();
    const uint64_t tag = out.next_tag++;
    if (amqp::SendEncoded(out.sender, {reply.encoded.data(), reply.encoded.size()}, tag).ok()) {
      amqp::Forget(out.sender, tag);
    }
    Done(reply.in);
    out.replies.pop_front();
  }
}

void ServiceConnection::on_sendable(proton::sender& sender) {
  for (auto& [name, out] : out_) {
    if (out.sender == sender) SendReplies(out);
  }
  if (const auto outlet = OutletOf(sender)) {
    outlet->NoteCredit();
    if (outlet->credit() > 0 && node_->feed.credit) node_->feed.credit(outlet);
  }
  CloseWhenDone();
}

void ServiceConnection::on_sender_drain_start(proton::sender& sender) {
  on_sendable(sender);
  const auto outlet = OutletOf(sender);
  const auto connection = connection_.lock();
  if (!outlet || !connection) return (void)amqp::ReturnCreditIfDraining(sender);
  // Who feeds it was told just now, and may have something for it.
  connection->After(limits::kFeedLook, [outlet] { outlet->ReturnCredit(); });
}

void ServiceConnection::Gone(const proton::receiver& receiver) {
  std::erase_if(in_, [&](const auto& entry) {
    if (entry.second.receiver != receiver) return false;
    entry.second.page->End("");
    std::erase_if(held_, [&](const auto& held) { return held.second.in == entry.first; });
    return true;
  });
  CloseWhenDone();
}

void ServiceConnection::Gone(const std::shared_ptr<LinkOutlet>& outlet) {
  std::erase(outlets_, outlet);
  outlet->Lose();
  if (node_->feed.detached) node_->feed.detached(outlet);
}

void ServiceConnection::Gone(const proton::sender& sender) {
  if (const auto outlet = OutletOf(sender)) Gone(outlet);
  for (auto it = out_.begin(); it != out_.end();) {
    if (it->second.sender != sender) {
      ++it;
      continue;
    }
    for (const Waiting& reply : it->second.replies) Done(reply.in);
    {
      const std::lock_guard lock(mutex_);
      reply_nodes_.erase(it->first);
    }
    it = out_.erase(it);
  }
}

void ServiceConnection::on_receiver_close(proton::receiver& receiver) {
  Gone(receiver);
  receiver.close();
}
void ServiceConnection::on_receiver_detach(proton::receiver& receiver) {
  Gone(receiver);
  receiver.detach();
}
void ServiceConnection::on_sender_close(proton::sender& sender) {
  Gone(sender);
  sender.close();
}
void ServiceConnection::on_sender_detach(proton::sender& sender) {
  Gone(sender);
  sender.detach();
}
void ServiceConnection::on_session_close(proton::session& session) {
  for (const auto& receiver : session.receivers()) Gone(receiver);
  for (const auto& sender : session.senders()) Gone(sender);
  session.close();
}

void ServiceConnection::Closed() {
  came_.clear();
  held_.clear();
  for (const auto& [id, in] : in_) in.page->End("");
  in_.clear();
  out_.clear();
  while (!outlets_.empty()) Gone(std::shared_ptr(outlets_.back()));
  const std::lock_guard lock(mutex_);
  reply_nodes_.clear();
  told_.clear();
}

void ServiceConnection::Drain() {
  const auto connection = connection_.lock();
  if (!connection) return;
  connection->Post([self = shared_from_this()] {
    if (std::exchange(self->draining_, true)) return;
    for (const auto& outlet : self->outlets_) outlet->Drain();
    for (auto& [id, in] : self->in_) {
      in.draining = in.receiver.credit() > 0;
      if (in.draining) in.receiver.drain();
    }
    self->CloseWhenDone();
  });
  connection->After(limits::kDrainAnswer, [self = shared_from_this()] {
    for (auto& [id, in] : self->in_) in.draining = false;
    self->CloseWhenDone();
  });
}

void ServiceConnection::on_receiver_drain_finish(proton::receiver& receiver) {
  for (auto& [id, in] : in_) in.draining &= in.receiver != receiver;
  CloseWhenDone();
}

void ServiceConnection::CloseWhenDone() {
  if (!draining_ || !held_.empty()) return;
  for (const auto& [id, in] : in_) {
    if (in.draining) return;
  }
  for (const auto& [name, out] : out_) {
    if (!out.replies.empty()) return;
  }
  for (const auto& outlet : outlets_) {
    if (outlet->busy()) return;
  }
  if (const auto connection = connection_.lock()) connection->Close();
}

void ServiceConnection::Abort() {
  if (const auto connection = connection_.lock()) {
    connection->Abort(Status(Code::kCancelled, "the service stopped"));
  }
}

}  // namespace datawire
