#include "view/recent.h"

#include <string_view>
#include <utility>

namespace datawire::directory {
namespace {

size_t BytesOf(std::string_view key, const Recent::Value& value) {
  constexpr size_t kSlotBytes = 100;  // the slot, its share of free ones, two allocations
  return kSlotBytes + key.size() + (value ? value->size() : 0);
}

}  // namespace

std::optional<Recent::Value> Recent::Find(const std::string& key) {
  const MutexLock lock(mutex_);
  if (const auto found = young_.find(key); found != young_.end()) return found->second;
  const auto found = old_.find(key);
  if (found == old_.end()) return std::nullopt;
  Value value = found->second;
  Insert(key, value);
  return value;
}

void Recent::Set(std::string key, Value value) {
  const MutexLock lock(mutex_);
  Insert(std::move(key), std::move(value));
}

void Recent::Insert(std::string key, Value value) {
  const size_t bytes = BytesOf(key, value);
  if (young_bytes_ + bytes > half_) {
    old_ = std::exchange(young_, {});
    old_bytes_ = std::exchange(young_bytes_, 0);
  }
  const auto [slot, added] = young_.try_emplace(std::move(key));
  if (!added) young_bytes_ -= BytesOf(slot->first, slot->second);
  slot->second = std::move(value);
  young_bytes_ += bytes;
}

size_t Recent::bytes() const {
  const MutexLock lock(mutex_);
  return young_bytes_ + old_bytes_;
}

}  // namespace datawire::directory
