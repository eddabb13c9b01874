#pragma once

#include <memory>
#include <string>

#include "core/held_snapshots.h"

namespace datawire::directory {

/// The Export verb: pages of one held snapshot each, as List's. Thread-safe.
class ExportVerb {
 public:
  explicit ExportVerb(std::shared_ptr<Ground> ground)
      : ground_(std::move(ground)), held_(ground_, kSnapshots, "export", "exports are under way") {}

  Result<pb::ExportResponse> Export(const pb::ExportRequest& request);
  /// Lets go of snapshots whose 60 s are over.
  void Tick(BootTime now) { held_.Tick(now); }

 private:
  static constexpr size_t kSnapshots = 4;  // exports at a time: operators, not clients

  static Status Read(const View::Snapshot& snapshot, size_t want, pb::ExportResponse* response,
                     std::string* next);

  const std::shared_ptr<Ground> ground_;
  HeldSnapshots held_;
};

}  // namespace datawire::directory
