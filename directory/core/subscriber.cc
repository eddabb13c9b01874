#include "core/subscriber.h"

#include <algorithm>

#include "core/answers.h"
#include "core/watch_hub.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr size_t kBatchMost = 256, kBatchLeast = 4;
constexpr size_t kMarkBytes = 512;     // room kept for a mark with its source
constexpr size_t kRefusedMost = 1000;  // in one message and unread; then the stream ends

}  // namespace

Status SubscriberState::OnRequest(const pb::SubscribeRequest& request) {
  for (const std::string& text : request.drop()) {
    const auto address = Address::Parse(text);
    if (!address.ok()) {
      Refuse(text, address.status());
      continue;
    }
    const std::string key = address->Key();
    bool had = false;
    {
      std::lock_guard lock(mu_);
      had = subscriptions_.erase(key) > 0;
    }
    if (had) hub_->Unindex(key, shared_from_this());
  }
  for (const auto& held : request.add()) Add(held);
  std::unique_lock lock(mu_);
  if (refused_.size() > kRefusedMost)
    return {Code::kInvalid, std::to_string(refused_.size()) + " refused addresses wait unread"};
  acknowledged_ = std::max(acknowledged_, FromWire(request.acknowledged()));
  const bool due = !dirty_.empty() || !refused_.empty();
  lock.unlock();
  if (due) Wake();
  return {};
}

void SubscriberState::Add(const pb::SubscribeRequest::Held& held) {
  const auto address = Address::Parse(held.address());
  if (!address.ok()) return Refuse(held.address(), address.status());
  const std::string key = address->Key();
  {
    std::lock_guard lock(mu_);
    if (!subscriptions_.contains(key) && subscriptions_.size() >= limits::kSubscriptions) {
      pb::RefusedAddress refused;
      refused.set_address(address->text());
      ToWire(
          Status(Code::kOverloaded, "a stream holds at most " +
                                        std::to_string(limits::kSubscriptions) + " subscriptions"),
          refused.mutable_refusal());
      refused_.push_back(std::move(refused));
      return;
    }
  }
  // Indexed before it is due: a change that comes after the answer was read finds it.
  hub_->Index(key, shared_from_this());
  std::unique_lock lock(mu_);
  if (closed_) {
    lock.unlock();
    return hub_->Unindex(key, shared_from_this());
  }
  const auto [it, added] = subscriptions_.try_emplace(key, Subscription{*address, {}, true, true});
  it->second.hash.reset();
  if (held.has_revision()) it->second.hash = held.hash();
  it->second.confirm = true;
  if (added || !it->second.dirty) dirty_.push_back(key);
  it->second.dirty = true;
  // Adding and dropping the same address leaves keys behind: they stay in proportion.
  if (dirty_.size() <= 2 * subscriptions_.size() + kBatchMost) return;
  dirty_.clear();
  for (const auto& [each, subscription] : subscriptions_)
    if (subscription.dirty) dirty_.push_back(each);
}

void SubscriberState::Refuse(const std::string& address, const Status& status) {
  ++ground_->counts.refused;
  pb::RefusedAddress refused;
  refused.set_address(address.substr(0, limits::kAddressBytes));
  ToWire(status, refused.mutable_refusal());
  std::lock_guard lock(mu_);
  refused_.push_back(std::move(refused));
}

void SubscriberState::MarkDirty(const std::string& key) {
  {
    std::lock_guard lock(mu_);
    const auto it = subscriptions_.find(key);
    if (it == subscriptions_.end() || it->second.dirty) return;
    it->second.dirty = true;
    dirty_.push_back(key);
  }
  Wake();
}

void SubscriberState::Wake() {
  {
    std::lock_guard lock(mu_);
    if (woken_ || closed_) return;
    woken_ = true;
  }
  gate.Wake();
}

std::vector<SubscriberState::Due> SubscriberState::TakeDue() {
  std::vector<Due> due;
  while (!dirty_.empty() && due.size() < batch_) {
    const auto it = subscriptions_.find(dirty_.front());
    dirty_.pop_front();
    if (it == subscriptions_.end() || !it->second.dirty) continue;
    Subscription& subscription = it->second;
    subscription.dirty = false;
    due.push_back({it->first, subscription.address, subscription.hash,
                   std::exchange(subscription.confirm, false)});
  }
  return due;
}

void SubscriberState::PutBack(const std::vector<Due>& due, size_t from) {
  for (size_t i = due.size(); i-- > from;) {
    const auto it = subscriptions_.find(due[i].key);
    if (it == subscriptions_.end()) continue;
    it->second.confirm = it->second.confirm || due[i].confirm;
    if (std::exchange(it->second.dirty, true)) continue;
    dirty_.push_front(due[i].key);
  }
}

SubscriberState::Packed SubscriberState::Pack(const std::vector<Due>& due) {
  using Response = pb::SubscribeResponse;
  Packed out;
  std::vector<Address> addresses;
  for (const Due& one : due) addresses.push_back(one.address);
  std::vector<Match> matches;
  const auto at = ground_->view.Resolve(addresses, &matches);
  if (!at.ok()) return out;  // all are put back; the next tick tries again
  const uint64_t age = ground_->AgeMs();
  bool confirmed = false;
  for (; out.taken < due.size(); ++out.taken) {
    const Due& one = due[out.taken];
    const Match& match = matches[out.taken];
    const bool equal = one.hash == match.hash;
    const size_t bytes =
        equal ? one.address.text().size() + 8 : AnswerBytesAtMost(one.address, match);
    if (out.message.size() + bytes + kMarkBytes > limits::kPushBytes) break;
    if (!equal) {
      AppendAnswer(Response::kAnswersFieldNumber, one.address, match, *at, age, &out.message);
      out.sent.emplace_back(one.key, match.hash);
    } else if (one.confirm) {
      AppendField(Response::kConfirmedFieldNumber, one.address.text(), &out.message);
      confirmed = true;
    }
  }
  if (confirmed) {
    pb::Revision revision;
    ToWire(*at, &revision);
    AppendField(Response::kConfirmedAtFieldNumber, revision.SerializeAsString(), &out.message);
  }
  return out;
}

bool SubscriberState::AppendMark(Revision marked, std::string* message) {
  const bool clean = dirty_.empty();
  // The first message names its source; with answers still due its mark confirms nothing.
  if (!first_ && !(mark_due_ && clean)) return false;
  pb::SubscribeResponse::Mark mark;
  ToWire(clean ? marked : Revision{marked.epoch, 0}, mark.mutable_revision());
  mark.set_age_ms(ground_->AgeMs());
  if (first_) *mark.mutable_source() = ground_->source;
  first_ = false;
  if (clean) {
    mark_due_ = false;
    marked_at_ = ground_->now();
  }
  AppendField(pb::SubscribeResponse::kMarkFieldNumber, mark.SerializeAsString(), message);
  return true;
}

std::optional<std::string> SubscriberState::Next() {
  std::lock_guard one_at_a_time(next_mu_);
  std::vector<Due> due;
  while (true) {
    // Before the dirty set is looked at: what is marked later is newer than this.
    const Revision marked = hub_->published();
    std::string refused;
    {
      std::lock_guard lock(mu_);
      woken_ = false;
      if (closed_) return std::nullopt;
      due = TakeDue();
      size_t count = 0;
      for (; count < refused_.size() && refused.size() + kMarkBytes * 4 < limits::kPushBytes / 2;
           ++count)
        AppendField(pb::SubscribeResponse::kRefusedFieldNumber, refused_[count].SerializeAsString(),
                    &refused);
      refused_.erase(refused_.begin(), refused_.begin() + count);
    }
    Packed packed;
    if (!due.empty() && refused.empty()) packed = Pack(due);
    if (packed.taken < due.size() && refused.empty())
      batch_ = std::max(kBatchLeast, packed.taken + 1);
    else
      batch_ = std::min(kBatchMost, batch_ * 2);
    std::lock_guard lock(mu_);
    const bool failed = !due.empty() && packed.taken == 0 && refused.empty();
    PutBack(due, packed.taken);
    for (const auto& [key, hash] : packed.sent) {
      const auto it = subscriptions_.find(key);
      // Added again meanwhile: what the client said then counts.
      if (it != subscriptions_.end() && !it->second.confirm) it->second.hash = hash;
    }
    std::string message = std::move(packed.message);
    message += refused;
    AppendMark(marked, &message);
    ground_->counts.pushes += packed.sent.size();
    if (!message.empty()) return message;
    if (dirty_.empty() || failed) return std::nullopt;
  }
}

void SubscriberState::Tick(BootTime now) {
  {
    std::lock_guard lock(mu_);
    if (!mark_due_ && now - marked_at_ >= limits::kMarkEvery) mark_due_ = true;
    if (!mark_due_) return;
  }
  Wake();
}

void SubscriberState::Close() {
  std::vector<std::string> keys;
  {
    std::lock_guard lock(mu_);
    closed_ = true;
    for (const auto& [key, subscription] : subscriptions_) keys.push_back(key);
    subscriptions_.clear();
    dirty_.clear();
  }
  hub_->Remove(shared_from_this(), keys);
}

}  // namespace datawire::directory
