#include "engine/group.h"

#include <algorithm>

#include "datawire/limits.h"
#include "view/keys.h"

namespace datawire::directory {
namespace {

constexpr size_t kSmall = 7;              // guards, changes: shares a group
constexpr size_t kGroupBytes = 4u << 20;  // of changes: one write stays quick

bool Big(const Op& op) {
  return op.guards.size() > kSmall || op.changes.size() > kSmall;
}

size_t BytesOf(const Op& op) {
  size_t bytes = 0;
  for (const Change& change : op.changes) bytes += change.key.size() + change.value.size();
  return bytes;
}

}  // namespace

Status CheckOp(const Op& op) {
  absl::flat_hash_set<std::string_view> keys;
  for (const Change& change : op.changes) {
    if (!keys::IsRecord(change.key))
      return {Code::kInvalid, "key " + Shown(change.key) + " is not one that an op may write"};
    if (change.key.size() > limits::kKeyBytes)
      return {Code::kInvalid, "key is " + std::to_string(change.key.size()) + " bytes, at most " +
                                  std::to_string(limits::kKeyBytes)};
    if (change.value.size() > limits::kValueBytes)
      return {Code::kInvalid, "value of " + Shown(change.key) + " is " +
                                  std::to_string(change.value.size()) + " bytes, at most " +
                                  std::to_string(limits::kValueBytes)};
    if (op.changes.size() > 1 && !keys.insert(change.key).second)
      return {Code::kInvalid, "key " + Shown(change.key) + " is changed twice in one op"};
  }
  return {};
}

bool Group::Fits(const Op& op) const {
  if (ops_ == 0) return true;
  if (alone_ || Big(op) || ops_ >= limits::kGroupOps || bytes_ + BytesOf(op) > kGroupBytes)
    return false;
  const auto written = [this](const auto& item) { return written_.contains(item.key); };
  return std::none_of(op.guards.begin(), op.guards.end(), written) &&
         std::none_of(op.changes.begin(), op.changes.end(), written) &&
         !written_.contains(op.read_on_failure);
}

Result<const std::optional<Record>*> Group::Before(const std::string& key) {
  auto known = batch_.before.find(key);
  if (known == batch_.before.end()) {
    DW_ASSIGN(std::optional<Record> record, read_(key));
    known = batch_.before.emplace(key, std::move(record)).first;
  }
  return &known->second;
}

Result<bool> Group::Holds(const Guard& guard) {
  DW_ASSIGN(const std::optional<Record>* const before, Before(guard.key));
  const std::optional<Record>& record = *before;
  switch (guard.is) {
    case Guard::kAbsent:
      return !record;
    case Guard::kExists:
      return record.has_value();
    case Guard::kModEquals:
      return record && record->modified == guard.revision;
    case Guard::kCreateEquals:
      return record && record->created == guard.revision;
  }
  return false;
}

Outcome Group::Add(Op& op) {
  Outcome out;
  out.at = batch_.at;
  for (const Guard& guard : op.guards) {
    auto holds = Holds(guard);
    if (!holds.ok()) {
      out.status = std::move(holds).status();
      return out;
    }
    if (*holds) continue;
    out.status = Status(Code::kConflict, "the guard on " + Shown(guard.key) + " does not hold");
    if (op.read_on_failure.empty()) return out;
    const auto read = Before(op.read_on_failure);
    if (!read.ok())
      out.status = read.status();
    else if (**read)
      out.read.push_back(***read);
    return out;
  }
  std::vector<Record> puts;
  std::vector<std::string> erased;
  for (Change& change : op.changes) {
    const auto former = Before(change.key);
    if (!former.ok()) {
      out.status = former.status();
      return out;
    }
    if (!change.erase) {
      const uint64_t created = **former ? (**former)->created : batch_.at.number;
      puts.push_back({change.key, std::move(change.value), created, batch_.at.number});
    } else if (**former) {
      erased.push_back(change.key);
    }
  }
  ++ops_;
  alone_ = Big(op);
  for (Record& put : puts) {
    bytes_ += put.key.size() + put.value.size();
    written_.insert(put.key);
    batch_.puts.push_back(std::move(put));
  }
  for (std::string& key : erased) {
    written_.insert(key);
    batch_.erased.push_back(std::move(key));
  }
  return out;
}

}  // namespace datawire::directory
