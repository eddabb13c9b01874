#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/ground.h"

namespace datawire::directory {

/// The List verb: pages of one held snapshot each. Thread-safe.
class ListVerb {
 public:
  explicit ListVerb(std::shared_ptr<Ground> ground) : ground_(std::move(ground)) {}

  Result<pb::ListResponse> List(const pb::ListRequest& request);
  /// Lets go of snapshots whose 60 s are over.
  void Tick(BootTime now);

 private:
  struct Held {
    std::shared_ptr<View::Snapshot> snapshot;
    std::optional<Address> prefix;
    BootTime until;
  };
  /// One page from `after` on; `next` is where the one after it begins, empty at the end.
  Result<pb::ListResponse> Page(const View::Snapshot& snapshot,
                                const std::optional<Address>& prefix, const std::string& after,
                                size_t most, std::string* next);

  std::shared_ptr<Ground> ground_;
  std::mutex mu_;
  std::map<std::string, Held> held_;  // by random id; guarded by mu_
};

}  // namespace datawire::directory
