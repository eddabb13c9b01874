#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "datawire/result.h"

namespace datawire::cli {

/// A program that runs beside us, with our stdin, stdout and stderr. Thread-compatible.
class Child {
 public:
  /// kInvalid when it cannot be run.
  static Result<Child> Start(const std::vector<std::string>& command);

  /// Its exit code once it ended, 128 + the number of a signal that ended it. Does not wait.
  std::optional<int> Ended();
  /// SIGTERM, if it runs.
  void Terminate();

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
  std::optional<int> code_;
};

}  // namespace datawire::cli
