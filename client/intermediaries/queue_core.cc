#include "queue_core.h"

#include <algorithm>

#include "datawire/limits.h"

namespace datawire::intermediaries {

void QueueCore::Add(Number number, uint32_t deliveries, BootTime expires) {
  ready_.emplace(number, Entry{deliveries, 0, expires});
  if (expires != BootTime::max()) expiries_.emplace(expires, number);
}

void QueueCore::Wake(BootTime now) {
  while (!waiting_.empty() && waiting_.begin()->first <= now) {
    ready_.insert(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
  }
}

std::optional<QueueCore::Next> QueueCore::Take() {
  if (ready_.empty()) return std::nullopt;
  auto node = ready_.extract(ready_.begin());
  const Next next{node.key(), node.mapped().deliveries};
  out_.emplace(node.key(), node.mapped());
  return next;
}

QueueCore::Fate QueueCore::Settled(Number number, const Verdict& verdict, BootTime now) {
  const auto it = out_.find(number);
  if (it == out_.end()) return Fate::kWaits;
  Entry& entry = it->second;
  switch (verdict.kind) {
    case Verdict::Kind::kAccepted:
      out_.erase(it);
      return Fate::kDone;
    case Verdict::Kind::kRejected:
      return Fate::kDead;
    case Verdict::Kind::kReleased:
      break;
    case Verdict::Kind::kFailed:
      if (++entry.deliveries >= options_.tries && options_.tries > 0) return Fate::kDead;
      break;
    case Verdict::Kind::kLost: {  // its consumer died: another one may have it at once
      if (++entry.deliveries >= options_.tries && options_.tries > 0) return Fate::kDead;
      if (entry.expires <= now) expiries_.emplace(entry.expires, number);
      ready_.emplace(number, entry);
      out_.erase(it);
      return Fate::kWaits;
    }
  }
  Back(number, now);
  return Fate::kWaits;
}

void QueueCore::Back(Number number, BootTime now) {
  auto node = out_.extract(number);
  if (!node) return;
  Entry& entry = node.mapped();
  const auto pause = limits::kPauseLeast * (int64_t{1} << std::min(entry.pauses++, 10u));
  waiting_.emplace(now + std::min(pause, limits::kPauseMost), std::pair(number, entry));
  // One that expired while it was out.
  if (entry.expires <= now) expiries_.emplace(entry.expires, number);
}

std::optional<QueueCore::Number> QueueCore::TakeExpired(BootTime now) {
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    const Number number = expiries_.begin()->second;
    expiries_.erase(expiries_.begin());
    if (auto node = ready_.extract(number)) {
      out_.emplace(number, node.mapped());
      return number;
    }
    const auto waits = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const auto& w) { return w.second.first == number; });
    if (waits == waiting_.end()) continue;
    out_.emplace(number, waits->second.second);
    waiting_.erase(waits);
    return number;
  }
  return std::nullopt;
}

std::optional<BootTime> QueueCore::NextWake() const {
  std::optional<BootTime> next;
  if (!waiting_.empty()) next = waiting_.begin()->first;
  if (!expiries_.empty()) next = std::min(next.value_or(BootTime::max()), expiries_.begin()->first);
  return next;
}

}  // namespace datawire::intermediaries
