#pragma once

#include <absl/container/flat_hash_map.h>

#include <optional>
#include <string>

#include "datawire/mutex.h"

namespace datawire::directory {

/// Stored values by key, absence too, as of the last Publish: of what was written lately, and of
/// what the apply thread read. A registration that comes again is then planned, checked and staged
/// without a search in RocksDB. Two generations: when the younger has half of the bytes, the older
/// goes, and what is still asked for has moved over by then. Thread-safe.
class Recent {
 public:
  using Value = std::optional<std::string>;

  explicit Recent(size_t bytes) : half_(bytes / 2) {}

  /// Nothing: not known here, ask the store.
  std::optional<Value> Find(const std::string& key);
  /// Apply thread only: what the store holds, which nobody else changes.
  void Set(std::string key, Value value);
  size_t bytes() const;

 private:
  using Values = absl::flat_hash_map<std::string, Value>;
  void Insert(std::string key, Value value) DW_REQUIRES(mutex_);

  const size_t half_;
  mutable Mutex mutex_;
  Values young_ DW_GUARDED_BY(mutex_), old_ DW_GUARDED_BY(mutex_);
  size_t young_bytes_ DW_GUARDED_BY(mutex_) = 0, old_bytes_ DW_GUARDED_BY(mutex_) = 0;
};

}  // namespace datawire::directory
