#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "core/directory.h"
#include "core/ids.h"
#include "datawire/limits.h"
#include "datawire/mutex.h"
#include "view/principal.h"

namespace datawire::directory {

/// What the verbs share: store, log, identity of the node, time of the last tick, counters. It
/// outlives the Directory where a callback of the log still holds it. Thread-safe.
struct Ground {
  Ground(View& the_view, Log& the_log, DirectoryOptions the_options, BootTime start)
      : view(the_view),
        log(the_log),
        options(std::move(the_options)),
        quotas(std::make_shared<Quotas>(options.quotas)),
        ids(options.seed) {
    set_now(start);
    source.set_cluster_id(view.authority().cluster_id);
    source.set_epoch(view.authority().epoch);
    source.set_node_id(options.node_id);
  }

  BootTime now() const { return BootTime(BootClock::duration(now_ns.load())); }
  void set_now(BootTime now) { now_ns = now.time_since_epoch().count(); }
  /// Of a proposal; the engine measures it on the clock itself. Longer than an election of etcd
  /// takes (3 s, p99), shorter than P15 gives a client, who is told then and asks another node.
  BootTime commit_deadline() const { return BootClock::now() + std::chrono::seconds(4); }
  /// When `done` runs with OK, the view shows all that was committed anywhere before the call: a
  /// node of a cluster is a little behind.
  void CatchUp(BootTime deadline, std::function<void(Status)> done) {
    log.ReadBarrier(std::min(deadline, commit_deadline()),
                    [this, done = std::move(done)](const Result<Revision>& at) {
                      if (at.ok() && view.Applied() < *at)
                        return done({Code::kUnavailable, "this node is behind etcd"});
                      done(at.status());
                    });
  }
  /// What an actor's registrations would have to fit in; held until they are committed.
  Result<Quotas::Held> HoldQuota(const std::string& principal, size_t more) {
    if (principal.empty() || more == 0) return Quotas::Held();
    DW_ASSIGN(const uint64_t has, view.RegistrationsHeldBy(principal));
    return quotas->Take(Quotas::Kind::kRegistrations, principal, more, has);
  }
  Revision At(uint64_t number) const { return {view.authority().epoch, number}; }
  /// Since this node last knew itself to be current.
  uint64_t AgeMs() const {
    const auto age = BootClock::now() - log.Fresh().fresh_as_of;
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(age).count();
    return ms > 0 ? ms : 0;
  }

  View& view;
  Log& log;
  const DirectoryOptions options;
  const std::shared_ptr<Quotas> quotas;
  Ids ids;
  pb::Source source;
  std::atomic<int64_t> now_ns{0};

  struct Counts {
    std::atomic<uint64_t> resolves{0}, resolved_names{0}, registers{0}, withdraws{0}, refused{0};
    std::atomic<uint64_t> heartbeats{0}, sessions_opened{0}, sessions_resumed{0}, sessions_ended{0},
        sessions_expired{0};
    std::atomic<uint64_t> pushes{0}, watch_events{0}, watch_resyncs{0}, brake_trips{0};
    std::atomic<uint64_t> streams_paced{0};
  } counts;
};

/// Who did it, for tombstones and events: never a session id.
inline std::string NameOf(const Peer& peer) {
  return peer.identity.empty() ? peer.address : peer.identity;
}

inline std::string PrincipalOf(const Peer& peer) {
  return PrincipalOf(peer.identity, peer.address);
}

/// The stream of something that a front-end may drop at any moment: after Detach returns, Wake is
/// neither running nor called again. Detach only where no lock is held that Wake takes.
/// Thread-safe.
class StreamGate {
 public:
  explicit StreamGate(Stream& stream) : stream_(&stream) {}
  void Wake() {
    const MutexLock lock(mu_);
    if (stream_ != nullptr) stream_->Wake();
  }
  void Detach() {
    const MutexLock lock(mu_);
    stream_ = nullptr;
  }

 private:
  Mutex mu_;
  Stream* stream_ DW_GUARDED_BY(mu_);
};

}  // namespace datawire::directory
