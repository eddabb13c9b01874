#include <rocksdb/cache.h>
#include <rocksdb/file_system.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/table_properties_collectors.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "datawire/clock.h"
#include "view/impl.h"

namespace datawire::directory {
namespace {

namespace fs = std::filesystem;

constexpr char kWrong[] = "/wrong";  // a file that says that the replica is

// Lets the log's file have its size from the start: a sync then writes the data and not the inode
// too, a third of its time. What follows the last record reads as zeros, which ends the log.
class SizedLogs final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "SizedLogs"; }
  rocksdb::FileOptions OptimizeForLogWrite(const rocksdb::FileOptions& file,
                                           const rocksdb::DBOptions& db) const override {
    rocksdb::FileOptions out = target()->OptimizeForLogWrite(file, db);
    out.fallocate_with_keep_size = false;
    return out;
  }
};

rocksdb::Options StoreOptions(const ViewOptions& view, rocksdb::Env* env, bool create) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(view.block_cache_bytes);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  // In parts of some KiB: those of a whole file grow with the store until a shard of the cache is
  // too small for one, and then each look-up of a key reads megabytes.
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;

  rocksdb::Options out;
  out.env = env;
  out.create_if_missing = create;
  out.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  out.write_buffer_size = 16 << 20;
  out.max_write_buffer_number = 3;
  out.max_total_wal_size = 64 << 20;
  out.max_open_files = 256;
  out.max_background_jobs = 2;
  out.bytes_per_sync = 1 << 20;
  out.keep_log_file_num = 3;
  out.max_log_file_size = 1 << 20;
  out.max_manifest_file_size = 16 << 20;
  // Queues leave runs of deletions behind: compact them away before scans walk over them.
  out.table_properties_collector_factories.push_back(
      rocksdb::NewCompactOnDeletionCollectorFactory(1024, 512));
  // A write torn by power loss is the last one and was not acknowledged.
  out.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  return out;
}

Status Refused(Code code, const std::string& path, const std::string& why) {
  return {code, "data directory " + path + " " + why};
}

Status OpenFailed(const std::string& path, const rocksdb::Status& status) {
  const std::string text = status.ToString();
  if (text.find("LOCK") != std::string::npos || text.find("lock ") != std::string::npos) {
    if (errno != EACCES && text.find("ermission denied") == std::string::npos)
      return Refused(Code::kUnavailable, path,
                     "is in use by another process: stop that one, or name another with --data");
  }
  if (text.find("ermission denied") != std::string::npos ||
      text.find("ead-only file system") != std::string::npos)
    return Refused(Code::kDenied, path, "is not writable: give this user write access to it");
  if (status.IsCorruption())
    return Refused(Code::kCorrupt, path, "fails its checks, restore it from a backup: " + text);
  if (status.IsNoSpace())
    return Refused(Code::kOverloaded, path, "has no space left: free some and start again");
  return Refused(Code::kUnavailable, path, "cannot be opened: " + text);
}

Status CheckPlace(const std::string& path, bool create) {
  std::error_code error;
  if (!create && !fs::exists(path + "/CURRENT", error)) {
    if (error && error != std::errc::no_such_file_or_directory &&
        error != std::errc::not_a_directory)
      return Refused(Code::kDenied, path, "cannot be read: " + error.message());
    return Refused(Code::kNotFound, path,
                   "holds no directory: create one there with --init, or name the right one "
                   "with --data");
  }
  if (create && !fs::create_directories(path, error) && error)
    return Refused(Code::kDenied, path, "cannot be created: " + error.message());
  if (::access(path.c_str(), W_OK | X_OK) != 0)
    return Refused(Code::kDenied, path, "is not writable: give this user write access to it");
  return {};
}

Status WriteAuthority(rocksdb::DB& db, const View::Authority& authority) {
  record::Authority value;
  value.set_cluster_id(authority.cluster_id);
  value.set_epoch(authority.epoch);
  value.set_created_wall_ms(WallMillis());
  value.set_format(kFormat);
  value.set_replica(authority.replica);
  rocksdb::WriteBatch batch;
  batch.Put(keys::kAuthority, EncodeRecord({keys::kAuthority, value.SerializeAsString(), 0, 0}));
  AppliedState state;
  state.at = {authority.epoch, 0};
  batch.Put(keys::kApplied, EncodeApplied(state));
  rocksdb::WriteOptions options;
  options.sync = true;
  return FromRocks(db.Write(options, &batch), "creating the directory");
}

}  // namespace

Result<std::unique_ptr<View>> View::Start(const std::string& path, const Authority* create,
                                          ViewOptions options) {
  DW_RETURN_IF_ERROR(CheckPlace(path, create != nullptr));
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->options = options;
  impl->cache = std::make_unique<RowCache>(options.row_cache_bytes);
  impl->recent = std::make_unique<Recent>(options.recent_bytes);
  rocksdb::Env* const base = options.env != nullptr ? options.env : rocksdb::Env::Default();
  impl->env = rocksdb::NewCompositeEnv(std::make_shared<SizedLogs>(base->GetFileSystem()));
  rocksdb::DB* db = nullptr;
  errno = 0;
  const auto opened =
      rocksdb::DB::Open(StoreOptions(options, impl->env.get(), create != nullptr), path, &db);
  if (!opened.ok()) return OpenFailed(path, opened);
  impl->db.reset(db);

  const Reading newest{db, nullptr, nullptr};
  DW_ASSIGN(std::optional<Record> stored, newest.GetRecord(keys::kAuthority));
  if (stored && create)
    return Refused(Code::kConflict, path,
                   "is already initialised: start without --init, or name an empty one");
  if (!stored) {
    if (!create)
      return Refused(Code::kNotFound, path,
                     "was not initialised to the end: run it once with --init");
    DW_RETURN_IF_ERROR(WriteAuthority(*db, *create));
    DW_ASSIGN(stored, newest.GetRecord(keys::kAuthority));
  }
  record::Authority authority;
  if (!stored || !authority.ParseFromString(stored->value)) return CorruptValue(keys::kAuthority);
  if (authority.format() > kFormat)
    return Refused(Code::kUnsupported, path,
                   "has format " + std::to_string(authority.format()) +
                       ", this program knows formats up to " + std::to_string(kFormat) +
                       ": start it with the newer program that wrote it");
  impl->authority = {authority.cluster_id(), authority.epoch(), authority.replica()};
  DW_ASSIGN(std::optional<std::string> applied, newest.Get(keys::kApplied));
  if (!applied) return CorruptValue(keys::kApplied);
  DW_ASSIGN(impl->state, DecodeApplied(*applied));
  DW_ASSIGN(std::optional<std::string> floor, newest.Get(keys::kHistoryFloor));
  {
    const MutexLock lock(impl->history_mutex);
    if (floor) {
      DW_ASSIGN(impl->floor, DecodeFloor(*floor));
    }
  }
  {
    const MutexLock lock(impl->counts_mutex);
    impl->counted = impl->state;
  }
  impl->applied = impl->state.at.number;
  {
    const MutexLock lock(impl->point_mutex);
    impl->point = std::make_shared<PublishedPoint>(db, impl->state.at);
  }
  return std::unique_ptr<View>(new View(std::move(impl)));
}

Result<std::unique_ptr<View>> View::Create(const std::string& path, const Authority& authority,
                                           ViewOptions options) {
  return Start(path, &authority, options);
}

Result<std::unique_ptr<View>> View::Open(const std::string& path, ViewOptions options) {
  DW_ASSIGN(auto view, Start(path, nullptr, options));
  if (view->authority().replica)
    return Refused(Code::kConflict, path,
                   "is the replica of an etcd cluster: start with --engine etcd, or name another "
                   "with --data");
  return view;
}

Result<std::unique_ptr<View>> View::OpenReplica(const std::string& path,
                                                std::optional<Authority> authority,
                                                ViewOptions options) {
  options.wal = options.sync = false;
  std::error_code error;
  if (!authority || fs::exists(path + "/CURRENT", error)) {
    DW_ASSIGN(auto view, Start(path, nullptr, options));
    if (!view->authority().replica)
      return Refused(Code::kConflict, path,
                     "is a directory of its own, no replica: name another with --data; what it "
                     "holds goes into a cluster by an export");
    if (!authority && view->Applied().number > 0) return view;
    if (!authority)
      return Refused(Code::kNotFound, path, "holds a replica that was not listed to its end");
    if (view->authority().cluster_id != authority->cluster_id)
      return Refused(Code::kConflict, path,
                     "is a replica of cluster " + Shown(view->authority().cluster_id) +
                         ", this etcd holds " + Shown(authority->cluster_id) +
                         ": name another with --data, or the right etcd");
    if (view->authority().epoch > authority->epoch)
      return Refused(Code::kConflict, path,
                     "has epoch " + std::to_string(view->authority().epoch) +
                         ", this etcd holds the older " + std::to_string(authority->epoch) +
                         ": was it restored from a backup? Then start once with --raise-epoch");
    const bool wrong = fs::exists(path + kWrong, error);
    if (view->authority().epoch == authority->epoch && view->Applied().number > 0 && !wrong)
      return view;
    view.reset();
    for (const auto& entry : fs::directory_iterator(path, error)) {
      std::error_code ignored;
      fs::remove_all(entry.path(), ignored);
    }
  }
  authority->replica = true;
  return Start(path, &*authority, options);
}

Status View::MarkWrong() {
  std::unique_ptr<rocksdb::WritableFile> file;
  rocksdb::Env* const env = impl_->env.get();
  auto status = env->NewWritableFile(impl_->path + kWrong, &file, rocksdb::EnvOptions());
  if (status.ok()) status = file->Append("this replica is wrong: it begins anew\n");
  if (status.ok()) status = file->Fsync();
  return FromRocks(status, "marking the replica");
}

Result<Revision> View::Flush() {
  const Revision at = Applied();
  DW_RETURN_IF_ERROR(FromRocks(impl_->db->Flush(rocksdb::FlushOptions()), "flushing"));
  return at;
}

View::View(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

View::~View() {
  impl_->point.reset();
}

}  // namespace datawire::directory
