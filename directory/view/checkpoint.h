#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "datawire/revision.h"
#include "view/view.h"

/// Copies of a store on disc, for backups: made while it is served, read without being changed.
namespace datawire::directory {

/// What a store holds. Value.
struct StoreFacts {
  uint32_t format = 0;
  std::string cluster_id;
  Revision at;
  uint64_t registrations = 0, addresses = 0, sessions = 0;
  uint64_t bytes = 0;  ///< of its files
};

/// Makes a copy at `path` (absolute, not there yet, its parent is) as of one revision, complete or
/// not at all; files that do not change are shared with the store where the disc allows it.
/// kInvalid, kConflict: the path; kDenied, kOverloaded: the disc.
Status SaveSnapshot(View& view, const std::string& path);

enum class Depth { kHead, kWhole };
/// Opens the store at `path` without writing there. kWhole reads all of it: every checksum, and
/// that the counts are those of its records. kNotFound, kUnsupported, kCorrupt: what is wrong with
/// it. A data directory is refused (kInvalid): a server may be writing to it.
/// `stop` ends it soon (kUnavailable).
Result<StoreFacts> ReadSnapshot(const std::string& path, Depth depth,
                                const std::atomic<bool>& stop);

/// Makes a copied store, which nobody serves, one of a new epoch. Its history goes: a watcher of
/// the former epoch begins anew.
Status SetEpoch(const std::string& path, uint64_t epoch);

}  // namespace datawire::directory
