#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core/ground.h"

namespace datawire::directory {

/// The Export verb: pages of one held snapshot each, as List's. Thread-safe.
class ExportVerb {
 public:
  explicit ExportVerb(std::shared_ptr<Ground> ground) : ground_(std::move(ground)) {}

  Result<pb::ExportResponse> Export(const pb::ExportRequest& request);
  /// Lets go of snapshots whose 60 s are over.
  void Tick(BootTime now);

 private:
  struct Held {
    std::shared_ptr<View::Snapshot> snapshot;
    BootTime until;
  };
  /// What a token stands for: the snapshot and where to go on. kAborted: it is held no more.
  Result<Held> Find(const std::string& page_token, std::string* token, std::string* after);

  static Status Read(const View::Snapshot& snapshot, size_t want, pb::ExportResponse* response,
                     std::string* next);

  std::shared_ptr<Ground> ground_;
  std::mutex mu_;
  std::map<std::string, Held> held_;  // by random id; guarded by mu_
};

}  // namespace datawire::directory
