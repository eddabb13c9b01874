#pragma once

#include <cstdint>
#include <string>

namespace rocksdb {
class FileSystem;
}

namespace datawire::directory {

/// Room on the disc kept back in a file of its own, for the day another program takes the rest:
/// released, it is what withdrawals are still written to (P20). Bound to the writer thread.
class Ballast {
 public:
  /// Removes what a former run left, holds nothing yet. `bytes` 0: there is none, ever.
  Ballast(rocksdb::FileSystem& files, std::string path, uint64_t bytes);

  /// Nothing is missing: it is held, or this file system cannot reserve room.
  bool complete() const { return held_ || bytes_ == 0; }
  void Take();
  void Release();

 private:
  rocksdb::FileSystem& files_;
  const std::string path_;
  uint64_t bytes_;
  bool held_ = false;
};

}  // namespace datawire::directory
