#include "exchange.h"

#include <proton/message_id.hpp>

#include "amqp/proton_extras.h"
#include "datawire/stage.h"
#include "dead_letters.h"

namespace datawire {

proton::message SpareMessages::Swap(proton::message& message) {
  proton::message out;
  {
    const std::lock_guard lock(mutex_);
    if (!messages_.empty()) {
      out = std::move(messages_.back());
      messages_.pop_back();
    }
  }
  swap(out, message);
  return out;
}

void SpareMessages::Return(proton::message message) {
  if (!amqp::IsSmall(message)) return;
  const std::lock_guard lock(mutex_);
  if (messages_.size() < most_) messages_.push_back(std::move(message));
}

Exchange::State::State(std::shared_ptr<Answerer> where, uint64_t its_token, std::string its_address,
                       proton::message its_message, std::shared_ptr<SpareMessages> spare_messages,
                       std::shared_ptr<DeadLetters> its_dead_letters,
                       std::shared_ptr<LinkBook::Page> its_link)
    : answerer(std::move(where)),
      token(its_token),
      address(std::move(its_address)),
      message(std::move(its_message)),
      expires(ExpiryOf(message)),
      spare(std::move(spare_messages)),
      dead_letters(std::move(its_dead_letters)),
      link(std::move(its_link)) {}

void Exchange::State::Fail(const std::string& reason) {
  if (!Claim()) return;
  if (dead_letters && dead_letters->Take(answerer, token, address, message, reason)) return;
  answerer->Answer(token, {Settle::Kind::kModify, {}});
}

bool Exchange::State::Expired(BootTime now) {
  if (expires > now) return false;
  Answer({Settle::Kind::kReject, "its time to live passed before it was worked on", kExpired});
  return true;
}

Exchange::~Exchange() = default;

const proton::message& Exchange::message() const {
  return state_->message;
}

const std::string& Exchange::address() const {
  return state_->address;
}

bool Exchange::abandoned() const {
  return state_->link && state_->link->ended();
}

void Exchange::Accept() {
  state_->Answer({Settle::Kind::kAccept, {}});
}

void Exchange::Reject(const std::string& reason) {
  state_->Answer({Settle::Kind::kReject, reason});
}

void Exchange::Fail(const std::string& reason) {
  state_->Fail(reason);
}

void Exchange::Release() {
  state_->Answer({Settle::Kind::kRelease, {}});
}

Status Exchange::Reply(proton::message reply) {
  if (!state_->Claim()) return Status(Code::kInvalid, "the message is answered already");
  std::string reply_to;
  std::vector<char> encoded;
  Status status;
  try {
    const proton::message& request = state_->message;
    reply_to = request.reply_to();
    if (reply_to.empty()) {
      status = Status(Code::kInvalid, "the message asks for no reply: its reply-to is empty");
    } else {
      const proton::message_id id =
          request.correlation_id().empty() ? request.id() : request.correlation_id();
      if (!id.empty()) reply.correlation_id(id);
      reply.to(reply_to);
      CarryTrace(request, reply);
      encoded = reply.encode();
      if (encoded.size() > limits::kMessageBytes) {
        status =
            Status(Code::kInvalid, "the reply is " + std::to_string(encoded.size()) +
                                       " bytes, at most " + std::to_string(limits::kMessageBytes));
      }
    }
  } catch (const std::exception& e) {
    status = Status(Code::kInvalid, std::string("the reply cannot be encoded: ") + e.what());
  }
  if (!status.ok()) {
    state_->answerer->Answer(state_->token, {Settle::Kind::kAccept, {}});
    return status;
  }
  return state_->answerer->Reply(state_->token, reply_to, std::move(encoded));
}

}  // namespace datawire
