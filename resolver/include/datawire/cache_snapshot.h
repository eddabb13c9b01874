#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "datawire/answer.h"
#include "datawire/result.h"

namespace datawire {

/// What a resolver's snapshot file holds. Value.
struct CacheSnapshot {
  std::string cluster;
  Revision revision;                   ///< the greatest of its answers
  int64_t saved_wall_ms = 0;           ///< for people
  std::chrono::milliseconds since{0};  ///< it was saved, as well as this machine can know
  std::vector<Answer> answers;         ///< by address; each with its age now
};

/// kNotFound: no such file; kCorrupt: not a whole snapshot, and at which byte; kInvalid: from the
/// future. One that is too old for a resolver is read all the same.
Result<CacheSnapshot> ReadCacheSnapshot(const std::string& path);

}  // namespace datawire
