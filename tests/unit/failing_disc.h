#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace datawire::directory {

/// A disc under one folder that can fail its syncs, be full, and lose its power after any call.
/// Every call that changes it is kept in a list, so what a loss of power leaves can be told for
/// each point of it: of a file what was synced, or with `torn` a random part more, its end perhaps
/// zeros; of creations, renames and deletions what a sync of the folder made last, or with `torn`
/// some of the later ones, in order. What a failed sync was to write is lost, with `torn` perhaps
/// not, even if a later one works. The files are real ones, but for their syncs: the model decides.
/// Thread-safe.
class FailingDisc final : public rocksdb::FileSystemWrapper {
 public:
  /// What is in `folder` now has been synced. `folder` + ".inodes" becomes the disc's own.
  explicit FailingDisc(const std::string& folder);
  ~FailingDisc() override;
  const char* Name() const override { return "FailingDisc"; }

  std::atomic<bool> fail_syncs{false};
  /// The k-th sync from now on fails, once. 0: none.
  void FailSync(uint64_t k) { fail_sync_ = k; }
  /// So many bytes can still be written.
  void SetFree(uint64_t bytes);

  /// Calls so far that changed the disc.
  uint64_t calls() const { return calls_; }
  /// The `k`-th call from now on, and all after it, fail: the power is off.
  void CutPower(uint64_t k) { cut_at_ = calls_ + k; }
  bool off() const { return off_; }

  /// Makes `to` the folder as it is when the power was lost after the first `calls` calls.
  void WriteAsAfterPowerLoss(uint64_t calls, std::mt19937_64* torn, const std::string& to);

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewDirectory(const std::string& name, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* result,
                                 rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& name, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus GetFreeSpace(const std::string&, const rocksdb::IOOptions&, uint64_t* free,
                                 rocksdb::IODebugContext*) override;
  // Not modelled; the store does not use them.
  rocksdb::IOStatus ReopenWritableFile(const std::string&, const rocksdb::FileOptions&,
                                       std::unique_ptr<rocksdb::FSWritableFile>*,
                                       rocksdb::IODebugContext*) override;
  rocksdb::IOStatus ReuseWritableFile(const std::string&, const std::string&,
                                      const rocksdb::FileOptions&,
                                      std::unique_ptr<rocksdb::FSWritableFile>*,
                                      rocksdb::IODebugContext*) override;
  rocksdb::IOStatus LinkFile(const std::string&, const std::string&, const rocksdb::IOOptions&,
                             rocksdb::IODebugContext*) override;

 private:
  class File;
  class Folder;
  struct Call {
    enum Kind { kCreate, kAppend, kSync, kFailedSync, kDelete, kRename, kSyncFolder } kind;
    std::string name, to;
    uint64_t inode = 0, bytes = 0;
  };
  struct Inode {
    uint64_t written = 0, synced = 0;
    std::vector<std::pair<uint64_t, uint64_t>> lost;  // ranges that a failed sync did not write
  };
  struct State {
    std::map<std::string, uint64_t> names;  // as a sync of the folder would make them last
    std::map<std::string, uint64_t> synced_names;
    std::vector<Call> unsynced;  // of the folder
    std::map<uint64_t, Inode> inodes;
  };
  static void Apply(const Call& call, State& state);
  static void ApplyName(const Call& call, std::map<std::string, uint64_t>& names);
  State After(uint64_t calls);

  // Hold mutex_.
  bool Power();  // false: the next call fails
  bool SyncFails();
  rocksdb::IOStatus Append(uint64_t inode, const rocksdb::Slice& data,
                           rocksdb::FSWritableFile& file);
  rocksdb::IOStatus Sync(uint64_t inode);
  rocksdb::IOStatus Allocate(uint64_t inode, uint64_t bytes);
  void Forget(const std::string& name);  // its space is free
  void Done(Call call);
  std::string Shadow(uint64_t inode) const;

  const std::string folder_;
  std::atomic<uint64_t> calls_{0}, fail_sync_{0};
  std::atomic<uint64_t> cut_at_{~0ull};
  std::atomic<bool> off_{false};

  std::mutex mutex_;
  State first_, now_;
  std::vector<Call> done_;
  std::map<uint64_t, uint64_t> space_;  // by inode
  uint64_t next_inode_ = 1, used_ = 0, capacity_ = 1ull << 40;
};

}  // namespace datawire::directory
