#include <proton/message_id.hpp>

#include "sender_shell.h"

namespace datawire {

void Asked::Answer(Result<proton::message> with) {
  {
    const std::lock_guard lock(mutex);
    if (result) return;
    result.emplace(std::move(with));
  }
  answered.notify_all();
  if (!done) return;
  try {
    std::exchange(done, nullptr)(std::move(*result));  // which nobody else reads, then
  } catch (...) {  // the user's: it must not end the thread that others' replies need
  }
}

Delivery SenderShell::AskFor(const proton::message& message, std::chrono::milliseconds timeout,
                             const std::shared_ptr<Asked>& asked) {
  SendOptions options;
  options.deadline = std::max(timeout, std::chrono::milliseconds(1));
  Delivery delivery = Take(message, std::move(options), asked);
  if (const auto ended = delivery.Poll(); ended && ended->end == DeliveryEnd::kNotSent) {
    const bool invalid = ended->condition == MappingOf(Code::kInvalid).amqp_condition;
    asked->Answer(Status(invalid ? Code::kInvalid : Code::kTimeout, ended->description));
  }
  return delivery;
}

void SenderShell::Request(const proton::message& message, std::chrono::milliseconds timeout,
                          std::function<void(Result<proton::message>)> done) {
  auto asked = std::make_shared<Asked>();
  asked->done = std::move(done);
  AskFor(message, timeout, asked);
}

Result<proton::message> SenderShell::Request(const proton::message& message,
                                             std::chrono::milliseconds timeout) {
  const BootTime until = BootClock::now() + timeout;
  auto asked = std::make_shared<Asked>();
  AskFor(message, timeout, asked);
  std::unique_lock lock(asked->mutex);
  const auto wait = [&](BootTime end) {
    const auto left = end - BootClock::now();
    if (left <= left.zero()) return asked->result.has_value();
    return asked->answered.wait_for(lock, left, [&] { return asked->result.has_value(); });
  };
  if (!wait(until) && !asked->accepted) wait(until + limits::kVerdictGrace);
  if (!asked->result) {
    asked->result.emplace(Status(Code::kOutcomeUnknown,
                                 "no reply within " + std::to_string(timeout.count()) + " ms"));
    Post([this, asked](BootTime) {
      std::erase_if(awaited_, [&](const auto& entry) { return entry.second.asked == asked; });
    });
  }
  return std::move(*asked->result);
}

/// The request was settled, or given up.
void SenderShell::Ask(Flight& flight, const DeliveryOutcome& outcome) {
  const std::string why = (outcome.condition.empty() ? "" : outcome.condition + ": ") +
                          (outcome.description.empty() ? "no reason given" : outcome.description);
  switch (outcome.end) {
    case DeliveryEnd::kAccepted: {
      {
        const std::lock_guard lock(flight.asked->mutex);
        if (flight.asked->result) return;
        flight.asked->accepted = true;
      }
      if (flight.asked->done)
        flight.until = awaited_until_.emplace(flight.state->deadline, flight.reply_key);
      const auto [it, is_new] = awaited_.try_emplace(flight.reply_key, flight);
      if (is_new) return;
      NoMoreAwaited(it)->Answer(Status(Code::kOutcomeUnknown, "another request has its id"));
      awaited_.emplace(flight.reply_key, flight);
      return;
    }
    case DeliveryEnd::kRejected:
      return flight.asked->Answer(Status(Code::kDenied, outcome.peer + " rejected it: " + why));
    case DeliveryEnd::kNotSent:
      return flight.asked->Answer(Status(Code::kTimeout, "not sent: " + why));
    case DeliveryEnd::kOutcomeUnknown:
      return flight.asked->Answer(Status(Code::kOutcomeUnknown, why));
  }
}

/// In the turn. A reply may come before its request is settled.
void SenderShell::Replied(proton::message& reply) {
  try {
    const proton::message_id id = reply.correlation_id();
    if (id.empty()) return;
    const std::string key = proton::to_string(id);
    if (const auto it = awaited_.find(key); it != awaited_.end())
      return NoMoreAwaited(it)->Answer(std::move(reply));
    for (auto& [number, flight] : flights_) {
      if (flight.asked && flight.reply_key == key) {
        return flight.asked->Answer(std::move(reply));
      }
    }
  } catch (const std::exception&) {  // a reply that proton cannot read is none
  }
}

std::shared_ptr<Asked> SenderShell::NoMoreAwaited(std::map<std::string, Flight>::iterator flight) {
  auto asked = std::move(flight->second.asked);
  if (asked->done) awaited_until_.erase(flight->second.until);
  awaited_.erase(flight);
  return asked;
}

void SenderShell::GiveUp(BootTime now) {
  while (!awaited_until_.empty() && awaited_until_.begin()->first <= now)
    NoMoreAwaited(awaited_.find(awaited_until_.begin()->second))
        ->Answer(Status(Code::kOutcomeUnknown, "no reply in time"));
}

/// Replies come back on the link the request went out on, or never.
void SenderShell::LinkGone(SenderCore::LinkId link, const std::string& why) {
  for (auto it = awaited_.begin(); it != awaited_.end();) {
    if (it->second.link != link) {
      ++it;
      continue;
    }
    const auto lost = it++;
    NoMoreAwaited(lost)->Answer(
        Status(Code::kOutcomeUnknown, "the link was lost before the reply: " + why));
  }
}

}  // namespace datawire
