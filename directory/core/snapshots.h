#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/ground.h"
#include "core/long_job.h"

namespace datawire::directory {

/// The Snapshot and VerifySnapshot verbs: one at a time, on a thread of its own, since they read
/// and write a whole store. `done` may run inside the call. Thread-safe.
class Snapshots {
 public:
  using Done = std::function<void(Result<pb::SnapshotResponse>)>;

  explicit Snapshots(std::shared_ptr<Ground> ground) : ground_(std::move(ground)) {}

  void Save(const std::string& directory, Done done);
  void Verify(const std::string& directory, Done done);
  /// Ends what verifies, waits for what is being made; later ones are refused.
  void Stop() { job_.Stop(); }

 private:
  const std::shared_ptr<Ground> ground_;
  LongJob job_{"another snapshot is being made or verified"};
};

}  // namespace datawire::directory
