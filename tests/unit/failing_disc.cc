#include "failing_disc.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "datawire/assert.h"

namespace datawire::directory {

namespace fs = std::filesystem;
using rocksdb::IOStatus;

namespace {

constexpr uint64_t kSector = 512;

std::string NameOf(const std::string& path) {
  return fs::path(path).filename();
}

IOStatus PowerIsOff() {
  return IOStatus::IOError("test: the power is off");
}

IOStatus NotModelled() {
  return IOStatus::NotSupported("test: not modelled");
}

}  // namespace

class FailingDisc::File final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(FailingDisc& disc, uint64_t inode, std::unique_ptr<rocksdb::FSWritableFile> file)
      : FSWritableFileOwnerWrapper(std::move(file)), disc_(disc), inode_(inode) {}

  IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions&,
                  rocksdb::IODebugContext*) override {
    const std::lock_guard lock(disc_.mutex_);
    return disc_.Append(inode_, data, *target());
  }
  IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                  const rocksdb::DataVerificationInfo&, rocksdb::IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    const std::lock_guard lock(disc_.mutex_);
    return disc_.Sync(inode_);
  }
  IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    return Sync(options, debug);
  }
  // A hint: makes nothing last.
  IOStatus RangeSync(uint64_t, uint64_t, const rocksdb::IOOptions&,
                     rocksdb::IODebugContext*) override {
    return IOStatus::OK();
  }
  IOStatus Allocate(uint64_t offset, uint64_t bytes, const rocksdb::IOOptions&,
                    rocksdb::IODebugContext*) override {
    const std::lock_guard lock(disc_.mutex_);
    return disc_.Allocate(inode_, offset + bytes);
  }
  IOStatus PositionedAppend(const rocksdb::Slice&, uint64_t, const rocksdb::IOOptions&,
                            rocksdb::IODebugContext*) override {
    return NotModelled();
  }
  IOStatus PositionedAppend(const rocksdb::Slice&, uint64_t, const rocksdb::IOOptions&,
                            const rocksdb::DataVerificationInfo&,
                            rocksdb::IODebugContext*) override {
    return NotModelled();
  }
  IOStatus Truncate(uint64_t, const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return NotModelled();
  }

 private:
  FailingDisc& disc_;
  const uint64_t inode_;
};

class FailingDisc::Folder final : public rocksdb::FSDirectoryWrapper {
 public:
  Folder(FailingDisc& disc, std::unique_ptr<rocksdb::FSDirectory> folder)
      : FSDirectoryWrapper(std::move(folder)), disc_(disc) {}
  IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    const std::lock_guard lock(disc_.mutex_);
    if (!disc_.Power()) return PowerIsOff();
    if (disc_.SyncFails()) return IOStatus::IOError("test: sync failed");
    disc_.Done({.kind = Call::kSyncFolder});
    return IOStatus::OK();
  }
  IOStatus FsyncWithDirOptions(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug,
                               const rocksdb::DirFsyncOptions&) override {
    return Fsync(options, debug);
  }

 private:
  FailingDisc& disc_;
};

FailingDisc::FailingDisc(const std::string& folder)
    : FileSystemWrapper(rocksdb::FileSystem::Default()), folder_(folder) {
  fs::remove_all(folder_ + ".inodes");
  fs::create_directories(folder_ + ".inodes");
  if (!fs::exists(folder_)) return;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const uint64_t inode = next_inode_++;
    fs::create_hard_link(entry.path(), Shadow(inode));
    first_.names[entry.path().filename()] = inode;
    const uint64_t size = entry.file_size();
    first_.inodes[inode] = {size, size, {}};
    space_[inode] = size;
    used_ += size;
  }
  first_.synced_names = first_.names;
  now_ = first_;
}

FailingDisc::~FailingDisc() {
  std::error_code ignored;
  fs::remove_all(folder_ + ".inodes", ignored);
}

std::string FailingDisc::Shadow(uint64_t inode) const {
  return folder_ + ".inodes/" + std::to_string(inode);
}

void FailingDisc::SetFree(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  capacity_ = used_ + bytes;
}

bool FailingDisc::Power() {
  if (calls_ + 1 >= cut_at_) off_ = true;
  return !off_;
}

bool FailingDisc::SyncFails() {
  return fail_syncs || (fail_sync_ > 0 && --fail_sync_ == 0);
}

void FailingDisc::Done(Call call) {
  Apply(call, now_);
  done_.push_back(std::move(call));
  calls_ = done_.size();
}

// ---- what a call does, now and told again later

void FailingDisc::ApplyName(const Call& call, std::map<std::string, uint64_t>& names) {
  if (call.kind == Call::kCreate) names[call.name] = call.inode;
  if (call.kind == Call::kDelete || call.kind == Call::kRename) names.erase(call.name);
  if (call.kind == Call::kRename) names[call.to] = call.inode;
}

void FailingDisc::Apply(const Call& call, State& state) {
  switch (call.kind) {
    case Call::kCreate:
    case Call::kDelete:
    case Call::kRename:
      ApplyName(call, state.names);
      state.unsynced.push_back(call);
      break;
    case Call::kAppend:
      state.inodes[call.inode].written += call.bytes;
      break;
    case Call::kSync:
      state.inodes[call.inode].synced = state.inodes[call.inode].written;
      break;
    case Call::kFailedSync: {
      Inode& inode = state.inodes[call.inode];
      if (inode.synced < inode.written) inode.lost.emplace_back(inode.synced, inode.written);
      inode.synced = inode.written;
      break;
    }
    case Call::kSyncFolder:
      state.synced_names = state.names;
      state.unsynced.clear();
      break;
  }
}

FailingDisc::State FailingDisc::After(uint64_t calls) {
  const std::lock_guard lock(mutex_);
  DW_ASSERT(calls <= done_.size());
  if (calls == done_.size()) return now_;
  State out = first_;
  for (uint64_t i = 0; i < calls; ++i) Apply(done_[i], out);
  return out;
}

void FailingDisc::WriteAsAfterPowerLoss(uint64_t calls, std::mt19937_64* torn,
                                        const std::string& to) {
  State state = After(calls);
  fs::remove_all(to);
  fs::create_directories(to);
  const auto upto = [torn](uint64_t most) { return torn ? (*torn)() % (most + 1) : 0; };
  const uint64_t kept = upto(state.unsynced.size());
  for (uint64_t i = 0; i < kept; ++i) ApplyName(state.unsynced[i], state.synced_names);
  for (const auto& [name, inode] : state.synced_names) {
    Inode& file = state.inodes[inode];
    const uint64_t more = upto(file.written - file.synced);
    std::string bytes(file.synced + more, '\0');
    std::ifstream(Shadow(inode), std::ios::binary)
        .read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    for (const auto& [from, end] : file.lost)
      if (upto(1) == 0) std::fill(&bytes[from], &bytes[0] + end, '\0');
    // The length may be on the disc before the sectors are.
    if (more > 0 && upto(1) == 1) {
      const uint64_t from = std::max(file.synced, (bytes.size() - upto(more)) / kSector * kSector);
      std::fill(bytes.begin() + static_cast<ptrdiff_t>(from), bytes.end(), '\0');
    }
    std::ofstream(to + "/" + name, std::ios::binary) << bytes;
  }
}

// ---- calls

IOStatus FailingDisc::NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSWritableFile>* result,
                                      rocksdb::IODebugContext* debug) {
  const std::lock_guard lock(mutex_);
  if (!Power()) return PowerIsOff();
  // A file of its own, whatever had the name: that one may come back.
  std::error_code ignored;
  fs::remove(name, ignored);
  const IOStatus status = target()->NewWritableFile(name, options, result, debug);
  if (!status.ok()) return status;
  Forget(NameOf(name));
  const uint64_t inode = next_inode_++;
  fs::create_hard_link(name, Shadow(inode));
  Done({.kind = Call::kCreate, .name = NameOf(name), .to = "", .inode = inode});
  *result = std::make_unique<File>(*this, inode, std::move(*result));
  return IOStatus::OK();
}

IOStatus FailingDisc::NewDirectory(const std::string& name, const rocksdb::IOOptions& options,
                                   std::unique_ptr<rocksdb::FSDirectory>* result,
                                   rocksdb::IODebugContext* debug) {
  IOStatus status = target()->NewDirectory(name, options, result, debug);
  if (status.ok()) *result = std::make_unique<Folder>(*this, std::move(*result));
  return status;
}

IOStatus FailingDisc::DeleteFile(const std::string& name, const rocksdb::IOOptions& options,
                                 rocksdb::IODebugContext* debug) {
  const std::lock_guard lock(mutex_);
  const auto known = now_.names.find(NameOf(name));
  if (known == now_.names.end()) return target()->DeleteFile(name, options, debug);
  if (!Power()) return PowerIsOff();
  const IOStatus status = target()->DeleteFile(name, options, debug);
  Forget(known->first);
  Done({.kind = Call::kDelete, .name = known->first, .to = "", .inode = known->second});
  return status;
}

IOStatus FailingDisc::RenameFile(const std::string& from, const std::string& to,
                                 const rocksdb::IOOptions& options,
                                 rocksdb::IODebugContext* debug) {
  const std::lock_guard lock(mutex_);
  const auto known = now_.names.find(NameOf(from));
  if (known == now_.names.end()) return target()->RenameFile(from, to, options, debug);
  if (!Power()) return PowerIsOff();
  const IOStatus status = target()->RenameFile(from, to, options, debug);
  Forget(NameOf(to));
  Done({.kind = Call::kRename, .name = known->first, .to = NameOf(to), .inode = known->second});
  return status;
}

IOStatus FailingDisc::GetFreeSpace(const std::string&, const rocksdb::IOOptions&, uint64_t* free,
                                   rocksdb::IODebugContext*) {
  const std::lock_guard lock(mutex_);
  *free = capacity_ - std::min(capacity_, used_);
  return IOStatus::OK();
}

IOStatus FailingDisc::Append(uint64_t inode, const rocksdb::Slice& data,
                             rocksdb::FSWritableFile& file) {
  // What is handed over as the power goes may still reach the disc, in part.
  if (off_) return PowerIsOff();
  const bool power = Power();
  uint64_t& space = space_[inode];
  const uint64_t written = now_.inodes[inode].written;
  const uint64_t fits = space - std::min(space, written) + capacity_ - std::min(capacity_, used_);
  const uint64_t taken = std::min<uint64_t>(data.size(), fits);
  const IOStatus status = file.Append({data.data(), taken}, {}, nullptr);
  Done({.kind = Call::kAppend, .name = "", .to = "", .inode = inode, .bytes = taken});
  const uint64_t grown = std::max(space, written + taken) - space;
  space += grown;
  used_ += grown;
  if (!power) return PowerIsOff();
  return taken < data.size() ? IOStatus::NoSpace("test") : status;
}

IOStatus FailingDisc::Sync(uint64_t inode) {
  if (!Power()) return PowerIsOff();
  const bool fails = SyncFails();
  Done({.kind = fails ? Call::kFailedSync : Call::kSync, .name = "", .to = "", .inode = inode});
  return fails ? IOStatus::IOError("test: sync failed") : IOStatus::OK();
}

IOStatus FailingDisc::Allocate(uint64_t inode, uint64_t bytes) {
  if (off_) return PowerIsOff();
  uint64_t& space = space_[inode];
  if (bytes <= space) return IOStatus::OK();
  if (bytes - space > capacity_ - std::min(capacity_, used_)) return IOStatus::NoSpace("test");
  used_ += bytes - space;
  space = bytes;
  return IOStatus::OK();
}

void FailingDisc::Forget(const std::string& name) {
  const auto known = now_.names.find(name);
  if (known == now_.names.end()) return;
  used_ -= space_[known->second];
  space_[known->second] = 0;
}

IOStatus FailingDisc::ReopenWritableFile(const std::string&, const rocksdb::FileOptions&,
                                         std::unique_ptr<rocksdb::FSWritableFile>*,
                                         rocksdb::IODebugContext*) {
  return NotModelled();
}
IOStatus FailingDisc::ReuseWritableFile(const std::string&, const std::string&,
                                        const rocksdb::FileOptions&,
                                        std::unique_ptr<rocksdb::FSWritableFile>*,
                                        rocksdb::IODebugContext*) {
  return NotModelled();
}
IOStatus FailingDisc::LinkFile(const std::string&, const std::string&, const rocksdb::IOOptions&,
                               rocksdb::IODebugContext*) {
  return NotModelled();
}

}  // namespace datawire::directory
