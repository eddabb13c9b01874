#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "datawire/result.h"

namespace rocksdb {
class DB;
}

namespace datawire::intermediaries {

/// The messages of a queue on disc: number to encoded message, in one RocksDB. Thread-compatible.
class QueueStore {
 public:
  /// kUnavailable when the folder cannot be used, or another process has it.
  static Result<std::unique_ptr<QueueStore>> Open(const std::string& folder);
  ~QueueStore();

  /// All that is there, in order. kCorrupt for what is no message of ours.
  Status Load(const std::function<void(uint64_t number, const std::vector<char>& message)>& each);
  struct Message {
    uint64_t number;
    std::vector<char> encoded;
  };
  /// All of them, on disc when it returns; or none.
  Status Append(const std::vector<Message>& messages);
  Result<std::vector<char>> Get(uint64_t number);
  /// Not synced: what a crash brings back is delivered again.
  Status Remove(const std::vector<uint64_t>& numbers);

 private:
  explicit QueueStore(std::unique_ptr<rocksdb::DB> db);
  const std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace datawire::intermediaries
