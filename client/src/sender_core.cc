#include "sender_core.h"

#include <algorithm>

#include "datawire/assert.h"

namespace datawire {
namespace {

using std::chrono::milliseconds;

milliseconds Doubled(milliseconds least, milliseconds most, uint32_t times) {
  return std::min(most, least * (int64_t{1} << std::min(times, 16u)));
}

constexpr const char* kTimeToLivePassed = "its time to live passed";

constexpr auto kLater = std::greater<std::pair<BootTime, SenderCore::MessageId>>();

}  // namespace

SenderCore::Peer* SenderCore::PeerOf(LinkId link) {
  const auto it = links_.find(link);
  return it == links_.end() ? nullptr : it->second;
}

SenderCore::Message* SenderCore::OnLink(LinkId link, MessageId id) {
  Peer* peer = PeerOf(link);
  const auto it = messages_.find(id);
  if (!peer || it == messages_.end()) return nullptr;
  Message& message = it->second;
  return message.where == Where::kOnLink && message.peer == peer ? &message : nullptr;
}

void SenderCore::AnswerChanged(std::shared_ptr<const Answer> answer, BootTime now) {
  // A failure to know changes nothing of what is known.
  if (answer->status == AnswerStatus::kUnavailable && answer_) return;
  answer_ = std::move(answer);
  health_.Listed(answer_->endpoints, now);
  for (auto& [url, peer] : peers_) peer.listed = false;
  for (const Endpoint& endpoint : answer_->endpoints) {
    Peer& peer = peers_.try_emplace(endpoint.url.text(), endpoint).first->second;
    peer.endpoint = endpoint;
    peer.listed = true;
  }
  for (auto it = peers_.begin(); it != peers_.end();) {
    Peer& peer = it->second;
    // Its link works on: as good as a suspect one, so used when no other is up.
    if (!peer.listed) peer.endpoint.state = EndpointState::kSuspect;
    it = peer.listed || peer.link ? std::next(it) : peers_.erase(it);
  }
}

void SenderCore::Give(MessageId id, std::string key, BootTime deadline, BootTime expires,
                      size_t bytes) {
  Message& message = messages_[id];
  message.key = std::move(key);
  message.deadline = deadline;
  message.expires = expires;
  message.bytes = bytes;
  live_bytes_ += bytes;
  queue_.push_back(id);
  if (deadlines_.size() > 3 * messages_.size() + 64) {
    std::erase_if(deadlines_, [this](const auto& d) { return !messages_.contains(d.second); });
    std::make_heap(deadlines_.begin(), deadlines_.end(), kLater);
  }
  WakeAt(deadline, id);
  if (expires < deadline) WakeAt(expires, id);
}

void SenderCore::WakeAt(BootTime at, MessageId id) {
  deadlines_.emplace_back(at, id);
  std::push_heap(deadlines_.begin(), deadlines_.end(), kLater);
}

void SenderCore::Cancel(MessageId id) {
  if (messages_.contains(id)) EndUnsettled(id, "cancelled");
}

bool SenderCore::DropOldest(const std::string& reason) {
  std::optional<MessageId> oldest;
  const auto look = [&](MessageId id, Where where) {
    const auto it = messages_.find(id);
    if (it == messages_.end() || it->second.where != where) return false;
    if (!oldest || id < *oldest) oldest = id;
    return true;
  };
  for (auto it = queue_.begin(); it != queue_.end() && !look(*it, Where::kQueued);) ++it;
  for (auto it = waiting_.begin(); it != waiting_.end() && !look(it->second, Where::kWaiting);)
    ++it;
  if (oldest) EndUnsettled(*oldest, reason);
  return oldest.has_value();
}

void SenderCore::LinkOpened(LinkId link) {
  Peer* peer = PeerOf(link);
  if (!peer || peer->link->open) return;
  peer->link->open = true;
  ++counters_.links_opened;
}

void SenderCore::Credit(LinkId link, uint64_t granted) {
  if (Peer* peer = PeerOf(link)) peer->link->granted = granted;
}

void SenderCore::Written(LinkId link, MessageId id, BootTime now) {
  Message* message = OnLink(link, id);
  if (!message) return;
  --message->peer->link->unsettled;
  Worked(*message->peer, now);
  End(id, DeliveryEnd::kAccepted, "", "");
}

void SenderCore::Bounced(LinkId link, MessageId id) {
  if (Peer* peer = PeerOf(link)) --peer->link->assigned;  // also when the message has ended
  Message* message = OnLink(link, id);
  if (!message) return;
  --message->peer->link->unsettled;
  --message->attempts;
  Requeue({id});
}

void SenderCore::Settled(LinkId link, MessageId id, const Outcome& outcome, BootTime now) {
  Message* message = OnLink(link, id);
  if (!message) return;
  Peer& peer = *message->peer;
  --peer.link->unsettled;
  peer.link->last_used = now;
  const bool failed = outcome.kind == Outcome::Kind::kModified && outcome.failed;
  if (failed)
    Failed(peer, EndpointHealth::Failure::kTask, "it modified a message as failed", now);
  else
    Worked(peer, now);
  if (outcome.kind == Outcome::Kind::kAccepted) {
    End(id, DeliveryEnd::kAccepted, "", "");
  } else if (outcome.kind == Outcome::Kind::kRejected) {
    End(id, DeliveryEnd::kRejected, outcome.condition, outcome.description);
  } else {
    GiveBack(id, *message, outcome);
  }
}

/// Released or modified: to somebody else now; Assign lets it pause when there is nobody else.
void SenderCore::GiveBack(MessageId id, Message& message, const Outcome& outcome) {
  const bool modified = outcome.kind == Outcome::Kind::kModified;
  message.last_reason = (modified ? "modified by " : "released by ") + message.last_peer;
  if (modified && !options_.again) {
    return End(id, DeliveryEnd::kOutcomeUnknown, "", message.last_reason);
  }
  if (modified && outcome.failed) {
    ++message.redelivered;
    message.maybe_done = true;
  }
  message.avoid.push_back(message.last_peer);
  Requeue({id});
}

void SenderCore::Requeue(std::vector<MessageId> ids) {
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    Message& message = messages_.at(*id);
    message.where = Where::kQueued;
    message.peer = nullptr;
    queue_.push_front(*id);
    if (message.expires < message.deadline) WakeAt(message.expires, *id);
  }
}

void SenderCore::LinkLost(LinkId link, std::string condition, std::string description,
                          BootTime now) {
  Peer* peer = PeerOf(link);
  if (!peer) return;
  const bool opened = peer->link->open;
  const bool used = peer->link->unsettled > 0 || !queue_.empty();
  // Whoever says no says it before a connect would be given up.
  const bool refused = !opened && now - peer->link->since < limits::kConnect;
  links_.erase(link);
  peer->link.reset();
  if (opened) ++counters_.links_lost;
  if (used || !opened) {  // an idle one that was cut reopens on use
    using Failure = EndpointHealth::Failure;
    Failed(*peer, refused ? Failure::kRefused : Failure::kLost, description, now);
  }
  last_condition_ = std::move(condition);
  last_failure_ = peer->endpoint.url.text() + ": " + description;

  std::vector<MessageId> again;
  for (auto& [id, message] : messages_) {
    if (message.where == Where::kOnLink && message.peer == peer) again.push_back(id);
  }
  std::sort(again.begin(), again.end());
  std::vector<MessageId> ended;
  for (const MessageId id : again) {
    Message& message = messages_.at(id);
    message.last_reason = last_failure_;
    if (options_.presettled) {  // not written yet
      --message.attempts;
      continue;
    }
    message.maybe_done = true;
    ++message.redelivered;
    if (!options_.again) ended.push_back(id);
  }
  if (options_.again || options_.presettled) {
    Requeue(std::move(again));
  } else {
    for (const MessageId id : ended) {
      End(id, DeliveryEnd::kOutcomeUnknown, last_condition_, "the link was lost: " + last_failure_);
    }
  }
  if (!peer->listed) peers_.erase(peer->endpoint.url.text());
}

void SenderCore::Failed(Peer& peer, EndpointHealth::Failure how, const std::string& why,
                        BootTime now) {
  peer.failed = true;
  const std::string& url = peer.endpoint.url.text();
  const std::optional<milliseconds> out = health_.Failed(url, how, now);
  if (!out) return;
  ++counters_.ejections;
  actions_.emplace_back(Ejected{url, *out, why});
}

void SenderCore::Worked(Peer& peer, BootTime now) {
  if (std::exchange(peer.failed, false)) health_.Worked(peer.endpoint.url.text(), now);
}

void SenderCore::End(MessageId id, DeliveryEnd end, std::string condition,
                     std::string description) {
  const auto it = messages_.find(id);
  DW_ASSERT(it != messages_.end());
  switch (end) {
    case DeliveryEnd::kAccepted:
      ++counters_.accepted;
      break;
    case DeliveryEnd::kRejected:
      ++counters_.rejected;
      break;
    case DeliveryEnd::kNotSent:
      ++counters_.not_sent;
      break;
    case DeliveryEnd::kOutcomeUnknown:
      ++counters_.unknown;
      break;
  }
  DeliveryOutcome outcome{end, std::move(condition), std::move(description),
                          std::move(it->second.last_peer), it->second.attempts};
  const size_t bytes = it->second.bytes;
  live_bytes_ -= bytes;
  messages_.erase(it);
  actions_.emplace_back(Finish{id, std::move(outcome), bytes});
}

/// What is known about a message that nobody settled for good.
void SenderCore::EndUnsettled(MessageId id, const std::string& reason) {
  Message& message = messages_.at(id);
  if (message.where == Where::kOnLink) {
    Link& link = *message.peer->link;
    --link.unsettled;
    actions_.emplace_back(Forget{link.id, id});
    return End(id, DeliveryEnd::kOutcomeUnknown, "",
               reason + "; sent to " + message.last_peer + ", not settled");
  }
  if (message.maybe_done) {
    return End(id, DeliveryEnd::kOutcomeUnknown, "", reason + "; last: " + message.last_reason);
  }
  auto [condition, why] = WhyUnsent();
  if (!message.last_reason.empty()) why = message.last_reason;
  End(id, DeliveryEnd::kNotSent, std::move(condition), reason + ": " + why);
}

std::pair<std::string, std::string> SenderCore::WhyUnsent() const {
  const auto condition = [](Code code) { return std::string(MappingOf(code).amqp_condition); };
  if (!answer_ || answer_->status == AnswerStatus::kUnavailable) {
    return {condition(Code::kUnavailable),
            no_answer_.empty() ? "the address could not be resolved" : no_answer_};
  }
  if (answer_->status == AnswerStatus::kNotFound) {
    return {condition(Code::kNotFound), answer_->address.text() + " is not registered"};
  }
  if (!last_failure_.empty()) return {last_condition_, last_failure_};
  if (answer_->status == AnswerStatus::kNoEndpoint) {
    return {condition(Code::kUnavailable), answer_->address.text() + " has no endpoint that is up"};
  }
  return {condition(Code::kTimeout), "no endpoint gave credit"};
}

void SenderCore::Pump(BootTime now) {
  Expire(now);
  WakeWaiting(now);
  Choose(now);
  Assign(now);
  CloseUnused(now);
}

void SenderCore::Expire(BootTime now) {
  while (!deadlines_.empty() && deadlines_.front().first <= now) {
    const MessageId id = deadlines_.front().second;
    std::pop_heap(deadlines_.begin(), deadlines_.end(), kLater);
    deadlines_.pop_back();
    const auto it = messages_.find(id);
    if (it == messages_.end()) continue;
    const Message& message = it->second;
    if (message.deadline <= now) {
      EndUnsettled(id, "the deadline passed");
    } else if (message.expires <= now && message.where != Where::kOnLink) {
      EndUnsettled(id, kTimeToLivePassed);
    }
  }
}

void SenderCore::WakeWaiting(BootTime now) {
  std::vector<MessageId> due;
  while (!waiting_.empty() && waiting_.begin()->first <= now) {
    const MessageId id = waiting_.begin()->second;
    waiting_.erase(waiting_.begin());
    const auto it = messages_.find(id);
    if (it != messages_.end() && it->second.where == Where::kWaiting) due.push_back(id);
  }
  Requeue(std::move(due));
}

/// The endpoints that messages of this pump may go to.
void SenderCore::Choose(BootTime now) {
  chosen_.clear();
  candidates_.clear();
  std::vector<Peer*> peers;
  std::vector<const Endpoint*> endpoints;
  for (auto& [url, peer] : peers_) {
    if (!peer.listed && !(peer.link && peer.link->open)) continue;
    if (peer.endpoint.state == EndpointState::kDraining) continue;
    peers.push_back(&peer);
    endpoints.push_back(&peer.endpoint);
  }
  auto [candidates, next_back] = health_.LineUp(endpoints, now);
  next_back_ = next_back;
  for (size_t i = 0; i < peers.size(); ++i) {
    const std::optional<Link>& link = peers[i]->link;
    candidates[i].has_credit = link && link->credit();
    candidates[i].unsettled = link ? link->unsettled : 0;
  }
  if (policy() != Policy::kBalanced) {
    chosen_ = std::move(peers);
    candidates_ = std::move(candidates);
    return;
  }
  for (const size_t i : ChooseLinks(candidates, options_.links, options_.seed)) {
    chosen_.push_back(peers[i]);
    candidates_.push_back(candidates[i]);
  }
}

void SenderCore::Assign(BootTime now) {
  std::deque<MessageId> stay;
  bool used = false;
  while (!queue_.empty()) {
    const MessageId id = queue_.front();
    const auto it = messages_.find(id);
    if (it == messages_.end() || it->second.where != Where::kQueued) {
      queue_.pop_front();
      continue;
    }
    const Step step = AssignOne(id, it->second, now);
    if (step == Step::kStop) break;
    queue_.pop_front();
    used = true;
    if (step == Step::kStays) stay.push_back(id);
  }
  queue_.insert(queue_.begin(), stay.begin(), stay.end());
  // Also while the others have credit: a new endpoint gets its share only once it has a link.
  if ((queue_.empty() && !used) || policy() != Policy::kBalanced) return;
  for (Peer* peer : chosen_) Open(*peer, now);  // ChooseLinks took usable ones
}

SenderCore::Step SenderCore::AssignOne(MessageId id, Message& message, BootTime now) {
  if (message.expires <= now) {  // it came back from a link
    EndUnsettled(id, kTimeToLivePassed);
    return Step::kGone;
  }
  std::span<const Candidate> candidates = candidates_;
  std::vector<Candidate> without;
  if (!message.avoid.empty()) {
    without = candidates_;
    for (size_t i = 0; i < without.size(); ++i) {
      without[i].usable &= std::find(message.avoid.begin(), message.avoid.end(),
                                     chosen_[i]->endpoint.url.text()) == message.avoid.end();
    }
    candidates = without;
  }
  const std::optional<size_t> pick = Select(policy(), candidates, message.key, random_);
  if (!pick) {
    if (message.avoid.empty()) return Step::kStop;
    Pause(id, message, now);
    return Step::kGone;
  }
  Peer& peer = *chosen_[*pick];
  if (!peer.link) Open(peer, now);
  if (!peer.link || !peer.link->credit()) {
    const bool all_alike = policy() != Policy::kConsistent && message.avoid.empty();
    return all_alike ? Step::kStop : Step::kStays;
  }
  Link& link = *peer.link;
  ++link.assigned;
  ++link.unsettled;
  link.last_used = now;
  message.where = Where::kOnLink;
  message.peer = &peer;
  message.last_peer = peer.endpoint.url.text();
  ++(message.attempts == 0 ? counters_.sent : counters_.redelivered);
  ++message.attempts;
  candidates_[*pick].unsettled = link.unsettled;
  candidates_[*pick].has_credit = link.credit();
  const bool lives_on = message.expires == BootTime::max();
  const auto left =
      lives_on ? milliseconds(0) : std::chrono::ceil<milliseconds>(message.expires - now);
  actions_.emplace_back(Transmit{link.id, id, message.redelivered, left});
  return Step::kGone;
}

void SenderCore::Pause(MessageId id, Message& message, BootTime now) {
  message.where = Where::kWaiting;
  message.avoid.clear();
  waiting_.emplace(now + Doubled(limits::kPauseLeast, limits::kPauseMost, message.pauses++), id);
}

/// True when it has a link now, open or opening.
bool SenderCore::Open(Peer& peer, BootTime now) {
  if (peer.link) return true;
  if (!peer.listed) return false;
  if (links_.size() >= options_.links) {
    const auto rank = [this](Peer* other) {  // the chosen ones stay, if others can go
      const bool chosen = std::find(chosen_.begin(), chosen_.end(), other) != chosen_.end();
      return std::pair(chosen, other->link->last_used);
    };
    Peer* idle = nullptr;
    for (const auto& [link, other] : links_) {
      if (other->link->unsettled > 0 || !other->link->open) continue;
      if (!idle || rank(other) < rank(idle)) idle = other;
    }
    if (!idle) return false;
    Close(*idle);
  }
  peer.link = Link{.id = next_link_++, .since = now, .last_used = now};
  links_[peer.link->id] = &peer;
  actions_.emplace_back(OpenLink{peer.link->id, peer.endpoint.url,
                                 answer_->matched.value_or(answer_->address),
                                 peer.endpoint.identity});
  return true;
}

void SenderCore::Close(Peer& peer) {
  actions_.emplace_back(CloseLink{peer.link->id});
  links_.erase(peer.link->id);
  peer.link.reset();
}

void SenderCore::CloseUnused(BootTime now) {
  std::vector<LinkId> late;
  bool works = false;  // an endpoint that is chosen and listed has an open link
  for (const Peer* peer : chosen_) works |= peer->listed && peer->link && peer->link->open;
  for (auto it = peers_.begin(); it != peers_.end();) {
    Peer& peer = it->second;
    if (peer.link && !peer.link->open) {
      if (now - peer.link->since >= limits::kLinkOpen) late.push_back(peer.link->id);
    } else if (peer.link && peer.link->unsettled == 0) {
      const bool chosen = std::find(chosen_.begin(), chosen_.end(), &peer) != chosen_.end();
      const bool idle = queue_.empty() && now - peer.link->last_used >= limits::kLinkIdle;
      if (idle || (works && (!chosen || !peer.listed))) Close(peer);
    }
    it = peer.listed || peer.link ? std::next(it) : peers_.erase(it);
  }
  for (const LinkId link : late) {
    actions_.emplace_back(CloseLink{link});
    LinkLost(link, std::string(MappingOf(Code::kUnavailable).amqp_condition),
             "no answer within " + std::to_string(limits::kLinkOpen.count()) + " ms", now);
  }
  if (!late.empty()) {
    Choose(now);
    Assign(now);
  }
}

std::vector<SenderCore::MessageId> SenderCore::Abandon(const std::string& reason) {
  std::vector<MessageId> ids;
  for (const auto& [id, message] : messages_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const MessageId id : ids) EndUnsettled(id, reason);
  queue_.clear();
  waiting_.clear();
  deadlines_.clear();
  return ids;
}

void SenderCore::CloseLinks() {
  for (auto& [url, peer] : peers_) {
    if (peer.link) Close(peer);
  }
}

std::optional<BootTime> SenderCore::NextWake(BootTime now) const {
  std::optional<BootTime> next;
  const auto at = [&next, now](BootTime time) {
    time = std::max(time, now + milliseconds(1));
    if (!next || time < *next) next = time;
  };
  if (!deadlines_.empty() && !messages_.empty()) at(deadlines_.front().first);
  if (!waiting_.empty()) at(waiting_.begin()->first);
  if (!queue_.empty() && next_back_) at(*next_back_);
  for (const auto& [url, peer] : peers_) {
    if (peer.link && !peer.link->open) at(peer.link->since + limits::kLinkOpen);
    if (peer.link && peer.link->open && peer.link->unsettled == 0) {
      at(peer.link->last_used + limits::kLinkIdle);
    }
  }
  return next;
}

}  // namespace datawire
