#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "datawire/mutex.h"
#include "engine/etcd/client.h"
#include "engine/etcd/feed.h"
#include "engine/etcd/patience.h"
#include "engine/etcd/writer.h"

namespace datawire::directory::etcd {

/// When this node last knew itself to be current: a probe through another member than the watch's
/// says where etcd is, and the view has got there. A watch that falls behind is moved.
/// Thread-safe.
class Prober {
 public:
  /// `authority`: whose data etcd must hold, null while it is being filled. `failed`: it holds
  /// others', or has gone back in time.
  Prober(Client& client, Feed& feed, const View::Authority* authority,
         std::function<void(Status)> failed);
  ~Prober();

  /// From the apply thread.
  void Applied(uint64_t number);
  Log::Freshness Fresh(BootTime now) const;
  void Stop();

 private:
  struct Probe {
    BootTime sent;
    uint64_t at;
  };
  void Run();
  /// False: it must not go on.
  bool CheckAuthority();

  Client& client_;
  Feed& feed_;
  const View::Authority* authority_;
  const std::function<void(Status)> failed_;
  mutable Mutex mutex_;
  Condition wake_;
  std::deque<Probe> ahead_ DW_GUARDED_BY(mutex_);  // the view is not there yet
  Patience patience_ DW_GUARDED_BY(mutex_);
  uint64_t applied_ DW_GUARDED_BY(mutex_) = 0;
  BootTime fresh_as_of_ DW_GUARDED_BY(mutex_);
  std::string failure_ DW_GUARDED_BY(mutex_);
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

/// The node's own keys in etcd: that it lives (under a lease; losing it ends nothing), how far it
/// is, and the roles it holds, each held by at most one node, all of whose acts guard on it.
/// Compacts and has replicas compared, if that is its role. Thread-safe.
class Keeper {
 public:
  struct Figures {
    std::atomic<uint64_t> leases_lost{0}, compactions{0};
  };
  /// `failed`: another run of this node has taken over.
  Keeper(Client& client, Writer& writer, View& view, NodeKeys keys,
         std::function<void(Status)> failed);
  ~Keeper();

  /// What `alive/<node>` says; before that it is not there.
  void Announce(std::string alive);
  /// The guard that holds as long as this node has the role; nothing: it has not.
  std::optional<Guard> Role(const std::string& role) const;
  bool lease_held() const { return lease_held_; }
  const Figures& figures() const { return figures_; }
  /// Gives the lease back.
  void Stop();

 private:
  struct Moment {
    BootTime at;
    uint64_t applied;
  };
  void Run();
  void LookForSuccessor();
  void KeepLease();
  Status PutUnderLease(const std::string& key, const std::string& value, uint64_t former);
  void TakeRoles();
  void NoteApplied(BootTime now);
  void CompactAndCheck(BootTime now);

  Client& client_;
  Writer& writer_;
  View& view_;
  const NodeKeys keys_;
  const std::function<void(Status)> failed_;
  Figures figures_;
  std::atomic<bool> lease_held_{false};
  // Its thread only.
  int64_t lease_ = 0;
  BootTime kept_{}, noted_{}, compacted_{}, checked_{};
  uint64_t compacted_to_ = 0;
  std::deque<Moment> moments_;

  bool announced_ = false;

  Mutex mutex_;
  Condition wake_;
  std::string alive_ DW_GUARDED_BY(mutex_);
  bool news_ DW_GUARDED_BY(mutex_) = false;
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace datawire::directory::etcd
