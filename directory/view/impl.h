#pragma once

#include <rocksdb/env.h>

#include <atomic>
#include <deque>

#include "datawire/mutex.h"
#include "view/reading.h"
#include "view/row_cache.h"
#include "view/stager.h"
#include "view/view.h"

namespace datawire::directory {

/// The store as of one published revision. Keeps old versions on disc while it lives.
struct PublishedPoint {
  PublishedPoint(rocksdb::DB* store, Revision revision)
      : db(store), snapshot(store->GetSnapshot()), at(revision) {}
  ~PublishedPoint() { db->ReleaseSnapshot(snapshot); }
  PublishedPoint(const PublishedPoint&) = delete;
  PublishedPoint& operator=(const PublishedPoint&) = delete;
  Reading reading() const { return {.db = db, .snapshot = snapshot}; }

  rocksdb::DB* const db;
  const rocksdb::Snapshot* const snapshot;
  const Revision at;
};

/// How readers see one revision. Publish makes `generation` odd, replaces rows in the cache, then
/// `point`, then `applied`, and makes it even again. A reader of one cached row takes `applied`
/// first: the row is that new or newer. A reader of several rows (or of an address and its
/// ancestors) takes the generation before and after and begins again if it moved; what the cache
/// lacks it reads from `point`, never from the newest state, which may be written but not yet
/// published. After a few attempts it reads everything from one `point`, which needs no luck.
struct View::Impl {
  std::string path;
  ViewOptions options;
  Authority authority;
  std::unique_ptr<rocksdb::Env> env;
  std::unique_ptr<rocksdb::DB> db;
  std::unique_ptr<RowCache> cache;
  std::unique_ptr<Recent> recent;
  Mutex listener_mutex;
  Listener listener DW_GUARDED_BY(listener_mutex);
  std::function<void(std::string_view)> stop_point;

  std::atomic<uint64_t> generation{0};
  std::atomic<uint64_t> applied{0};  // revision number
  mutable Mutex point_mutex;
  std::shared_ptr<const PublishedPoint> point DW_GUARDED_BY(point_mutex);

  // Apply thread only.
  std::deque<StagedRevision> staged;
  AppliedState state;  // published

  mutable Mutex counts_mutex;
  AppliedState counted DW_GUARDED_BY(counts_mutex);

  Mutex history_mutex;
  HistoryFloor floor DW_GUARDED_BY(history_mutex);

  Mutex audit_mutex;  // one trim at a time

  // Sweeps begin here, past the erased beginnings of the queues.
  mutable Mutex sweep_mutex;
  mutable uint64_t tombstones_from DW_GUARDED_BY(sweep_mutex) = 0;
  mutable uint64_t last_endpoints_from DW_GUARDED_BY(sweep_mutex) = 0;

  std::shared_ptr<const PublishedPoint> Point() const {
    const MutexLock lock(point_mutex);
    return point;
  }
  void PublishOne(StagedRevision& revision);
  void KeepHistoryBound(uint64_t history_bytes);
  void Trim(uint64_t up_to) DW_REQUIRES(history_mutex);
  /// Of what nobody waits for.
  rocksdb::WriteOptions WriteOptions() const {
    rocksdb::WriteOptions out;
    out.disableWAL = !options.wal;
    return out;
  }
  void Stop(std::string_view where) const {
    if (stop_point) stop_point(where);
  }

  /// One look-up at one generation, or (`generation` odd) from the point alone.
  struct Lookup {
    std::shared_ptr<const PublishedPoint> point;  // taken at the first need
    uint64_t generation = 0;
    bool use_cache = true;
  };
  Result<Cached> Read(const std::string& key, std::string_view name, Lookup& lookup) const;
  Status Match(const Address& address, Lookup& lookup, directory::Match* out) const;

  std::vector<Due> DueFrom(keys::Queue queue, uint64_t* from, uint64_t up_to, size_t most) const;
};

}  // namespace datawire::directory
