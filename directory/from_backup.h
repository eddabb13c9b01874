#pragma once

#include <cstdint>
#include <string>

#include "datawire/result.h"

/// A data directory made from a backup, before anybody serves it: `--import` and `--restore`. Both
/// keep the cluster id and raise the epoch: caches take its answers for newer than all they hold.
/// `epoch` 0: the backup's + 1; else this one, which must be greater. `data` is missing or empty
/// (kConflict otherwise). All or nothing: until the last step it is no directory of data.
namespace datawire::directory {

namespace etcd {
class Client;
}

/// What was made. Value.
struct Made {
  std::string cluster_id;
  uint64_t epoch = 0, registrations = 0, sessions = 0;
};

/// From the export `file`: its static registrations. kInvalid: it is no export, or is cut off.
Result<Made> MakeFromExport(const std::string& file, const std::string& data, uint64_t epoch);

/// The same into an empty etcd; `data` becomes a replica of it. Until the last step etcd has no
/// cluster id, and nobody serves from it.
Result<Made> FillEtcdFromExport(const std::string& file, etcd::Client& client,
                                const std::string& data, uint64_t epoch);

/// From a copy of `snapshot`, which is checked as a whole before. All it holds is there again,
/// sessions too; they have their grace when the directory opens.
Result<Made> MakeFromSnapshot(const std::string& snapshot, const std::string& data, uint64_t epoch);

}  // namespace datawire::directory
