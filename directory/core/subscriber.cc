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
constexpr size_t kListed = 64;         // rows of a subtree read at once; up to 48 KiB each

Status TooMany() {
  return {Code::kOverloaded,
          "a stream holds at most " + std::to_string(limits::kSubscriptions) + " subscriptions"};
}

}  // namespace

std::vector<std::string> WithAncestors(std::string key) {
  std::vector<std::string> out;
  for (size_t cut = key.size(); cut != std::string::npos; cut = key.rfind('\0', cut - 1))
    out.push_back(key.substr(0, cut));
  return out;
}

Status SubscriberState::OnRequest(const pb::SubscribeRequest& request) {
  UnindexEnded();
  for (const std::string& text : request.drop()) Drop(text);
  for (const std::string& text : request.drop_subtree()) DropSubtree(text);
  for (const auto& held : request.add()) Add(held);
  for (const auto& subtree : request.add_subtree()) AddSubtree(subtree);
  MutexLock lock(mu_);
  if (refused_.size() > kRefusedMost)
    return {Code::kInvalid, std::to_string(refused_.size()) + " refused addresses wait unread"};
  acknowledged_ = std::max(acknowledged_, FromWire(request.acknowledged()));
  const bool due = !dirty_.empty() || !refused_.empty() || !to_list_.empty();
  lock.unlock();
  if (due) Wake();
  return {};
}

void SubscriberState::Drop(const std::string& text) {
  const auto address = Address::Parse(text);
  if (!address.ok()) return Refuse(text, address.status());
  const std::string key = address->Key();
  bool had = false;
  {
    const MutexLock lock(mu_);
    const auto it = subscriptions_.find(key);
    if (it == subscriptions_.end()) return;
    had = std::exchange(it->second.asked, false);
    if (Covered(key))
      MakeDue(key, it->second);  // to see whether it is registered
    else
      subscriptions_.erase(it);
  }
  if (had) hub_->Unindex(key, shared_from_this());
}

void SubscriberState::Add(const pb::SubscribeRequest::Held& held) {
  const auto address = Address::Parse(held.address());
  if (!address.ok()) return Refuse(held.address(), address.status());
  const std::string key = address->Key();
  {
    const MutexLock lock(mu_);
    if (!subscriptions_.contains(key) && Full())
      return PushRefused(address->text(), TooMany(), false);
  }
  // Indexed before it is due: a change that comes after the answer was read finds it.
  hub_->Index(key, shared_from_this());
  MutexLock lock(mu_);
  if (closed_) {
    lock.unlock();
    return hub_->Unindex(key, shared_from_this());
  }
  Hold(*address, key, held);
  subscriptions_.at(key).asked = true;
}

void SubscriberState::AddSubtree(const pb::SubscribeRequest::Subtree& added) {
  const auto prefix = Address::Parse(added.prefix());
  if (!prefix.ok()) return Refuse(added.prefix(), prefix.status(), true);
  const std::string key = prefix->Key();
  bool fresh = false;
  {
    const MutexLock lock(mu_);
    fresh = !subtrees_.contains(key);
    if (fresh && Full()) return PushRefused(prefix->text(), TooMany(), true);
  }
  if (fresh) hub_->IndexSubtree(key, shared_from_this());  // before it is listed, as in Add
  MutexLock lock(mu_);
  if (closed_) {
    lock.unlock();
    return hub_->UnindexSubtree(key, shared_from_this());
  }
  if (!fresh && !subtrees_.contains(key)) return;  // just ended, which its refusal tells
  if (fresh) {
    subtrees_.emplace(key, Subtree{*prefix, ++numbers_, {}});
    to_list_.push_back(key);
  }
  for (const auto& held : added.held()) {
    const auto address = Address::Parse(held.address());
    Status refused = address.status();
    if (address.ok() && !address->IsWithin(*prefix))
      refused = {Code::kInvalid, address->text() + " is not at or below " + prefix->text()};
    if (!refused.ok()) {
      PushRefused(held.address(), refused, false);
      continue;
    }
    const std::string held_key = address->Key();
    if (!subscriptions_.contains(held_key) && Full()) {
      EndSubtreesOver(held_key);
      break;
    }
    Hold(*address, held_key, held);
  }
}

void SubscriberState::DropSubtree(const std::string& text) {
  const auto prefix = Address::Parse(text);
  if (!prefix.ok()) return Refuse(text, prefix.status(), true);
  const std::string key = prefix->Key();
  {
    const MutexLock lock(mu_);
    if (!subtrees_.contains(key)) return;
    EndSubtree(key);
  }
  hub_->UnindexSubtree(key, shared_from_this());
}

bool SubscriberState::Covered(const std::string& key) const {
  if (subtrees_.empty()) return false;
  for (const std::string& each : WithAncestors(key))
    if (subtrees_.contains(each)) return true;
  return false;
}

void SubscriberState::MakeDue(const std::string& key, Subscription& subscription) {
  if (std::exchange(subscription.dirty, true)) return;
  dirty_.push_back(key);
  // Adding and dropping the same address leaves keys behind: they stay in proportion.
  if (dirty_.size() <= 2 * subscriptions_.size() + kBatchMost) return;
  dirty_.clear();
  for (const auto& [each, one] : subscriptions_)
    if (one.dirty) dirty_.push_back(each);
}

// What the client says that it holds of this address.
void SubscriberState::Hold(const Address& address, const std::string& key,
                           const pb::SubscribeRequest::Held& held) {
  Subscription& subscription =
      subscriptions_.try_emplace(key, Subscription{address, {}}).first->second;
  subscription.hash.reset();
  if (held.has_revision()) subscription.hash = held.hash();
  subscription.confirm = true;
  MakeDue(key, subscription);
}

// An address below a subtree that is registered, or was a moment ago. False: no room.
bool SubscriberState::HoldRegistered(const Address& address, const std::string& key) {
  if (Full()) return false;
  MakeDue(key, subscriptions_.try_emplace(key, Subscription{address, {}}).first->second);
  return true;
}

void SubscriberState::EndSubtree(const std::string& key) {
  const Address prefix = subtrees_.at(key).prefix;
  subtrees_.erase(key);
  std::erase(to_list_, key);
  std::erase_if(subscriptions_, [&](const auto& entry) DW_REQUIRES(mu_) {
    return !entry.second.asked && entry.second.address.IsWithin(prefix) && !Covered(entry.first);
  });
}

// There is no room for an address below them.
void SubscriberState::EndSubtreesOver(const std::string& key) {
  for (const std::string& each : WithAncestors(key)) {
    const auto it = subtrees_.find(each);
    if (it == subtrees_.end()) continue;
    PushRefused(it->second.prefix.text(), TooMany(), true);
    EndSubtree(each);
    ended_.push_back(each);
  }
}

// Those that ended by themselves leave the hub where no other request can add them again meanwhile.
void SubscriberState::UnindexEnded() {
  std::vector<std::string> ended;
  {
    const MutexLock lock(mu_);
    ended = std::exchange(ended_, {});
    std::erase_if(
        ended, [this](const std::string& key) DW_REQUIRES(mu_) { return subtrees_.contains(key); });
  }
  for (const std::string& key : ended) hub_->UnindexSubtree(key, shared_from_this());
}

void SubscriberState::Refuse(const std::string& address, const Status& status, bool subtree) {
  const MutexLock lock(mu_);
  PushRefused(address, status, subtree);
}

void SubscriberState::PushRefused(const std::string& address, const Status& status, bool subtree) {
  ++ground_->counts.refused;
  pb::RefusedAddress refused;
  refused.set_address(address.substr(0, limits::kAddressBytes));
  refused.set_subtree(subtree);
  ToWire(status, refused.mutable_refusal());
  refused_.push_back(std::move(refused));
}

void SubscriberState::MarkDirty(const std::string& key) {
  {
    const MutexLock lock(mu_);
    const auto it = subscriptions_.find(key);
    if (it == subscriptions_.end() || it->second.dirty) return;
    MakeDue(key, it->second);
  }
  Wake();
}

void SubscriberState::MarkBelow(const Address& address) {
  const std::string key = address.Key();
  {
    const MutexLock lock(mu_);
    if (const auto it = subscriptions_.find(key); it != subscriptions_.end())
      MakeDue(key, it->second);
    else if (Covered(key) && !HoldRegistered(address, key))
      EndSubtreesOver(key);
  }
  Wake();
}

// Makes the next rows of subtrees due, up to what one message takes. False: they cannot be read
// now.
bool SubscriberState::ListSome() {
  while (true) {
    std::string key;
    std::optional<Subtree> subtree;
    {
      const MutexLock lock(mu_);
      if (to_list_.empty() || dirty_.size() >= kBatchMost) return true;
      key = to_list_.front();
      subtree = subtrees_.at(key);
    }
    const auto rows = ground_->view.Hold()->Rows(subtree->prefix, subtree->after, kListed);
    if (!rows.ok()) return false;
    const MutexLock lock(mu_);
    const auto it = subtrees_.find(key);
    if (it == subtrees_.end() || it->second.number != subtree->number) continue;
    if (rows->size() < kListed) std::erase(to_list_, key);
    for (const auto& row : *rows) {
      const std::string below = row.address.Key();
      if (!subscriptions_.contains(below) && !HoldRegistered(row.address, below)) {
        EndSubtreesOver(key);
        break;
      }
      it->second.after = below;
    }
  }
}

void SubscriberState::Wake() {
  {
    const MutexLock lock(mu_);
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
                   std::exchange(subscription.confirm, false), subscription.asked});
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
    // A policy alone is no registration.
    const bool gone = !one.asked && (match.matched != one.address || !match.row->registered);
    if (gone && !one.hash) {  // it came and went, and the client never knew
      out.gone.push_back(one.key);
      continue;
    }
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
    if (gone) out.gone.push_back(one.key);
  }
  if (confirmed) {
    pb::Revision revision;
    ToWire(*at, &revision);
    AppendField(Response::kConfirmedAtFieldNumber, revision.SerializeAsString(), &out.message);
  }
  return out;
}

bool SubscriberState::AppendMark(Revision marked, std::string* message) {
  const bool clean = dirty_.empty() && to_list_.empty();
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
  const MutexLock one_at_a_time(next_mu_);
  std::vector<Due> due;
  while (true) {
    // Before the dirty set is looked at: what is marked later is newer than this.
    const Revision marked = hub_->published();
    const bool listed = ListSome();
    std::string refused;
    {
      const MutexLock lock(mu_);
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
    const MutexLock lock(mu_);
    const bool failed = !listed || (!due.empty() && packed.taken == 0 && refused.empty());
    PutBack(due, packed.taken);
    for (const auto& [key, hash] : packed.sent) {
      const auto it = subscriptions_.find(key);
      // Added again meanwhile: what the client said then counts.
      if (it != subscriptions_.end() && !it->second.confirm) it->second.hash = hash;
    }
    for (const std::string& key : packed.gone) {
      const auto it = subscriptions_.find(key);
      if (it != subscriptions_.end() && !it->second.asked && !it->second.dirty)
        subscriptions_.erase(it);
    }
    std::string message = std::move(packed.message);
    message += refused;
    AppendMark(marked, &message);
    ground_->counts.pushes += packed.sent.size();
    if (!message.empty()) return message;
    if ((dirty_.empty() && to_list_.empty()) || failed) return std::nullopt;
  }
}

void SubscriberState::Tick(BootTime now) {
  {
    const MutexLock lock(mu_);
    if (!mark_due_ && now - marked_at_ >= limits::kMarkEvery) mark_due_ = true;
    if (!mark_due_) return;
  }
  Wake();
}

bool SubscriberState::Acknowledged(Revision at) {
  const MutexLock lock(mu_);
  return closed_ || acknowledged_ >= at;
}

void SubscriberState::Close() {
  std::vector<std::string> keys, subtrees;
  {
    const MutexLock lock(mu_);
    closed_ = true;
    for (const auto& [key, subscription] : subscriptions_)
      if (subscription.asked) keys.push_back(key);
    for (const auto& [key, subtree] : subtrees_) subtrees.push_back(key);
    subscriptions_.clear();
    subtrees_.clear();
    to_list_.clear();
    dirty_.clear();
  }
  for (const std::string& key : keys) hub_->Unindex(key, shared_from_this());
  for (const std::string& key : subtrees) hub_->UnindexSubtree(key, shared_from_this());
  UnindexEnded();
  hub_->Remove(shared_from_this());
}

}  // namespace datawire::directory
