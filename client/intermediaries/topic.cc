#include "topic.h"

#include <algorithm>

namespace datawire::intermediaries {
namespace {

Verdict VerdictOf(const DeliveryOutcome& outcome) {
  Verdict verdict{Verdict::Kind::kLost, outcome.condition, outcome.description};
  if (outcome.end == DeliveryEnd::kAccepted) verdict.kind = Verdict::Kind::kAccepted;
  if (outcome.end == DeliveryEnd::kRejected) verdict.kind = Verdict::Kind::kRejected;
  return verdict;
}

}  // namespace

Topic::Topic(Options options, std::vector<Sender*> targets) : options_(options) {
  for (Sender* target : targets) subscribers_[next_++].target = target;
  figures_.subscribers = subscribers_.size();
  turns_.Start([this] { return Turn(); });
}

Topic::~Topic() {
  Stop();
}

Handler Topic::handler() {
  return [this](Exchange exchange) {
    turns_.Note([&] {
      if (!closed_) came_.push_back(std::move(exchange));  // else it is released
    });
  };
}

Feed Topic::feed() {
  return {.attached =
              [this](const std::shared_ptr<Outlet>& outlet) {
                turns_.Note([&] { attached_.push_back(outlet); });
              },
          .credit = [this](const std::shared_ptr<Outlet>&) { turns_.Note([] {}); },
          .detached =
              [this](const std::shared_ptr<Outlet>& outlet) {
                turns_.Note([&] { gone_.push_back(outlet); });
              }};
}

void Topic::TakeNoMore() {
  turns_.Note([this] { closed_ = true; });
}

void Topic::Stop() {
  TakeNoMore();
  turns_.Stop();
}

std::optional<BootTime> Topic::Turn() {
  TakeEvents();
  const BootTime now = BootClock::now();
  CutOffTheSlow(now);
  for (auto& [id, subscriber] : subscribers_) HandOut(id, subscriber, now);
  uint64_t waiting = 0;
  for (const auto& [id, subscriber] : subscribers_)
    waiting = std::max<uint64_t>(waiting, subscriber.waiting.size() + subscriber.out.size());
  figures_.waiting = waiting;
  figures_.subscribers = subscribers_.size();
  return NextWake();
}

void Topic::TakeEvents() {
  std::vector<Exchange> came;
  std::vector<Settled> settled;
  std::vector<std::shared_ptr<Outlet>> attached, gone;
  turns_.Look([&] {
    came.swap(came_);
    settled.swap(settled_);
    attached.swap(attached_);
    gone.swap(gone_);
  });
  const BootTime now = BootClock::now();
  for (Settled& one : settled) Hear(one, now);
  for (auto& outlet : attached) subscribers_[next_++].outlet = std::move(outlet);
  for (const auto& outlet : gone) {
    const auto it = std::find_if(subscribers_.begin(), subscribers_.end(),
                                 [&](const auto& s) { return s.second.outlet == outlet; });
    if (it != subscribers_.end()) Drop(it->first);
  }
  for (Exchange& exchange : came) Publish(std::move(exchange), now);
}

void Topic::Publish(Exchange exchange, BootTime now) {
  ++figures_.published;
  if (subscribers_.empty()) {
    ++figures_.unheard;
    return exchange.Accept();
  }
  const auto message = std::make_shared<Published>(std::move(exchange));
  message->left = subscribers_.size();
  message->since = now;
  for (auto& [id, subscriber] : subscribers_) subscriber.waiting.push_back({message, now, 0});
}

void Topic::HandOut(uint64_t id, Subscriber& subscriber, BootTime now) {
  while (!subscriber.waiting.empty() && subscriber.waiting.front().not_before <= now) {
    if (subscriber.outlet && subscriber.outlet->credit() == 0) return;
    Subscriber::Waiting next = std::move(subscriber.waiting.front());
    subscriber.waiting.pop_front();
    const uint64_t number = next_++;
    const proton::message& message = next.message->input.message();
    const auto settled = [this, id, number](Verdict verdict) {
      turns_.Note([&] { settled_.push_back({id, number, std::move(verdict)}); });
    };
    ++figures_.given;
    const auto& kept = subscriber.out.emplace(number, std::move(next)).first->second;
    if (subscriber.outlet) {
      subscriber.outlet->Give(message, kept.deliveries, settled);
    } else {
      subscriber.target->Send(
          message, {.deadline = options_.slow, .done = [settled](const DeliveryOutcome& outcome) {
                      settled(VerdictOf(outcome));
                    }});
    }
  }
}

void Topic::Hear(Settled& settled, BootTime now) {
  const auto it = subscribers_.find(settled.subscriber);
  if (it == subscribers_.end()) return;
  auto node = it->second.out.extract(settled.number);
  if (!node) return;
  Subscriber::Waiting& one = node.mapped();
  const Verdict::Kind kind = settled.verdict.kind;
  if (kind == Verdict::Kind::kReleased || kind == Verdict::Kind::kFailed) {
    if (kind == Verdict::Kind::kFailed) ++one.deliveries;
    one.not_before = now + limits::kPauseLeast;
    it->second.waiting.push_front(std::move(one));
    return;
  }
  ++(kind == Verdict::Kind::kLost ? figures_.missed : figures_.accepted);
  Done(one.message);
}

void Topic::Done(const Shared& message) {
  if (--message->left == 0) message->input.Accept();
}

void Topic::Drop(uint64_t id) {
  auto node = subscribers_.extract(id);
  Subscriber& subscriber = node.mapped();
  figures_.missed += subscriber.waiting.size() + subscriber.out.size();
  for (const auto& one : subscriber.waiting) Done(one.message);
  for (const auto& [number, one] : subscriber.out) Done(one.message);
}

void Topic::CutOffTheSlow(BootTime now) {
  std::vector<uint64_t> slow;
  for (const auto& [id, subscriber] : subscribers_) {
    if (!subscriber.outlet) continue;  // a target's messages have a deadline
    bool late = !subscriber.waiting.empty() &&
                now - subscriber.waiting.front().message->since >= options_.slow;
    for (const auto& [number, one] : subscriber.out)
      late |= now - one.message->since >= options_.slow;
    if (late) slow.push_back(id);
  }
  for (const uint64_t id : slow) {
    subscribers_.at(id).outlet->Close(
        "amqp:resource-limit-exceeded",
        "a message was not settled within " + std::to_string(options_.slow.count()) + " ms");
    ++figures_.cut_off;
    Drop(id);
  }
}

std::optional<BootTime> Topic::NextWake() const {
  std::optional<BootTime> next;
  const auto at = [&next](BootTime time) { next = std::min(next.value_or(time), time); };
  for (const auto& [id, subscriber] : subscribers_) {
    if (!subscriber.outlet) continue;
    if (!subscriber.waiting.empty()) {
      const auto& first = subscriber.waiting.front();
      at(first.message->since + options_.slow);
      if (first.not_before > BootClock::now()) at(first.not_before);
    }
    for (const auto& [number, one] : subscriber.out) at(one.message->since + options_.slow);
  }
  return next;
}

}  // namespace datawire::intermediaries
