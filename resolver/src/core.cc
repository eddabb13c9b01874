#include "core.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "datawire/limits.h"

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;

// A few hundred entries a shard at least: bounds are divided among the shards.
size_t ShardCount(size_t entries) {
  return entries >= 16 * 256 ? 16 : 1;
}

std::string_view Bool(bool value) {
  return value ? "true" : "false";
}

// A JSON string; what a server said may hold anything.
std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e ? '?' : c;
  }
  return out + '"';
}

}  // namespace

void Inbox::OnStream(StreamEvent event) {
  Post([&](Content& c) { c.streams.push_back(std::move(event)); });
}

void Inbox::OnCall(CallEvent event) {
  Post([&](Content& c) { c.calls.push_back(std::move(event)); });
}

void Inbox::Post(const std::function<void(Content&)>& fill) {
  std::lock_guard lock(mutex_);
  const bool first = content_.empty();
  fill(content_);
  if (first && !content_.empty()) some_.notify_one();
}

Inbox::Content Inbox::Take(BootTime until) {
  std::unique_lock lock(mutex_);
  while (content_.empty()) {
    const auto wait = until - BootClock::now();
    if (wait.count() <= 0) break;
    some_.wait_for(lock, std::min<std::chrono::nanoseconds>(wait, std::chrono::seconds(1)));
  }
  return std::exchange(content_, {});
}

Core::Core(DirectoryPlace place, const ResolverPolicy& policy, uint64_t seed, TlsFiles tls,
           std::function<void(const ResolverEvent&)> observer)
    : policy_(policy),
      tls_(std::move(tls)),
      observer_(std::move(observer)),
      shard_count_(ShardCount(policy.cache_entries)),
      servers_(place.servers),
      random_(seed),
      failover_(Equals(place.servers), policy, seed),
      discovery_(place, seed,
                 [inbox = inbox_](SrvReply reply) {
                   inbox->Post([&](Inbox::Content& c) { c.looked_up.push_back(std::move(reply)); });
                 }),
      budget_(policy) {
  for (size_t i = 0; i < shard_count_; i++)
    shards_[i].cache =
        std::make_unique<Cache>(policy, std::max<size_t>(1, policy.cache_entries / shard_count_),
                                policy.cache_bytes / shard_count_);
}

void Core::Start() {
  transport_ = Transport::Create(policy_.connect_timeout, tls_, inbox_);
  worker_ = std::thread([this] { Work(); });
}

void Core::Stop() {
  DW_ASSERT(worker_id_.load() != std::this_thread::get_id());  // destroyed in its own callback
  inbox_->Post([](Inbox::Content& c) { c.stop = true; });
  worker_.join();
  transport_.reset();
  for (size_t i = 0; i < shard_count_; i++) {
    std::unique_lock lock(shards_[i].mutex);
    shards_[i].left.wait(lock, [&] { return shards_[i].inside == 0; });
  }
}

std::vector<std::string> Core::servers() const {
  std::lock_guard lock(status_mutex_);
  return servers_;
}

AnswerPtr Core::Unavailable(const Address& address) const {
  auto answer = std::make_shared<Answer>(Answer{.address = address});
  answer->source = "cache";
  return answer;
}

void Core::SetError(Status status) {
  std::lock_guard lock(status_mutex_);
  last_error_ = std::move(status);
}

Status Core::LastError() {
  std::lock_guard lock(status_mutex_);
  return last_error_;
}

AnswerPtr Core::Resolve(const Address& address, const ResolveOptions& options) {
  const size_t hash = HashOf(address.text());
  Shard& shard = ShardOf(hash);
  const BootTime now = BootClock::now();
  if (AnswerPtr answer = Hit(shard, address, hash, options, now)) [[likely]]
    return answer;
  return ResolveSlowly(shard, address, hash, options, now);
}

AnswerPtr Core::Hit(Shard& shard, const Address& address, size_t hash,
                    const ResolveOptions& options, BootTime now) {
  StripedMutex::Stripe& mine = shard.mutex.mine();
  std::lock_guard lock(mine.mutex);
  AnswerPtr answer = shard.cache->Hit(address, hash, options.min_revision, now);
  if (answer) {
    mine.hits++;
    mine.negatives += answer->status == AnswerStatus::kNotFound;
  }
  return answer;
}

AnswerPtr Core::ResolveSlowly(Shard& shard, const Address& address, size_t hash,
                              const ResolveOptions& options, BootTime now) {
  Slot slot;
  Inbox::Content post;
  WaiterPtr waiter;
  std::unique_lock lock(shard.mutex);
  Found found = shard.cache->Find(address, hash, options.min_revision, now);
  AnswerPtr answer = Decide(shard, found, address, hash, options, now, true, post, waiter);
  if (waiter) {
    shard.inside++;
    waiter->done = [slot = &slot](const AnswerPtr& a) {
      std::lock_guard guard(slot->mutex);
      slot->answer = a;
      slot->some.notify_all();
    };
  }
  lock.unlock();
  PostSome(std::move(post));
  if (waiter) return WaitFor(waiter, shard, slot);
  if (answer->status == AnswerStatus::kUnavailable && worker_id_ == std::this_thread::get_id())
    SetError(
        {Code::kUnavailable, "Resolve of " + address.text() + " inside a callback cannot wait"});
  return answer;
}

void Core::Resolve(const Address& address, const ResolveOptions& options, Resolver::Callback done) {
  const size_t hash = HashOf(address.text());
  Shard& shard = ShardOf(hash);
  const BootTime now = BootClock::now();
  if (AnswerPtr answer = Hit(shard, address, hash, options, now)) return done(answer);
  Inbox::Content post;
  WaiterPtr waiter;
  AnswerPtr answer;
  {
    std::lock_guard lock(shard.mutex);
    Found found = shard.cache->Find(address, hash, options.min_revision, now);
    answer = Decide(shard, found, address, hash, options, now, false, post, waiter);
    if (waiter) waiter->done = std::move(done);
  }
  PostSome(std::move(post));
  if (!waiter) done(answer);
}

// Under the shard's mutex: the answer, or the waiter that will get it.
AnswerPtr Core::Decide(Shard& shard, Found& found, const Address& address, size_t hash,
                       const ResolveOptions& options, BootTime now, bool sync, Inbox::Content& post,
                       WaiterPtr& waiter) {
  if (found.ask) {
    post.asks.push_back(address.text());
    post.callers++;
    shard.counted.prefetches += found.kind == Found::Kind::kAnswer && !found.stale;
  }
  if (found.kind == Found::Kind::kAnswer) {
    shard.counted.hits++;
    shard.counted.stale_served += found.stale;
    shard.counted.negatives += found.answer->status == AnswerStatus::kNotFound;
    return std::move(found.answer);
  }
  const bool room = waiting_.load(std::memory_order_relaxed) < limits::kResolverWaiters;
  const bool inside = sync && worker_id_.load() == std::this_thread::get_id();
  if (found.kind == Found::Kind::kFail || !room || shard.closed || inside) {
    AnswerPtr answer = found.kind == Found::Kind::kStale && !shard.closed
                           ? shard.cache->Peek(address.text(), hash, now)
                           : nullptr;
    (answer ? shard.counted.stale_served : shard.counted.unavailable)++;
    return answer ? answer : Unavailable(address);
  }
  Flight& flight = shard.flights[address.text()];
  if (flight.waiters.empty() && !flight.keeper) {
    if (!shard.cache->Begin(address, hash)) {
      shard.flights.erase(address.text());
      shard.counted.unavailable++;
      return Unavailable(address);
    }
    shard.counted.misses++;
    for (std::string& gone : shard.cache->TakeEvicted()) post.asks.push_back(std::move(gone));
  } else {
    shard.counted.coalesced++;
  }
  if (found.kind == Found::Kind::kWait && !flight.keeper)
    StartFlight(flight, address, hash, now, post);
  const milliseconds deadline = options.deadline.count() > 0 ? options.deadline : policy_.deadline;
  BootTime until = now + std::min<milliseconds>(deadline, std::chrono::hours(24));
  if (found.kind == Found::Kind::kStale) until = std::min(until, found.until);
  waiter = std::make_shared<Waiter>(address, hash, until);
  waiter->min = options.min_revision;
  waiter->sync = sync;
  flight.waiters.push_back(waiter);
  waiting_.fetch_add(1, std::memory_order_relaxed);
  if (!sync) post.timers.push_back(waiter);
  if (options.min_revision > Revision{} && found.kind == Found::Kind::kWait &&
      (shard.cache->RevisionOf(address.text(), hash) > Revision{} || !link_live_.load()))
    post.polls.push_back(waiter);
  post.nudge = true;
  return nullptr;
}

void Core::StartFlight(Flight& flight, const Address& address, size_t hash, BootTime now,
                       Inbox::Content& post) {
  flight.keeper = std::make_shared<Waiter>(address, hash, now + policy_.deadline);
  post.timers.push_back(flight.keeper);
  post.timers.push_back(std::make_shared<Waiter>(address, hash, now + kRaceAfter));
  post.timers.back()->race = true;
  post.asks.push_back(address.text());
  post.callers++;
}

void Core::PostSome(Inbox::Content&& post) {
  if (post.empty()) return;
  inbox_->Post([&](Inbox::Content& c) {
    const auto append = [](auto& to, auto& from) {
      std::move(from.begin(), from.end(), std::back_inserter(to));
    };
    append(c.asks, post.asks);
    append(c.timers, post.timers);
    append(c.polls, post.polls);
    append(c.greetings, post.greetings);
    c.callers += post.callers;
    c.nudge = c.nudge || post.nudge;
  });
}

// The caller's own thread keeps the deadline: a callback that blocks the worker delays nobody.
AnswerPtr Core::WaitFor(const WaiterPtr& waiter, Shard& shard, Slot& slot) {
  AnswerPtr answer;
  while (!answer) {
    const std::chrono::nanoseconds wait = waiter->until - BootClock::now();
    if (wait.count() <= 0) TimeOut(waiter);
    std::unique_lock lock(slot.mutex);
    // In slices: the clock of the wait stands still while the machine sleeps.
    slot.some.wait_for(
        lock, std::clamp<std::chrono::nanoseconds>(wait, milliseconds(1), milliseconds(500)),
        [&] { return slot.answer != nullptr; });
    answer = slot.answer;
  }
  std::lock_guard lock(shard.mutex);
  if (--shard.inside == 0) shard.left.notify_all();
  return answer;
}

void Core::EndFlight(Shard& shard, const std::string& address, size_t hash) {
  const auto at = shard.flights.find(address);
  if (at == shard.flights.end() || !at->second.waiters.empty() || at->second.keeper) return;
  shard.flights.erase(at);
  shard.cache->End(address, hash);
}

// Under the shard's mutex: who has what it waited for goes to `finished`.
void Core::Settle(Shard& shard, const std::string& address, size_t hash, BootTime now,
                  Finished& finished) {
  const auto at = shard.flights.find(address);
  if (at == shard.flights.end()) return;
  Flight& flight = at->second;
  if (!shard.cache->Ready(address, hash, {}, now)) return;
  if (flight.keeper) flight.keeper->claimed = true;
  flight.keeper.reset();
  std::erase_if(flight.waiters, [&](const WaiterPtr& waiter) {
    AnswerPtr answer = shard.cache->Ready(address, hash, waiter->min, now);
    if (!answer) return false;
    waiter->claimed = true;
    shard.counted.negatives += answer->status == AnswerStatus::kNotFound;
    finished.emplace_back(waiter, std::move(answer));
    return true;
  });
  EndFlight(shard, address, hash);
}

void Core::Run(Finished& finished) {
  waiting_.fetch_sub(finished.size(), std::memory_order_relaxed);
  for (const bool sync : {true, false})  // no caller waits for another's callback
    for (auto& [waiter, answer] : finished)
      if (waiter->sync == sync) waiter->done(answer);
  finished.clear();
}

void Core::TimeOut(const WaiterPtr& waiter) {
  const std::string& address = waiter->address.text();
  Shard& shard = ShardOf(waiter->hash);
  const BootTime now = BootClock::now();
  Finished finished;
  bool tell = false;
  {
    std::lock_guard lock(shard.mutex);
    if (waiter->claimed) return;
    waiter->claimed = true;
    const auto at = shard.flights.find(address);
    DW_ASSERT(at != shard.flights.end());
    Flight& flight = at->second;
    if (flight.keeper == waiter) {
      flight.keeper.reset();
      shard.cache->Fail(address, waiter->hash, now, std::nullopt, random_);
      tell = true;
    } else {
      std::erase(flight.waiters, waiter);
      AnswerPtr answer = shard.cache->Peek(address, waiter->hash, now);
      if (answer && answer->revision < waiter->min) answer = nullptr;
      (answer ? shard.counted.stale_served : shard.counted.unavailable)++;
      finished.emplace_back(waiter, answer ? std::move(answer) : Unavailable(waiter->address));
    }
    EndFlight(shard, address, waiter->hash);
  }
  if (tell) Tell(address, waiter->hash, nullptr);
  Run(finished);
}

std::shared_ptr<Listener> Core::Listen(const Address& address, Resolver::Callback changed) {
  auto listener = std::make_shared<Listener>(address, HashOf(address.text()), std::move(changed));
  Shard& shard = ShardOf(listener->hash);
  const BootTime now = BootClock::now();
  Inbox::Content post;
  {
    std::lock_guard lock(shard.mutex);
    const Found found = shard.cache->Find(address, listener->hash, {}, now);
    listener->held = !shard.closed && shard.cache->Begin(address, listener->hash);
    if (listener->held) {
      for (std::string& gone : shard.cache->TakeEvicted()) post.asks.push_back(std::move(gone));
      shard.listeners[address.text()].push_back(listener);
      if (found.kind != Found::Kind::kAnswer) {
        Flight& flight = shard.flights[address.text()];
        if (flight.waiters.empty() && !flight.keeper) shard.cache->Begin(address, listener->hash);
        if (!flight.keeper) StartFlight(flight, address, listener->hash, now, post);
        post.nudge = true;
      }
    }
  }
  post.greetings.push_back(listener);
  PostSome(std::move(post));
  return listener;
}

void Core::Unlisten(const std::shared_ptr<Listener>& listener) {
  Shard& shard = ShardOf(listener->hash);
  {
    std::lock_guard lock(shard.mutex);
    const auto at = shard.listeners.find(listener->address.text());
    if (at != shard.listeners.end() && std::erase(at->second, listener) > 0) {
      if (at->second.empty()) shard.listeners.erase(at);
      shard.cache->End(listener->address.text(), listener->hash);
    }
  }
  std::unique_lock lock(listener->mutex);
  listener->ended = true;
  if (worker_id_.load() != std::this_thread::get_id())
    listener->idle.wait(lock, [&] { return !listener->running; });
}

void Core::NoteEjected(const std::string& url, const Status& why) {
  Count(&ResolverStats::ejections);
  Observe(ResolverEvent::Kind::kEjected, url, why);
}

ResolverStats Core::Stats() {
  ResolverStats sum;
  {
    std::lock_guard lock(status_mutex_);
    sum = streams_;
  }
  for (size_t i = 0; i < shard_count_; i++) {
    std::lock_guard lock(shards_[i].mutex);
    const ResolverStats& one = shards_[i].counted;
    sum.hits += one.hits;
    sum.misses += one.misses;
    sum.coalesced += one.coalesced;
    sum.stale_served += one.stale_served;
    sum.negatives += one.negatives;
    sum.unavailable += one.unavailable;
    sum.pushes += one.pushes;
    sum.refused += one.refused;
    sum.prefetches += one.prefetches;
    sum.entries += shards_[i].cache->entries();
    sum.bytes += shards_[i].cache->bytes();
    for (const StripedMutex::Stripe& stripe : shards_[i].mutex.stripes()) {
      sum.hits += stripe.hits;
      sum.negatives += stripe.negatives;
    }
  }
  return sum;
}

void Core::WriteState(std::ostream& out) {
  const ResolverStats stats = Stats();
  const Status error = LastError();
  const std::vector<std::string> names = servers();
  out << "{\"servers\": [";
  for (const std::string& server : names)
    out << (&server == &names.front() ? "" : ", ") << Quoted(server);
  out << "], \"server\": " << Quoted(stats.server) << ", \"live\": " << Bool(stats.live)
      << ", \"entries\": " << stats.entries << ", \"bytes\": " << stats.bytes
      << ", \"hits\": " << stats.hits << ", \"misses\": " << stats.misses
      << ", \"ejections\": " << stats.ejections << ", \"stale_served\": " << stats.stale_served
      << ", \"attempts\": " << stats.attempts
      << ", \"last_error\": " << Quoted(error.ok() ? "" : error.ToString()) << "}\n";
  for (size_t i = 0; i < shard_count_; i++) {
    std::ostringstream lines;  // what `out` is may block
    {
      std::lock_guard lock(shards_[i].mutex);
      shards_[i].cache->ForEach(BootClock::now(), [&](const Cache::View& entry) {
        lines << "{\"address\": " << Quoted(entry.address.text()) << ", \"state\": \""
              << EntryStateName(entry.state) << '"';
        if (entry.answer != nullptr) {
          lines << ", \"status\": \"" << AnswerStatusName(entry.answer->status)
                << "\", \"revision\": {\"epoch\": " << entry.revision.epoch
                << ", \"number\": " << entry.revision.number
                << "}, \"age_ms\": " << entry.age.count()
                << ", \"subscribed\": " << Bool(entry.subscribed) << ", \"endpoints\": [";
          for (const Endpoint& endpoint : entry.answer->endpoints)
            lines << (&endpoint == &entry.answer->endpoints.front() ? "" : ", ")
                  << Quoted(endpoint.url.text());
          lines << ']';
        }
        lines << "}\n";
      });
    }
    out << lines.str();
  }
}

}  // namespace datawire::resolver
