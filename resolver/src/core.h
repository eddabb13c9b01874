#pragma once

#include <absl/container/flat_hash_map.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "cache.h"
#include "discovery.h"
#include "failover.h"
#include "retry_budget.h"
#include "snapshot.h"
#include "striped_mutex.h"
#include "transport.h"

namespace datawire::resolver {

/// One caller that waits, or (a keeper, without `done`) the time after which a load has failed.
struct Waiter {
  Waiter(const Address& a, size_t h, BootTime u) : address(a), hash(h), until(u) {}

  const Address address;
  const size_t hash;
  const BootTime until;
  Revision min;
  Resolver::Callback done;
  bool sync = false;                 ///< `done` only wakes its caller
  bool race = false;                 ///< no caller: the time to ask another server, too
  std::atomic<bool> claimed{false};  ///< set under its shard's mutex by who will call `done`
};
using WaiterPtr = std::shared_ptr<Waiter>;
using Finished = std::vector<std::pair<WaiterPtr, AnswerPtr>>;

/// What a caller waits on that keeps its deadline itself.
struct Slot {
  std::mutex mutex;
  std::condition_variable some;
  AnswerPtr answer;
};

/// One Subscribe of the application.
struct Listener {
  Listener(const Address& a, size_t h, Resolver::Callback c)
      : address(a), hash(h), changed(std::move(c)) {}

  const Address address;
  const size_t hash;
  const Resolver::Callback changed;
  bool held = false;  ///< the cache had room

  std::mutex mutex;
  std::condition_variable idle;
  bool ended = false, running = false;  // under mutex

  AnswerPtr told;  // worker only
};

/// All who wait for one address: one entry in the stream, however many they are.
struct Flight {
  std::vector<WaiterPtr> waiters;
  WaiterPtr keeper;
};

struct alignas(64) Shard {
  StripedMutex mutex;  // guards all below; a leaf. Cache::Hit needs one stripe
  std::unique_ptr<Cache> cache;
  absl::flat_hash_map<std::string, Flight> flights;
  absl::flat_hash_map<std::string, std::vector<std::shared_ptr<Listener>>> listeners;
  ResolverStats counted;
  size_t inside = 0;  // callers that wait
  bool closed = false;
  std::condition_variable_any left;
};

/// What reaches the worker. Bounded: a stream has at most a read, a write and an end under way, a
/// poll one call; the rest is bounded by the cache and limits::kResolverWaiters.
class Inbox : public TransportSink {
 public:
  struct Content {
    std::vector<StreamEvent> streams;
    std::vector<CallEvent> calls;
    std::vector<SrvReply> looked_up;  ///< at most one
    std::vector<std::string> asks;    ///< to be added to the stream, or dropped when not cached
    std::vector<WaiterPtr> timers;
    std::vector<WaiterPtr> polls;  ///< whose min_revision the stream may not bring
    std::vector<std::shared_ptr<Listener>> greetings;
    size_t callers = 0;  ///< callers that need the directory, for the retry budget
    bool nudge = false, stop = false;
    bool empty() const {
      return streams.empty() && calls.empty() && looked_up.empty() && asks.empty() &&
             timers.empty() && polls.empty() && greetings.empty() && !nudge && !stop;
    }
  };
  void OnStream(StreamEvent event) override;
  void OnCall(CallEvent event) override;
  void Post(const std::function<void(Content&)>& fill);
  /// Waits for content, at most to `until`.
  Content Take(BootTime until);

 private:
  std::mutex mutex_;
  std::condition_variable some_;
  Content content_;
};

/// The shell around Cache, Failover and Transport. Callers touch a shard and the inbox; one worker
/// thread does all else and runs all callbacks. Thread-safe.
class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(DirectoryPlace place, const ResolverPolicy& policy, uint64_t seed, TlsFiles tls = {},
       std::function<void(const ResolverEvent&)> observer = {});
  void Start();
  void Stop();
  /// The worker without a thread, for simulated time: whoever calls is the worker. Step after
  /// anything happened and at the moment it returned; Resolve with a callback alone.
  void StartStepped(std::unique_ptr<Transport> transport) { transport_ = std::move(transport); }
  BootTime Step();
  void FinishStepped();
  std::shared_ptr<TransportSink> sink() const { return inbox_; }

  AnswerPtr Resolve(const Address& address, const ResolveOptions& options);
  void Resolve(const Address& address, const ResolveOptions& options, Resolver::Callback done);
  std::shared_ptr<Listener> Listen(const Address& address, Resolver::Callback changed);
  void Unlisten(const std::shared_ptr<Listener>& listener);
  ResolverStats Stats();
  void WriteState(std::ostream& out);
  Status LastError();
  void NoteEjected(const std::string& url, const Status& why);
  /// Before Start: fills the cache from a snapshot that was saved `since` ago; how many it took.
  size_t Restore(SnapshotContent content, std::chrono::nanoseconds since, BootTime now);
  /// What is worth a snapshot; no entries: nothing is.
  SnapshotContent Export(const Moment& present);
  /// Grows with each answer that replaces another.
  uint64_t changes() const { return changes_.load(std::memory_order_relaxed); }
  std::vector<std::string> servers() const;

 private:
  /// A unary Resolve with min_revision for the waiters of an address, node after node (P5).
  struct Poll {
    Address address;
    size_t hash;
    uint32_t attempts = 0;
    BootTime next_at{};     ///< max: all attempts were made
    BootTime not_before{};  ///< what servers of this round asked for
    uint64_t call = 0;      // 0: none under way
    bool race = false;      // for all who wait, once to each of the other servers
  };
  struct Later {
    bool operator()(const WaiterPtr& a, const WaiterPtr& b) const { return a->until > b->until; }
  };

  // Callers (core.cc).
  Shard& ShardOf(size_t hash) { return shards_[(hash >> 57) % shard_count_]; }
  AnswerPtr Hit(Shard& shard, const Address& address, size_t hash, const ResolveOptions& options,
                BootTime now);
  AnswerPtr Decide(Shard& shard, Found& found, const Address& address, size_t hash,
                   const ResolveOptions& options, BootTime now, bool sync, Inbox::Content& post,
                   WaiterPtr& waiter);
  AnswerPtr ResolveSlowly(Shard& shard, const Address& address, size_t hash,
                          const ResolveOptions& options, BootTime now);
  AnswerPtr WaitFor(const WaiterPtr& waiter, Shard& shard, Slot& slot);
  void StartFlight(Flight& flight, const Address& address, size_t hash, BootTime now,
                   Inbox::Content& post);
  void PostSome(Inbox::Content&& post);
  void TimeOut(const WaiterPtr& waiter);
  void EndFlight(Shard& shard, const std::string& address, size_t hash);
  void Settle(Shard& shard, const std::string& address, size_t hash, BootTime now,
              Finished& finished);
  void Run(Finished& finished);
  AnswerPtr Unavailable(const Address& address) const;
  void SetError(Status status);

  // The worker (worker.cc).
  void Work();
  void Round(Inbox::Content content);
  BootTime NextWake(BootTime now) const;
  void OnStreamEvent(StreamEvent& event);
  void OnResponse(const pb::SubscribeResponse& response);
  bool OnFirst(const pb::SubscribeResponse& response, BootTime now);
  void OnAnswer(const pb::Answer& answer, std::string_view cluster, bool on_stream, BootTime now,
                Finished& finished);
  void OnConfirmed(const pb::SubscribeResponse& response, BootTime now, Finished& finished);
  void OnRefused(const pb::RefusedAddress& refused, BootTime now, Finished& finished);
  void OnMark(const pb::SubscribeResponse::Mark& mark, BootTime now, Finished& finished);
  void OnCallEvent(CallEvent& event);
  bool AdoptCluster(const std::string& cluster);
  void OnLookedUp(const SrvReply& reply, BootTime now);
  void Lost(Status why, BootTime now);
  void EndStream(const Status& why);
  void SetLink(LinkState link);
  void Tick(BootTime now);
  void TickPolls(BootTime now);
  void StartPoll(const Address& address, size_t hash, bool new_call);
  void Count(uint64_t ResolverStats::*counter);
  void Observe(ResolverEvent::Kind kind, const std::string& server, const Status& status);
  void Race(const Address& address, size_t hash, BootTime now);
  void Flush();
  void AddTimer(WaiterPtr waiter);
  void CloseAll();
  void Greet(const std::shared_ptr<Listener>& listener);
  void Tell(const std::string& address, size_t hash, const AnswerPtr& answer);
  void Deliver(Listener& listener, const AnswerPtr& answer);

  const ResolverPolicy policy_;
  const TlsFiles tls_;
  const std::function<void(const ResolverEvent&)> observer_;
  const size_t shard_count_;
  std::array<Shard, 16> shards_;
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  std::atomic<size_t> waiting_{0};
  std::atomic<bool> link_live_{false};
  std::atomic<uint64_t> changes_{0};
  std::thread worker_;
  std::atomic<std::thread::id> worker_id_{};

  mutable std::mutex status_mutex_;  // guards the next four; a leaf
  Status last_error_;
  std::vector<std::string> servers_;
  ResolverStats streams_;

  // The worker's own.
  Random random_;
  Failover failover_;
  Discovery discovery_;
  RetryBudget budget_;
  BootTime budget_at_{};  // no stream is opened before
  std::unique_ptr<Transport> transport_;
  uint64_t stream_ = 0, numbers_ = 0;  // 0: no stream
  std::string server_, last_server_, cluster_;
  bool live_ = false, writing_ = false, streams_begun_ = false;
  BootTime opened_at_{}, check_at_{}, last_heard_{};
  BootTime raced_at_{};  // another server answered what the stream's owed
  LinkState link_ = LinkState::kConnecting;
  std::deque<std::string> urgent_, dirty_;  // to add or drop; dirty_ after a reconnect
  Revision mark_;
  bool acknowledge_ = false;
  std::vector<WaiterPtr> timers_;  // a heap, the earliest first
  size_t compact_at_ = 4096;
  std::map<std::string, Poll> polls_;
};

}  // namespace datawire::resolver
