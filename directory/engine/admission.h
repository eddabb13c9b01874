#pragma once

#include <cstddef>

#include "engine/log.h"

namespace datawire::directory {

/// What may wait to be written, the same for every engine: kOverloaded with a retry-after beyond
/// it. What frees space must not wait for long behind what takes it. Thread-compatible.
class Admission {
 public:
  /// `queued`: ops that wait already.
  Status Admit(const Op& op, size_t queued);
  /// An op that was admitted waits no longer.
  void Leave(const Op& op) { waiting_ -= ChangesThatTake(op); }
  /// As many as those said before they were taken apart.
  void Leave(size_t changes) { waiting_ -= changes; }
  /// Changes that need space.
  static size_t ChangesThatTake(const Op& op) { return op.frees_space ? 0 : op.changes.size(); }

 private:
  size_t waiting_ = 0;
};

}  // namespace datawire::directory
