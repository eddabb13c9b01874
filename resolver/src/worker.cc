#include <absl/container/flat_hash_set.h>

#include <algorithm>

#include "core.h"
#include "datawire/limits.h"
#include "datawire/wire.h"

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr size_t kRequestBytes = limits::kUnaryBytes - 1024;
constexpr size_t kHeldBytes = 40;  // of an entry in a request, apart from its address
// A server that has taken the connection may be busy with others: so much longer than to connect.
constexpr int kFirstMarkTimes = 3;

nanoseconds Times(nanoseconds time, double factor) {
  return nanoseconds(static_cast<int64_t>(static_cast<double>(time.count()) * factor));
}

milliseconds Millis(nanoseconds time) {
  return std::chrono::ceil<milliseconds>(time);
}

}  // namespace

void Core::Work() {
  worker_id_ = std::this_thread::get_id();
  while (true) {
    Inbox::Content content = inbox_->Take(NextWake(BootClock::now()));
    if (content.stop) break;
    Round(std::move(content));
  }
  transport_->Close();
  CloseAll();
  worker_id_ = std::thread::id();
}

void Core::Round(Inbox::Content content) {
  for (StreamEvent& event : content.streams) OnStreamEvent(event);
  for (CallEvent& event : content.calls) OnCallEvent(event);
  for (const SrvReply& reply : content.looked_up) OnLookedUp(reply, BootClock::now());
  if (live_) std::move(content.asks.begin(), content.asks.end(), std::back_inserter(urgent_));
  for (WaiterPtr& waiter : content.timers) AddTimer(std::move(waiter));
  budget_.Called(content.callers);
  for (const WaiterPtr& waiter : content.polls) StartPoll(waiter->address, waiter->hash, true);
  if (content.nudge && stream_ == 0) failover_.Nudge(BootClock::now());
  Flush();
  for (const auto& listener : content.greetings) Greet(listener);
  Tick(BootClock::now());
}

BootTime Core::Step() {
  const BootTime now = BootClock::now();
  Round(inbox_->Take(now));
  return NextWake(now);
}

void Core::FinishStepped() {
  transport_->Close();
  CloseAll();
  transport_.reset();
}

BootTime Core::NextWake(BootTime now) const {
  BootTime wake = std::min(now + std::chrono::seconds(1), discovery_.next_at());
  if (stream_ == 0) wake = std::min(wake, std::max(failover_.next_at(), budget_at_));
  if (stream_ != 0 && !live_) wake = std::min(wake, check_at_);
  if (live_) wake = std::min(wake, last_heard_ + policy_.stream_silence);
  if (live_ && raced_at_ > last_heard_) wake = std::min(wake, last_heard_ + kRacedSilence);
  if (!timers_.empty()) wake = std::min(wake, timers_.front()->until);
  for (const auto& [text, poll] : polls_)
    if (poll.call == 0 && !failover_.servers().empty()) wake = std::min(wake, poll.next_at);
  return wake;
}

void Core::AddTimer(WaiterPtr waiter) {
  const auto later = [](const WaiterPtr& a, const WaiterPtr& b) { return a->until > b->until; };
  if (timers_.size() >= compact_at_) {
    std::erase_if(timers_, [](const WaiterPtr& w) { return w->claimed.load(); });
    std::make_heap(timers_.begin(), timers_.end(), later);
    compact_at_ = 4096 + 2 * timers_.size();
  }
  timers_.push_back(std::move(waiter));
  std::push_heap(timers_.begin(), timers_.end(), later);
}

void Core::Tick(BootTime now) {
  discovery_.Tick(now);
  const auto later = [](const WaiterPtr& a, const WaiterPtr& b) { return a->until > b->until; };
  while (!timers_.empty() && timers_.front()->until <= now) {
    std::pop_heap(timers_.begin(), timers_.end(), later);
    const WaiterPtr waiter = std::move(timers_.back());
    timers_.pop_back();
    if (waiter->race)
      Race(waiter->address, waiter->hash, now);
    else if (!waiter->claimed)
      TimeOut(waiter);
  }
  if (stream_ != 0 && !live_ && now >= check_at_) {
    const bool connected = transport_->Connected();
    const auto longest = policy_.connect_timeout * kFirstMarkTimes;
    if (!connected || now >= opened_at_ + longest)
      Lost({Code::kUnavailable,
            server_ + (connected ? ": accepts and does not answer in " : ": no connection in ") +
                std::to_string(Millis(now - opened_at_).count()) + " ms"},
           now);
    else
      check_at_ = opened_at_ + longest;
  }
  const bool raced = raced_at_ > last_heard_ && now >= last_heard_ + kRacedSilence;
  if (live_ && (raced || now >= last_heard_ + policy_.stream_silence))
    Lost({Code::kUnavailable,
          server_ + ": silent for " + std::to_string(Millis(now - last_heard_).count()) + " ms"},
         now);
  if (stream_ == 0 && now >= std::max(failover_.next_at(), budget_at_)) {
    if (streams_begun_ && !budget_.Take(now)) {
      budget_at_ = budget_.next_at();
      return TickPolls(now);
    }
    Count(&ResolverStats::attempts);
    if (std::exchange(streams_begun_, true)) Count(&ResolverStats::retries);
    stream_ = ++numbers_;
    server_ = failover_.server();
    opened_at_ = now;
    check_at_ = now + policy_.connect_timeout;
    transport_->Open(stream_, server_);
    transport_->Read();
    transport_->Write({});  // some servers answer only when they have heard something
    writing_ = true;
  }
  TickPolls(now);
}

void Core::OnStreamEvent(StreamEvent& event) {
  if (event.stream != stream_) return;
  switch (event.kind) {
    case StreamEvent::Kind::kWritten:
      writing_ = false;
      break;
    case StreamEvent::Kind::kRead:
      OnResponse(event.response);
      if (stream_ == event.stream) transport_->Read();
      break;
    case StreamEvent::Kind::kEnded:
      Lost(std::move(event.status), BootClock::now());
      break;
  }
}

void Core::SetLink(LinkState link) {
  if (link_ == link) return;
  link_ = link;
  link_live_ = link == LinkState::kLive;
  for (size_t i = 0; i < shard_count_; i++) {
    std::lock_guard lock(shards_[i].mutex);
    shards_[i].cache->SetLink(link);
  }
}

void Core::OnLookedUp(const SrvReply& reply, BootTime now) {
  Count(&ResolverStats::dns_lookups);
  const auto servers = discovery_.Take(reply, now);
  if (!servers.ok()) {
    Count(&ResolverStats::dns_failures);
    if (!live_) SetError(servers.status());
    if (failover_.servers().empty()) SetLink(LinkState::kDown);
    return Observe(ResolverEvent::Kind::kNoServers, "", servers.status());
  }
  const std::vector<std::string> before = failover_.servers();
  const bool kept = failover_.Set(*servers, now);
  if (failover_.servers() == before) return;
  {
    std::lock_guard lock(status_mutex_);
    servers_ = failover_.servers();
  }
  Observe(ResolverEvent::Kind::kServers, "", Status::Ok());
  if (kept) return;
  if (stream_ != 0) EndStream({Code::kUnavailable, server_ + ": is no longer listed by DNS"});
  SetLink(LinkState::kConnecting);
}

void Core::Lost(Status why, BootTime now) {
  failover_.Lost(now, why.retry_after(), random_);
  SetLink(failover_.down() && !live_ ? LinkState::kDown : LinkState::kConnecting);
  if (failover_.down()) discovery_.AllServersFailed();
  EndStream(why);
}

void Core::EndStream(const Status& why) {
  transport_->Close();
  stream_ = 0;
  dirty_.clear();
  urgent_.clear();
  writing_ = acknowledge_ = false;
  {
    std::lock_guard lock(status_mutex_);
    streams_.streams_lost += live_;
    streams_.live = false;
    streams_.server.clear();
    last_error_ = why;
  }
  live_ = false;
  const auto kind = why.code() == Code::kConflict  ? ResolverEvent::Kind::kForeign
                    : why.code() == Code::kCorrupt ? ResolverEvent::Kind::kCorrupt
                                                   : ResolverEvent::Kind::kLost;
  Observe(kind, server_, why);
}

void Core::Count(uint64_t ResolverStats::*counter) {
  std::lock_guard lock(status_mutex_);
  streams_.*counter += 1;
}

void Core::Observe(ResolverEvent::Kind kind, const std::string& server, const Status& status) {
  if (kind == ResolverEvent::Kind::kForeign) Count(&ResolverStats::foreign);
  if (kind == ResolverEvent::Kind::kCorrupt) Count(&ResolverStats::corrupt);
  if (observer_) observer_({.kind = kind, .server = server, .status = status});
}

bool Core::AdoptCluster(const std::string& cluster) {
  if (cluster.empty()) return false;
  if (cluster == cluster_) return true;
  for (size_t i = 0; i < shard_count_; i++) {
    std::lock_guard lock(shards_[i].mutex);
    if (!shards_[i].cache->Accepts(cluster)) return false;
  }
  for (size_t i = 0; i < shard_count_; i++) {
    std::lock_guard lock(shards_[i].mutex);
    shards_[i].cache->Adopt(cluster);
  }
  cluster_ = cluster;
  return true;
}

// The first message says who answers; nothing is taken or told before that is known to be right.
bool Core::OnFirst(const pb::SubscribeResponse& response, BootTime now) {
  const std::string& cluster = response.mark().source().cluster_id();
  if (cluster.empty()) {
    Lost({Code::kCorrupt, server_ + ": its first message does not say which cluster it is of"},
         now);
    return false;
  }
  if (!AdoptCluster(cluster)) {
    Lost({Code::kConflict, server_ + ": is of cluster " + Shown(cluster) +
                               ", the answers held here are of " + Shown(cluster_)},
         now);
    return false;
  }
  live_ = true;
  mark_ = {};
  failover_.Opened(now);
  SetLink(LinkState::kLive);
  {
    std::lock_guard lock(status_mutex_);
    streams_.streams_opened++;
    streams_.failovers += !last_server_.empty() && last_server_ != server_;
    streams_.server = last_server_ = server_;
    streams_.live = true;
    last_error_ = Status::Ok();
  }
  Observe(ResolverEvent::Kind::kConnected, server_, Status::Ok());
  for (size_t i = 0; i < shard_count_; i++) {
    std::lock_guard lock(shards_[i].mutex);
    for (const auto& [text, flight] : shards_[i].flights) urgent_.push_back(text);
    shards_[i].cache->ForEach([&](const std::string& text) { dirty_.push_back(text); });
  }
  return true;
}

void Core::OnResponse(const pb::SubscribeResponse& response) {
  const BootTime now = BootClock::now();
  last_heard_ = now;
  if (!live_ && !OnFirst(response, now)) return;
  const uint64_t stream = stream_;
  Finished finished;
  for (const pb::Answer& answer : response.answers())
    OnAnswer(answer, cluster_, true, now, finished);
  OnConfirmed(response, now, finished);
  for (const pb::RefusedAddress& refused : response.refused())
    if (stream_ == stream) OnRefused(refused, now, finished);
  if (response.has_mark() && stream_ == stream) OnMark(response.mark(), now, finished);
  Run(finished);
}

void Core::OnAnswer(const pb::Answer& in, std::string_view cluster, bool on_stream, BootTime now,
                    Finished& finished) {
  auto answer = FromWire(in);
  if (!answer.ok()) {
    Count(&ResolverStats::refused);
    SetError(answer.status());
    return Observe(ResolverEvent::Kind::kCorrupt, server_, answer.status());
  }
  if (answer->status == AnswerStatus::kUnavailable) {
    Status why = FromWire(in.refusal());
    SetError(why.ok() ? Status(Code::kUnavailable, server_ + ": does not know") : std::move(why));
    return;
  }
  const Address address = answer->address;
  const size_t hash = HashOf(address.text());
  Shard& shard = ShardOf(hash);
  AnswerPtr changed;
  bool behind = false;
  {
    std::lock_guard lock(shard.mutex);
    const auto stored = shard.cache->Store(
        std::move(*answer), hash, {.cluster = cluster, .on_stream = on_stream}, now, random_);
    const bool taken = stored == Cache::Stored::kReplaced || stored == Cache::Stored::kRefreshed;
    shard.counted.pushes += taken && on_stream;
    shard.counted.refused += !taken;
    if (stored == Cache::Stored::kUnknown) return;
    if (stored == Cache::Stored::kReplaced) changes_.fetch_add(1, std::memory_order_relaxed);
    Settle(shard, address.text(), hash, now, finished);
    if (stored == Cache::Stored::kReplaced && shard.listeners.contains(address.text()))
      changed = shard.cache->Ready(address.text(), hash, {}, now);
    const auto flight = shard.flights.find(address.text());
    behind = flight != shard.flights.end() &&
             std::any_of(flight->second.waiters.begin(), flight->second.waiters.end(),
                         [](const WaiterPtr& w) { return w->min > Revision{}; });
    for (std::string& gone : shard.cache->TakeEvicted()) urgent_.push_back(std::move(gone));
    // The stream is told what is held now, in case it has to be told otherwise (Added decides).
    if (!on_stream && live_ && stored == Cache::Stored::kReplaced)
      urgent_.push_back(address.text());
  }
  if (changed) Tell(address.text(), hash, changed);
  if (behind) StartPoll(address, hash, false);
}

void Core::OnConfirmed(const pb::SubscribeResponse& response, BootTime now, Finished& finished) {
  const Revision at = FromWire(response.confirmed_at());
  for (const std::string& text : response.confirmed()) {
    const size_t hash = HashOf(text);
    Shard& shard = ShardOf(hash);
    std::lock_guard lock(shard.mutex);
    shard.counted.refused += !shard.cache->Confirm(text, hash, at, now);
    Settle(shard, text, hash, now, finished);
  }
}

void Core::OnRefused(const pb::RefusedAddress& refused, BootTime now, Finished& finished) {
  Status why = FromWire(refused.refusal());
  if (why.code() == Code::kBehind && failover_.servers().size() > 1)
    return Lost(std::move(why), now);  // it has not seen what this process has: another may have
  const size_t hash = HashOf(refused.address());
  Shard& shard = ShardOf(hash);
  bool tell = false;
  {
    std::lock_guard lock(shard.mutex);
    shard.cache->Fail(refused.address(), hash, now, why.retry_after(), random_);
    if (!shard.cache->HeldOf(refused.address(), hash)) shard.counted.refused++;
    const auto at = shard.flights.find(refused.address());
    if (at != shard.flights.end() && !shard.cache->Peek(refused.address(), hash, now)) {
      tell = true;
      if (at->second.keeper) at->second.keeper->claimed = true;
      at->second.keeper.reset();
      for (WaiterPtr& waiter : std::exchange(at->second.waiters, {})) {
        waiter->claimed = true;
        shard.counted.unavailable++;
        finished.emplace_back(waiter, Unavailable(waiter->address));
      }
      EndFlight(shard, refused.address(), hash);
    }
  }
  SetError(std::move(why));
  if (tell) Tell(refused.address(), hash, nullptr);
}

void Core::OnMark(const pb::SubscribeResponse::Mark& mark, BootTime now, Finished& finished) {
  const Revision revision = FromWire(mark.revision());
  const milliseconds age(std::min<uint64_t>(mark.age_ms(), 365ull * 86'400'000));
  for (size_t i = 0; i < shard_count_; i++) {
    std::lock_guard lock(shards_[i].mutex);
    shards_[i].cache->Mark(revision, age, now);
  }
  if (revision > mark_) {
    mark_ = revision;
    acknowledge_ = true;
  }
  for (const auto& [text, poll] : polls_) {
    Shard& shard = ShardOf(poll.hash);
    std::lock_guard lock(shard.mutex);
    Settle(shard, text, poll.hash, now, finished);
  }
}

// One request of at most 64 KiB, when the one before is written: what came meanwhile goes together.
// Whether an address is added or dropped is decided by what the cache holds now.
void Core::Flush() {
  if (!live_ || writing_ || (urgent_.empty() && dirty_.empty() && !acknowledge_)) return;
  if (urgent_.size() + dirty_.size() > 4 * std::max<size_t>(policy_.cache_entries, 1024))
    return Lost({Code::kOverloaded, server_ + ": does not read its stream"}, BootClock::now());
  pb::SubscribeRequest request;
  absl::flat_hash_set<std::string> there;
  size_t bytes = 0;
  while (true) {
    auto& from = urgent_.empty() ? dirty_ : urgent_;  // who waits goes first
    if (from.empty() || bytes + kHeldBytes + from.front().size() > kRequestBytes) break;
    std::string text = std::move(from.front());
    from.pop_front();
    if (there.contains(text)) continue;
    const size_t hash = HashOf(text);
    Shard& shard = ShardOf(hash);
    std::optional<Held> held;
    {
      std::lock_guard lock(shard.mutex);
      if (shard.cache->Added(text, hash, stream_)) continue;
      held = shard.cache->HeldOf(text, hash);
    }
    bytes += kHeldBytes + text.size();
    if (held) {
      auto* add = request.add_add();
      add->set_address(text);
      if (held->revision > Revision{}) {
        ToWire(held->revision, add->mutable_revision());
        add->set_hash(held->hash);
      }
    } else {
      request.add_drop(text);
    }
    there.insert(std::move(text));
  }
  if (bytes == 0 && !acknowledge_) return;
  if (std::exchange(acknowledge_, false)) ToWire(mark_, request.mutable_acknowledged());
  writing_ = true;
  transport_->Write(request);
}

void Core::StartPoll(const Address& address, size_t hash, bool new_call) {
  const auto [at, made] =
      polls_.try_emplace(address.text(), Poll{.address = address, .hash = hash});
  if (!made && new_call && at->second.next_at == BootTime::max()) {
    at->second.attempts = 0;
    at->second.next_at = BootTime{};
  }
}

// A look-up that the stream does not answer is asked of the others, before its caller gives up.
void Core::Race(const Address& address, size_t hash, BootTime now) {
  {
    Shard& shard = ShardOf(hash);
    std::lock_guard lock(shard.mutex);
    const auto at = shard.flights.find(address.text());
    if (at == shard.flights.end() || !at->second.keeper) return;
  }
  if (polls_.contains(address.text()) || !failover_.MayRace(now)) return;
  polls_.emplace(address.text(),
                 Poll{.address = address, .hash = hash, .attempts = 1, .race = true});
}

void Core::TickPolls(BootTime now) {
  const auto& servers = failover_.servers();
  if (servers.empty()) return;
  for (auto at = polls_.begin(); at != polls_.end();) {
    Poll& poll = at->second;
    Revision min;
    BootTime until = now;
    {
      Shard& shard = ShardOf(poll.hash);
      std::lock_guard lock(shard.mutex);
      if (const auto flight = shard.flights.find(at->first); flight != shard.flights.end())
        for (const WaiterPtr& waiter : flight->second.waiters)
          if (waiter->min > Revision{} || poll.race) {
            min = std::max(min, waiter->min);
            until = std::max(until, waiter->until);
          }
    }
    const bool asked_all =
        poll.race && min == Revision{} && poll.attempts >= std::min(servers.size(), kRound);
    if (until <= now || asked_all) {  // nobody waits; an answer under way comes too late
      at = polls_.erase(at);
      continue;
    }
    ++at;
    if (poll.call != 0 || now < poll.next_at) continue;
    if (poll.attempts > 0 && !budget_.Take(now)) {
      poll.next_at = budget_.next_at();
      continue;
    }
    Count(&ResolverStats::attempts);
    if (poll.attempts > 0) Count(&ResolverStats::retries);
    pb::ResolveRequest request;
    request.add_addresses(poll.address.text());
    if (min > Revision{}) ToWire(min, request.mutable_min_revision());
    poll.call = ++numbers_;
    // A node that hangs must leave time for another.
    const milliseconds left = Millis(until - now);
    const milliseconds timeout =
        servers.size() > 1 ? std::max(left / 2, std::min(left, milliseconds(20))) : left;
    const size_t first = static_cast<size_t>(
        std::find(servers.begin(), servers.end(), failover_.server()) - servers.begin());
    transport_->Resolve(poll.call, servers[(first + poll.attempts) % servers.size()], request,
                        timeout);
  }
}

void Core::OnCallEvent(CallEvent& event) {
  const auto at = std::find_if(polls_.begin(), polls_.end(),
                               [&](const auto& p) { return p.second.call == event.call; });
  if (at == polls_.end()) return;
  const BootTime now = BootClock::now();
  Finished finished;
  const std::string& cluster = event.response.source().cluster_id();
  if (!event.status.ok())
    SetError(event.status);
  else if (!AdoptCluster(cluster)) {
    const Status why(Code::kConflict, "a server answers for cluster " + Shown(cluster));
    SetError(why);
    Observe(ResolverEvent::Kind::kForeign, "", why);
  } else
    for (const pb::Answer& answer : event.response.answers())
      OnAnswer(answer, cluster, false, now, finished);
  Poll& poll = at->second;
  if (poll.race && !finished.empty()) raced_at_ = now;
  poll.call = 0;
  poll.attempts++;
  const size_t servers = failover_.servers().size();
  poll.next_at = now;
  if (const auto asked = event.status.retry_after())
    poll.not_before = std::max(poll.not_before, now + std::min(*asked, policy_.retry_most));
  if (poll.attempts >= policy_.attempts) {
    poll.next_at = BootTime::max();           // the stream may still bring it
  } else if (poll.attempts % servers == 0) {  // all were asked
    const nanoseconds most = std::min<nanoseconds>(
        policy_.retry_most,
        policy_.retry_least * (int64_t{1} << std::min<size_t>(poll.attempts / servers - 1, 16)));
    poll.next_at += Times(most, std::uniform_real_distribution<double>(0.1, 1)(random_));
    poll.next_at = std::max(poll.next_at, std::exchange(poll.not_before, {}));
  }
  Run(finished);
}

void Core::Greet(const std::shared_ptr<Listener>& listener) {
  AnswerPtr answer;
  bool failed = !listener->held;
  {
    Shard& shard = ShardOf(listener->hash);
    std::lock_guard lock(shard.mutex);
    const BootTime now = BootClock::now();
    const std::string& text = listener->address.text();
    answer = shard.cache->Peek(text, listener->hash, now);
  }
  if (answer || failed) Deliver(*listener, answer);
}

void Core::Tell(const std::string& address, size_t hash, const AnswerPtr& answer) {
  std::vector<std::shared_ptr<Listener>> listeners;
  {
    Shard& shard = ShardOf(hash);
    std::lock_guard lock(shard.mutex);
    const auto at = shard.listeners.find(address);
    if (at == shard.listeners.end()) return;
    listeners = at->second;
  }
  for (const auto& listener : listeners) Deliver(*listener, answer);
}

// A null answer is "not known": told only to who has never been told anything.
void Core::Deliver(Listener& listener, const AnswerPtr& answer) {
  if (!answer && listener.told) return;
  if (answer && listener.told && listener.told->status == answer->status &&
      listener.told->hash == answer->hash && listener.told->matched == answer->matched)
    return;
  listener.told = answer ? answer : Unavailable(listener.address);
  {
    std::lock_guard lock(listener.mutex);
    if (listener.ended) return;
    listener.running = true;
  }
  listener.changed(listener.told);
  std::lock_guard lock(listener.mutex);
  listener.running = false;
  listener.idle.notify_all();
}

void Core::CloseAll() {
  SetError({Code::kCancelled, "the resolver was closed"});
  Finished finished;
  for (size_t i = 0; i < shard_count_; i++) {
    std::lock_guard lock(shards_[i].mutex);
    shards_[i].closed = true;
    for (auto& [text, flight] : shards_[i].flights) {
      if (flight.keeper) flight.keeper->claimed = true;
      for (WaiterPtr& waiter : flight.waiters) {
        waiter->claimed = true;
        finished.emplace_back(waiter, Unavailable(waiter->address));
      }
    }
    shards_[i].flights.clear();
  }
  Run(finished);
}

}  // namespace datawire::resolver
