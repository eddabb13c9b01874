#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace datawire::directory {

/// A disc that can fail its syncs, be full, and forget at a power loss what was not synced.
class FailingDisc final : public rocksdb::FileSystemWrapper {
 public:
  FailingDisc() : rocksdb::FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FailingDisc"; }

  std::atomic<bool> fail_syncs{false};
  std::atomic<bool> no_space{false};
  std::atomic<uint64_t> free_bytes{1ull << 40};

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override {
    auto status = target()->NewWritableFile(name, options, result, debug);
    if (status.ok() && name.ends_with(".log"))
      result->reset(new Wal(*this, name, std::move(*result)));
    return status;
  }
  rocksdb::IOStatus GetFreeSpace(const std::string&, const rocksdb::IOOptions&, uint64_t* free,
                                 rocksdb::IODebugContext*) override {
    *free = free_bytes;
    return rocksdb::IOStatus::OK();
  }

  /// What a disc holds after a power loss now: a copy in which each log has zeros after what was
  /// synced, and `torn` bytes of what was not.
  void CopyAsAfterPowerLoss(const std::string& from, const std::string& to, uint64_t torn = 0) {
    namespace fs = std::filesystem;
    // RocksDB deletes files it no longer needs in the background: a copy that missed one is none.
    std::error_code error;
    do {
      fs::remove_all(to);
      fs::copy(from, to, fs::copy_options::recursive, error);
    } while (error == std::errc::no_such_file_or_directory);
    const std::lock_guard lock(mutex_);
    for (const auto& [name, size] : synced_) {
      const fs::path copy = fs::path(to) / fs::path(name).filename();
      if (!fs::exists(copy) || fs::file_size(copy) <= size + torn) continue;
      const uint64_t whole = fs::file_size(copy);
      fs::resize_file(copy, size + torn);
      fs::resize_file(copy, whole);
    }
  }

 private:
  class Wal final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    Wal(FailingDisc& disc, std::string name, std::unique_ptr<rocksdb::FSWritableFile> file)
        : FSWritableFileOwnerWrapper(std::move(file)), disc_(disc), name_(std::move(name)) {
      disc_.Synced(name_, 0);
    }
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
      if (disc_.no_space) return rocksdb::IOStatus::NoSpace("test");
      written_ += data.size();
      return FSWritableFileOwnerWrapper::Append(data, options, debug);
    }
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             const rocksdb::DataVerificationInfo&,
                             rocksdb::IODebugContext* debug) override {
      return Append(data, options, debug);
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* debug) override {
      if (disc_.fail_syncs) return rocksdb::IOStatus::IOError("test: sync failed");
      const auto status = FSWritableFileOwnerWrapper::Sync(options, debug);
      if (status.ok()) disc_.Synced(name_, written_);
      return status;
    }
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options,
                            rocksdb::IODebugContext* debug) override {
      return Sync(options, debug);
    }

   private:
    FailingDisc& disc_;
    const std::string name_;
    uint64_t written_ = 0;
  };

  void Synced(const std::string& name, uint64_t size) {
    const std::lock_guard lock(mutex_);
    synced_[name] = size;
  }
  std::mutex mutex_;
  std::map<std::string, uint64_t> synced_;  // by mutex_
};

}  // namespace datawire::directory
