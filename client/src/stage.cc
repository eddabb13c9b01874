#include "datawire/stage.h"

#include <algorithm>
#include <memory>
#include <proton/annotation_key.hpp>
#include <proton/codec/map.hpp>
#include <proton/duration.hpp>
#include <proton/message_id.hpp>
#include <random>

#include "datawire/utf8.h"

namespace datawire {

namespace {

constexpr const char* kTraceparent = "traceparent";
constexpr const char* kTracestate = "tracestate";
constexpr size_t kReasonBytes = 1024;  // of a dead letter

std::string Annotation(const proton::message& message, const char* name) {
  try {
    const auto& annotations = message.message_annotations();
    const proton::annotation_key key{proton::symbol(name)};
    if (annotations.empty() || !annotations.exists(key)) return {};
    return proton::coerce<std::string>(annotations.get(key));
  } catch (const std::exception&) {  // a value that is no text
    return {};
  }
}

void SetAnnotation(proton::message& message, const char* name, const proton::scalar& value) {
  message.message_annotations().put(proton::annotation_key{proton::symbol(name)}, value);
}

/// 00-32 hex-16 hex-2 hex, none all zeros (section 3.2).
bool IsTraceparent(const std::string& text) {
  if (text.size() < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  for (size_t i = 0; i < 55; ++i) {
    const char c = text[i];
    if (i == 2 || i == 35 || i == 52) continue;
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  const auto zeros = [&text](size_t at, size_t count) {
    return text.find_first_not_of('0', at) >= at + count;
  };
  return !zeros(3, 32) && !zeros(36, 16) && text.compare(0, 2, "ff") != 0;
}

std::string IdOf(const proton::message& message) {
  try {
    const proton::message_id id = message.id();
    return id.empty() ? "" : proton::to_string(id);
  } catch (const std::exception&) {
    return {};
  }
}

/// The outputs of one input, until the last has ended.
class Joined {
 public:
  Joined(Exchange input, size_t outputs) : input_(std::move(input)), left_(outputs) {}

  void Ended(const DeliveryOutcome& outcome) {
    {
      const std::lock_guard lock(mutex_);
      if (outcome.end == DeliveryEnd::kRejected && !rejected_) {
        rejected_ = true;
        reason_ = outcome.description.empty() ? outcome.condition : outcome.description;
      }
      unsure_ |= outcome.end != DeliveryEnd::kAccepted && outcome.end != DeliveryEnd::kRejected;
      if (--left_ > 0) return;
    }
    if (rejected_) return input_.Reject(reason_);
    unsure_ ? input_.Release() : input_.Accept();
  }

 private:
  std::mutex mutex_;
  Exchange input_;
  size_t left_;                             // guarded by mutex_; who makes it 0 has the rest alone
  bool rejected_ = false, unsure_ = false;  // guarded by mutex_
  std::string reason_;                      // guarded by mutex_
};

}  // namespace

void Forward(Exchange input, std::vector<Output> outputs) {
  if (outputs.empty()) return input.Accept();
  const std::string id = IdOf(input.message());
  for (size_t i = 0; i < outputs.size(); ++i) {
    proton::message& message = outputs[i].message;
    CarryTrace(input.message(), message);
    if (id.empty() || !message.id().empty()) continue;
    message.id(i == 0 ? id : id + "/" + std::to_string(i + 1));
  }
  const auto joined = std::make_shared<Joined>(std::move(input), outputs.size());
  for (Output& output : outputs)
    output.to->Send(output.message,
                    {.done = [joined](const DeliveryOutcome& o) { joined->Ended(o); }});
}

std::string NewTraceparent() {
  std::random_device device;
  char text[56];
  std::snprintf(text, sizeof text, "00-%08x%08x%08x%08x-%08x%08x-01", device(), device(), device(),
                device() | 1u, device(), device() | 1u);
  return text;
}

std::string TraceparentOf(const proton::message& message) {
  std::string text = Annotation(message, kTraceparent);
  return IsTraceparent(text) ? text : "";
}

void SetTraceparent(proton::message& message, const std::string& traceparent) {
  SetAnnotation(message, kTraceparent, traceparent);
}

void CarryTrace(const proton::message& from, proton::message& to) {
  const std::string trace = TraceparentOf(from);
  if (trace.empty() || !TraceparentOf(to).empty()) return;
  SetTraceparent(to, trace);
  if (const std::string state = Annotation(from, kTracestate); !state.empty())
    SetAnnotation(to, kTracestate, state);
}

BootTime ExpiryOf(const proton::message& message, BootTime now) {
  const auto ttl = static_cast<int64_t>(message.ttl().milliseconds());
  return ttl > 0 ? now + std::chrono::milliseconds(ttl) : BootTime::max();
}

proton::message DeadLetter(const proton::message& message, const std::string& address,
                           const std::string& reason) {
  proton::message dead = message;
  const std::string whole = reason.substr(0, kReasonBytes);
  SetAnnotation(dead, "x-opt-dead-reason", whole.substr(0, Utf8Prefix(whole)));
  SetAnnotation(dead, "x-opt-dead-address", address);
  SetAnnotation(dead, "x-opt-dead-tries", message.delivery_count() + 1);
  dead.delivery_count(0);
  dead.ttl(proton::duration(0));  // it waits there for somebody to look at it
  return dead;
}

bool RecentMessages::Begin(const proton::message& message, BootTime now) {
  std::string id = IdOf(message);
  if (id.empty()) return true;
  const std::lock_guard lock(mutex_);
  while (!ids_.empty() && (ids_.size() >= most_ || now - ids_.front().second >= age_)) {
    by_id_.erase(ids_.front().first);
    ids_.pop_front();
  }
  const auto [it, is_new] = by_id_.try_emplace(id);
  if (!is_new) return false;
  it->second = ids_.emplace(ids_.end(), std::move(id), now);
  return true;
}

void RecentMessages::Forget(const proton::message& message) {
  const std::lock_guard lock(mutex_);
  const auto it = by_id_.find(IdOf(message));
  if (it == by_id_.end()) return;
  ids_.erase(it->second);
  by_id_.erase(it);
}

size_t RecentMessages::size() const {
  const std::lock_guard lock(mutex_);
  return ids_.size();
}

}  // namespace datawire
