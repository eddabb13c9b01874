#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace datawire {

/// A total order of changes inside an epoch; the epoch changes only by restore from backup.
/// {0, 0} is "none yet".
struct Revision {
  uint64_t epoch = 0;
  uint64_t number = 0;

  friend auto operator<=>(const Revision&, const Revision&) = default;

  /// `1:42`, as `dw` prints it.
  std::string ToString() const;
};

}  // namespace datawire
