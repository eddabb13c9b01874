#pragma once

#include <absl/container/flat_hash_set.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/log.h"

namespace datawire::directory {

/// Reads the state before the group.
using ReadRecord = std::function<Result<std::optional<Record>>(const std::string& key)>;

/// kInvalid where no engine may take the op: sizes, foreign keys, a key changed twice.
Status CheckOp(const Op& op);

/// One group in forming: ops whose guards held, and what they change. Bound to the writer thread.
class Group {
 public:
  Group(Revision at, ReadRecord read) : read_(std::move(read)) { batch_.at = at; }

  /// False: the op touches a key written in this group, or must be alone, or does not fit; it goes
  /// first into the next one, and whatever was proposed after it stays behind it.
  bool Fits(const Op& op) const;
  /// Checks the guards on the state before the group and takes the changes in. kConflict with the
  /// record asked for when a guard fails; another code when the state cannot be read.
  Outcome Add(Op& op);

  bool writes() const { return !batch_.puts.empty() || !batch_.erased.empty(); }
  const Batch& batch() const { return batch_; }

 private:
  Result<bool> Holds(const Guard& guard);
  /// The state before the group stays what it is: each key is read once. Valid until the next call.
  Result<const std::optional<Record>*> Before(const std::string& key);

  const ReadRecord read_;
  Batch batch_;
  absl::flat_hash_set<std::string> written_;
  size_t ops_ = 0, bytes_ = 0;
  bool alone_ = false;
};

}  // namespace datawire::directory
