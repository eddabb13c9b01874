#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/held_snapshots.h"

namespace datawire::directory {

/// The List verb: pages of one held snapshot each. Thread-safe.
class ListVerb {
 public:
  explicit ListVerb(std::shared_ptr<Ground> ground)
      : ground_(std::move(ground)),
        held_(ground_, limits::kListSnapshots, "list", "lists are open") {}

  Result<pb::ListResponse> List(const pb::ListRequest& request);
  /// Lets go of snapshots whose 60 s are over.
  void Tick(BootTime now) { held_.Tick(now); }

 private:
  /// One page from `after` on; `next` is where the one after it begins, empty at the end.
  Result<pb::ListResponse> Page(const View::Snapshot& snapshot,
                                const std::optional<Address>& prefix, const std::string& after,
                                size_t most, std::string* next);

  const std::shared_ptr<Ground> ground_;
  HeldSnapshots held_;
};

}  // namespace datawire::directory
