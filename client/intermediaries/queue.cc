#include "queue.h"

#include <algorithm>

namespace datawire::intermediaries {
namespace {

constexpr size_t kBatch = 512;                         // stored with one sync
constexpr std::chrono::milliseconds kStoreAgain{200};  // after a failure, or full

Verdict VerdictOf(const DeliveryOutcome& outcome) {
  Verdict verdict{Verdict::Kind::kReleased, outcome.condition, outcome.description};
  if (outcome.end == DeliveryEnd::kAccepted) verdict.kind = Verdict::Kind::kAccepted;
  if (outcome.end == DeliveryEnd::kRejected) verdict.kind = Verdict::Kind::kRejected;
  if (outcome.end == DeliveryEnd::kOutcomeUnknown) verdict.kind = Verdict::Kind::kFailed;
  return verdict;
}

proton::message Decoded(const std::vector<char>& encoded) {
  proton::message message;
  message.decode(encoded);
  return message;
}

}  // namespace

Queue::Queue(std::unique_ptr<QueueStore> store, Options options, Sender* push, Sender* dead_letters,
             std::function<void(const std::string&)> tell)
    : store_(std::move(store)),
      options_(std::move(options)),
      push_(push),
      dead_letters_(dead_letters),
      tell_(std::move(tell)),
      core_({options_.tries}) {}

Result<std::unique_ptr<Queue>> Queue::Open(std::unique_ptr<QueueStore> store, Options options,
                                           Sender* push, Sender* dead_letters,
                                           std::function<void(const std::string&)> tell) {
  std::unique_ptr<Queue> queue(
      new Queue(std::move(store), std::move(options), push, dead_letters, std::move(tell)));
  Status broken;
  DW_RETURN_IF_ERROR(queue->store_->Load([&](uint64_t number, const std::vector<char>& encoded) {
    try {
      queue->core_.Add(number, 0, ExpiryOf(Decoded(encoded)));
      queue->next_number_ = number + 1;
    } catch (const std::exception& e) {
      broken = {Code::kCorrupt,
                "message " + std::to_string(number) + " of the queue's store is none: " + e.what()};
    }
  }));
  DW_RETURN_IF_ERROR(broken);
  queue->NoteFigures();
  queue->turns_.Start([raw = queue.get()] { return raw->Turn(); });
  return queue;
}

Queue::~Queue() {
  Stop();
}

Handler Queue::handler() {
  return [this](Exchange exchange) {
    turns_.Note([&] {
      if (!closed_) came_.push_back(std::move(exchange));  // else it is released
    });
  };
}

Feed Queue::feed() {
  return {.attached =
              [this](const std::shared_ptr<Outlet>& outlet) {
                turns_.Note([&] { outlets_.push_back(outlet); });
              },
          .credit = [this](const std::shared_ptr<Outlet>&) { turns_.Note([] {}); },
          .detached =
              [this](const std::shared_ptr<Outlet>& outlet) {
                turns_.Note([&] { std::erase(outlets_, outlet); });
              }};
}

void Queue::TakeNoMore() {
  turns_.Note([this] { closed_ = true; });
}

void Queue::Stop() {
  TakeNoMore();
  turns_.Stop();
  Settle();  // what was accepted until now is removed
}

std::optional<BootTime> Queue::Turn() {
  const BootTime now = BootClock::now();
  core_.Wake(now);
  Settle();
  Store();
  GiveOut();
  NoteFigures();
  const std::optional<BootTime> next = core_.NextWake();
  if (taken_.empty()) return next;
  if (!failing_ && core_.depth() < options_.depth) return now;  // the next batch
  // Full: those whose senders have gone are let go of.
  return std::min(next.value_or(BootTime::max()), now + kStoreAgain);
}

void Queue::Store() {
  const bool closed = turns_.Look([this] {
    std::move(came_.begin(), came_.end(), std::back_inserter(taken_));
    came_.clear();
    return closed_;
  });
  if (closed) taken_.clear();  // released
  std::erase_if(taken_, [](const Exchange& exchange) { return exchange.abandoned(); });
  const size_t depth = core_.depth();
  const size_t room = depth < options_.depth ? options_.depth - depth : 0;
  if (options_.reject && room < taken_.size()) {
    for (auto it = taken_.begin() + static_cast<ptrdiff_t>(room); it != taken_.end(); ++it) {
      it->Reject("the queue is full: " + std::to_string(options_.depth) + " messages");
      ++figures_.refused;
    }
    taken_.erase(taken_.begin() + static_cast<ptrdiff_t>(room), taken_.end());
  }
  const size_t count = std::min({room, taken_.size(), kBatch});
  if (count == 0) return;
  std::vector<QueueStore::Message> batch;
  std::vector<BootTime> expiries;
  for (size_t i = 0; i < count; ++i) {
    const proton::message& message = taken_[i].message();
    batch.push_back({next_number_ + i, message.encode()});
    expiries.push_back(ExpiryOf(message));
  }
  if (const Status status = store_->Append(batch); !status.ok()) {
    if (!std::exchange(failing_, true)) tell_(status.message() + "; nothing is taken until it can");
    return;  // it is held, and no more credit is given
  }
  if (std::exchange(failing_, false)) tell_("the store takes messages again");
  for (size_t i = 0; i < count; ++i) {
    core_.Add(next_number_++, 0, expiries[i]);
    taken_.front().Accept();
    taken_.pop_front();
  }
  figures_.stored += count;
}

void Queue::Settle() {
  std::vector<Settled> settled;
  turns_.Look([&] { settled.swap(settled_); });
  const BootTime now = BootClock::now();
  for (Settled& one : settled) {
    if (one.pushed) --pushed_;
    if (one.dead) {
      if (one.verdict.kind != Verdict::Kind::kAccepted) {
        core_.Back(one.number, now);
        continue;
      }
      core_.Buried(one.number);
      ++figures_.dead;
      done_.push_back(one.number);
      continue;
    }
    switch (core_.Settled(one.number, one.verdict, now)) {
      case QueueCore::Fate::kDone:
        ++figures_.accepted;
        done_.push_back(one.number);
        break;
      case QueueCore::Fate::kWaits:
        ++figures_.again;
        break;
      case QueueCore::Fate::kDead:
        Bury(one.number,
             one.verdict.description.empty() ? one.verdict.condition : one.verdict.description);
        break;
    }
  }
  while (const auto expired = core_.TakeExpired(now)) Bury(*expired, "its time to live passed");
  if (done_.empty()) return;
  if (const Status status = store_->Remove(done_); status.ok()) done_.clear();  // else again
}

/// To the dead letters, or away.
void Queue::Bury(uint64_t number, const std::string& reason) {
  const auto encoded = store_->Get(number);
  if (!encoded.ok()) {
    tell_(encoded.status().message());
    return core_.Back(number, BootClock::now());
  }
  if (!dead_letters_) {
    core_.Buried(number);
    ++figures_.discarded;
    done_.push_back(number);
    return;
  }
  const proton::message message = Decoded(*encoded);
  dead_letters_->Send(
      DeadLetter(message, options_.address, reason),
      {.done = [this, number](const DeliveryOutcome& outcome) {
        turns_.Note([&] { settled_.push_back({number, VerdictOf(outcome), true}); });
      }});
}

/// The next consumer, in turn, that has credit.
std::shared_ptr<Outlet> Queue::Choose() {
  return turns_.Look([this]() -> std::shared_ptr<Outlet> {
    for (size_t i = 0; i < outlets_.size(); ++i) {
      const auto& outlet = outlets_[++turn_ % outlets_.size()];
      if (outlet->credit() > 0) return outlet;
    }
    return nullptr;
  });
}

void Queue::GiveOut() {
  while (true) {
    const std::shared_ptr<Outlet> to = Choose();
    if (!to && !(push_ && pushed_ < options_.window)) return;
    const auto next = core_.Take();
    if (!next) return;
    Give(*next, to);
  }
}

void Queue::Give(const QueueCore::Next& next, const std::shared_ptr<Outlet>& to) {
  const auto encoded = store_->Get(next.number);
  if (!encoded.ok()) {
    tell_(encoded.status().message());
    return core_.Back(next.number, BootClock::now());
  }
  ++figures_.given;
  proton::message message = Decoded(*encoded);
  const auto settled = [this, number = next.number](Verdict verdict, bool pushed) {
    turns_.Note([&] { settled_.push_back({number, std::move(verdict), false, pushed}); });
  };
  if (to) {
    return to->Give(message, next.deliveries,
                    [settled](const Verdict& verdict) { settled(verdict, false); });
  }
  ++pushed_;
  message.delivery_count(message.delivery_count() + next.deliveries);
  push_->Send(message, {.done = [settled](const DeliveryOutcome& outcome) {
                settled(VerdictOf(outcome), true);
              }});
}

void Queue::NoteFigures() {
  figures_.depth = core_.depth();
  figures_.out = core_.out();
  figures_.held = taken_.size();
  figures_.consumers = turns_.Look([this] { return outlets_.size(); });
}

}  // namespace datawire::intermediaries
