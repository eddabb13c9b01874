#include "view/row_cache.h"

#include <absl/hash/hash.h>

namespace datawire::directory {

size_t RowCache::BytesOf(std::string_view name, const Cached& value) {
  constexpr size_t kNodeBytes = 200;  // list node, index slot, control block
  return kNodeBytes + name.size() + (value.row ? value.row->bytes.size() : 0);
}

RowCache::Shard& RowCache::ShardOf(std::string_view name) {
  // High bits: the index inside a shard uses the low ones of the same hash.
  return shards_[(absl::Hash<std::string_view>()(name) >> 48) % kShards];
}

std::optional<Cached> RowCache::Find(std::string_view name) {
  Shard& shard = ShardOf(name);
  const MutexLock lock(shard.mutex);
  const auto found = shard.index.find(name);
  if (found == shard.index.end()) {
    ++shard.misses;
    return std::nullopt;
  }
  ++shard.hits;
  if (found->second != shard.order.begin())
    shard.order.splice(shard.order.begin(), shard.order, found->second);
  return found->second->value;
}

void RowCache::Fill(std::string_view name, Cached value, const std::function<bool()>& still) {
  Shard& shard = ShardOf(name);
  const MutexLock lock(shard.mutex);
  if (!still() || shard.index.contains(name)) return;
  const size_t bytes = BytesOf(name, value);
  if (bytes > shard_bytes_) return;
  shard.order.push_front({std::string(name), std::move(value), bytes});
  shard.index.emplace(shard.order.front().name, shard.order.begin());
  shard.bytes += bytes;
  Trim(shard);
}

void RowCache::Replace(std::string_view name, Cached value) {
  Shard& shard = ShardOf(name);
  const MutexLock lock(shard.mutex);
  const auto found = shard.index.find(name);
  if (found == shard.index.end()) return;
  Node& node = *found->second;
  shard.bytes -= node.bytes;
  node.bytes = BytesOf(name, value);
  shard.bytes += node.bytes;
  node.value = std::move(value);
  Trim(shard);
}

void RowCache::Trim(Shard& shard) {
  while (shard.bytes > shard_bytes_ && !shard.order.empty()) {
    shard.bytes -= shard.order.back().bytes;
    shard.index.erase(shard.order.back().name);
    shard.order.pop_back();
  }
}

uint64_t RowCache::Sum(uint64_t Shard::*figure) const {
  uint64_t sum = 0;
  for (const Shard& shard : shards_) {
    const MutexLock lock(shard.mutex);
    sum += shard.*figure;
  }
  return sum;
}

}  // namespace datawire::directory
