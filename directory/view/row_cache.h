#pragma once

#include <absl/container/flat_hash_map.h>

#include <array>
#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "datawire/mutex.h"
#include "view/view.h"

namespace datawire::directory {

/// Something that was read, its absence too: a row, or the depths of a domain's subtrees. Value.
struct Cached {
  std::shared_ptr<const Row> row;  ///< null: there is none (or it is a domain)
  bool domain_exists = false;
  uint64_t depths = 0;
};

/// Rows by name in shards, each the least recently used within its share of the bytes. Names: an
/// address's text for its own row, `u` before it for what is below, `y` and a domain. Thread-safe.
class RowCache {
 public:
  explicit RowCache(size_t bytes) : shard_bytes_(bytes / kShards) {}

  std::optional<Cached> Find(std::string_view name);
  /// Only if `still` holds, asked under the shard's lock: a Publish in between has changed what was
  /// read or will come after this fill and replace it.
  void Fill(std::string_view name, Cached value, const std::function<bool()>& still);
  /// What is cached becomes `value`; what is not stays out.
  void Replace(std::string_view name, Cached value);

  uint64_t hits() const { return Sum(&Shard::hits); }
  uint64_t misses() const { return Sum(&Shard::misses); }
  uint64_t bytes() const { return Sum(&Shard::bytes); }

 private:
  static constexpr size_t kShards = 16;
  struct Node {
    std::string name;
    Cached value;
    size_t bytes;
  };
  struct alignas(64) Shard {
    mutable Mutex mutex;
    std::list<Node> order DW_GUARDED_BY(mutex);  // most recently used first
    absl::flat_hash_map<std::string_view, std::list<Node>::iterator> index DW_GUARDED_BY(mutex);
    uint64_t hits DW_GUARDED_BY(mutex) = 0;
    uint64_t misses DW_GUARDED_BY(mutex) = 0;
    uint64_t bytes DW_GUARDED_BY(mutex) = 0;
  };
  static size_t BytesOf(std::string_view name, const Cached& value);
  Shard& ShardOf(std::string_view name);
  void Trim(Shard& shard) DW_REQUIRES(shard.mutex);
  uint64_t Sum(uint64_t Shard::*figure) const;

  const size_t shard_bytes_;
  std::array<Shard, kShards> shards_;
};

}  // namespace datawire::directory
