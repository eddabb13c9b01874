#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "core.h"
#include "datawire/resolver.h"
#include "snapshot.h"

namespace datawire::resolver {

/// Keeps the snapshot file of a Core, on a thread of its own: an fsync may take seconds, and nobody
/// who resolves waits for it. Load, Start, Stop, once each and in that order, the last when the
/// core has stopped. Thread-safe.
class SnapshotKeeper {
 public:
  SnapshotKeeper(const ResolverOptions& options, Core& core, uint64_t seed);

  /// What cannot be used stays where it is until there is something to save; AddTo tells why.
  void Load();
  void Start();
  /// Saves once more.
  void Stop();
  void AddTo(ResolverStats& stats) const;

 private:
  void Work();
  Status Save();

  const std::string path_, cluster_;
  const std::chrono::milliseconds max_stale_;
  Core& core_;
  std::mt19937_64 random_;     // Work's
  SnapshotSchedule schedule_;  // Work's
  std::thread thread_;

  mutable std::mutex mutex_;  // guards all below; a leaf
  std::condition_variable some_;
  bool stop_ = false;
  uint64_t loaded_ = 0, saves_ = 0, failures_ = 0;
  std::string error_;
};

}  // namespace datawire::resolver
