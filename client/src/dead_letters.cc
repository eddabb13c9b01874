#include "dead_letters.h"

#include "datawire/stage.h"

namespace datawire {

bool DeadLetters::Take(const std::shared_ptr<Answerer>& answerer, uint64_t token,
                       const std::string& address, const proton::message& message,
                       const std::string& reason) {
  if (message.delivery_count() + 1 < tries_) return false;
  if (!sender_) {
    answerer->Answer(token, {Settle::Kind::kReject, reason, kTriedTooOften});
    return true;
  }
  sender_->Send(
      DeadLetter(message, address, reason),
      {.done = [answerer, token](const DeliveryOutcome& outcome) {
        const bool there = outcome.end == DeliveryEnd::kAccepted;
        answerer->Answer(token, {there ? Settle::Kind::kAccept : Settle::Kind::kModify, {}});
      }});
  return true;
}

}  // namespace datawire
