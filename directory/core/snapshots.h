#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "core/ground.h"

namespace datawire::directory {

/// The Snapshot and VerifySnapshot verbs: one at a time, on a thread of its own, since they read
/// and write a whole store. `done` may run inside the call. Thread-safe.
class Snapshots {
 public:
  using Done = std::function<void(Result<pb::SnapshotResponse>)>;

  explicit Snapshots(std::shared_ptr<Ground> ground) : ground_(std::move(ground)) {}
  ~Snapshots() { Stop(); }

  void Save(const std::string& directory, Done done);
  void Verify(const std::string& directory, Done done);
  /// Ends what verifies, waits for what is being made; later ones are refused.
  void Stop();

 private:
  using Job = std::function<Result<pb::SnapshotResponse>()>;
  void Start(Job job, Done done);

  const std::shared_ptr<Ground> ground_;
  std::mutex mu_;
  std::thread thread_;  // by mu_
  bool busy_ = false;   // by mu_
  std::atomic<bool> stopping_{false};
};

}  // namespace datawire::directory
