#include "view/checkpoint.h"

#include <rocksdb/sst_file_reader.h>
#include <rocksdb/utilities/checkpoint.h>

#include <filesystem>
#include <vector>

#include "view/impl.h"

namespace datawire::directory {
namespace {

namespace fs = std::filesystem;

/// RocksDB keeps a log of its own beside the data, unless somebody else takes it.
class NoLog final : public rocksdb::Logger {
 public:
  using Logger::Logv;
  void Logv(const char*, va_list) override {}
};

rocksdb::Options OptionsOf() {
  rocksdb::Options options;
  options.info_log = std::make_shared<NoLog>();
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  return options;
}

Status Refused(Code code, const std::string& path, const std::string& why) {
  return {code, "snapshot " + Shown(path) + " " + why};
}

Status CheckNewPath(const View& view, const std::string& path) {
  const fs::path wanted = fs::path(path).lexically_normal();
  if (!wanted.is_absolute())
    return Refused(Code::kInvalid, path,
                   "is not an absolute path: name one on the server's disc, such as "
                   "/var/backups/datawire-1");
  std::error_code error;
  if (fs::exists(wanted, error))
    return Refused(Code::kConflict, path, "is there already: name one that is not");
  const fs::path parent = wanted.parent_path();
  if (!fs::is_directory(parent, error))
    return Refused(Code::kInvalid, path, "has no directory to be in on the server's disc");
  const fs::path data = fs::weakly_canonical(view.path(), error);
  const fs::path inside = fs::weakly_canonical(wanted, error).lexically_relative(data);
  if (!inside.empty() && *inside.begin() != "..")
    return Refused(Code::kInvalid, path, "is inside the data directory: name one outside");
  return {};
}

struct Store {
  std::unique_ptr<rocksdb::DB> db;
  Reading reading() const { return {.db = db.get()}; }
};

Result<Store> OpenToRead(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path + "/CURRENT", error))
    return Refused(Code::kNotFound, path, "is not there, or is none");
  if (fs::exists(path + "/LOCK", error))
    return Refused(Code::kInvalid, path,
                   "is a data directory, which a server may be writing to: make a snapshot of it");
  rocksdb::DB* db = nullptr;
  const auto opened = rocksdb::DB::OpenForReadOnly(OptionsOf(), path, &db);
  if (!opened.ok())
    return Refused(opened.IsCorruption() ? Code::kCorrupt : Code::kUnavailable, path,
                   "cannot be read: " + opened.ToString());
  return Store{std::unique_ptr<rocksdb::DB>(db)};
}

Result<uint64_t> Count(const Reading& reading, const std::string& from, const std::string& to,
                       const std::atomic<bool>& stop) {
  const rocksdb::Slice upper(to);
  uint64_t count = 0;
  auto it = reading.Range(from, &upper);
  for (; it->Valid() && !stop; it->Next()) ++count;
  DW_RETURN_IF_ERROR(FromRocks(it->status(), "counting"));
  return count;
}

Status Stopped(const std::string& path) {
  return Refused(Code::kUnavailable, path, "is not verified: the directory is stopping");
}

// File by file, so that it can be stopped.
Status CheckSums(const Store& store, const std::string& path, const std::atomic<bool>& stop) {
  std::vector<rocksdb::LiveFileMetaData> files;
  store.db->GetLiveFilesMetaData(&files);
  for (const auto& file : files) {
    if (stop) return Stopped(path);
    rocksdb::SstFileReader reader(OptionsOf());
    auto status = reader.Open(path + "/" + file.relative_filename);
    if (status.ok()) status = reader.VerifyChecksum();
    if (!status.ok())
      return Refused(Code::kCorrupt, path, "fails its checks: " + status.ToString());
  }
  return {};
}

// Every checksum, and every count against the records it stands for.
Status CheckWhole(const Store& store, const std::string& path, const StoreFacts& facts,
                  const std::atomic<bool>& stop) {
  DW_RETURN_IF_ERROR(CheckSums(store, path, stop));
  uint64_t registrations = 0;
  DW_RETURN_IF_ERROR(EachRegistration(store.reading(), "d/", "d0", [&](Registered& r) {
    registrations += Listed(r.standing);
    return !stop;
  }));
  DW_ASSIGN(const uint64_t addresses, Count(store.reading(), "r/", "r0", stop));
  DW_ASSIGN(const uint64_t sessions, Count(store.reading(), "s/", "s0", stop));
  if (stop) return Stopped(path);
  const struct {
    const char* what;
    uint64_t said, found;
  } counts[] = {{"registrations", facts.registrations, registrations},
                {"addresses", facts.addresses, addresses},
                {"sessions", facts.sessions, sessions}};
  for (const auto& count : counts)
    if (count.said != count.found)
      return Refused(Code::kCorrupt, path,
                     "says that it holds " + std::to_string(count.said) + " " + count.what +
                         ", but holds " + std::to_string(count.found));
  return {};
}

Result<record::Authority> ReadAuthority(const Reading& reading) {
  DW_ASSIGN(const std::optional<Record> stored, reading.GetRecord(keys::kAuthority));
  record::Authority authority;
  if (!stored || !authority.ParseFromString(stored->value)) return CorruptValue(keys::kAuthority);
  return authority;
}

Result<AppliedState> ReadApplied(const Reading& reading) {
  DW_ASSIGN(const std::optional<std::string> stored, reading.Get(keys::kApplied));
  if (!stored) return CorruptValue(keys::kApplied);
  return DecodeApplied(*stored);
}

}  // namespace

Status SaveSnapshot(View& view, const std::string& path) {
  DW_RETURN_IF_ERROR(CheckNewPath(view, path));
  rocksdb::Checkpoint* made = nullptr;
  DW_RETURN_IF_ERROR(FromRocks(rocksdb::Checkpoint::Create(&view.db(), &made), "a snapshot"));
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  const auto status = checkpoint->CreateCheckpoint(path);
  if (status.ok()) return {};
  if (status.IsNoSpace())
    return Refused(Code::kOverloaded, path, "cannot be made: no space on the disc");
  return Refused(Code::kDenied, path, "cannot be made: " + status.ToString());
}

Result<StoreFacts> ReadSnapshot(const std::string& path, Depth depth,
                                const std::atomic<bool>& stop) {
  DW_ASSIGN(const Store store, OpenToRead(path));
  DW_ASSIGN(const record::Authority authority, ReadAuthority(store.reading()));
  StoreFacts facts{.format = authority.format(), .cluster_id = authority.cluster_id(), .at = {}};
  if (facts.format > kFormat)
    return Refused(Code::kUnsupported, path,
                   "has format " + std::to_string(facts.format) +
                       ", this program knows formats up to " + std::to_string(kFormat));
  DW_ASSIGN(const AppliedState applied, ReadApplied(store.reading()));
  facts.at = applied.at;
  if (facts.at.epoch != authority.epoch())
    return Refused(Code::kCorrupt, path,
                   "is of epoch " + std::to_string(authority.epoch()) + ", its revision is " +
                       facts.at.ToString());
  facts.registrations = applied.registrations;
  facts.addresses = applied.addresses;
  facts.sessions = applied.sessions;
  std::error_code error;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
    if (it->is_regular_file(error)) facts.bytes += it->file_size(error);
  if (depth == Depth::kWhole) DW_RETURN_IF_ERROR(CheckWhole(store, path, facts, stop));
  return facts;
}

Status SetEpoch(const std::string& path, uint64_t epoch) {
  rocksdb::DB* opened = nullptr;
  DW_RETURN_IF_ERROR(
      FromRocks(rocksdb::DB::Open(OptionsOf(), path, &opened), "opening the copied store"));
  const std::unique_ptr<rocksdb::DB> db(opened);
  const Reading reading{.db = db.get()};
  DW_ASSIGN(record::Authority authority, ReadAuthority(reading));
  DW_ASSIGN(AppliedState applied, ReadApplied(reading));
  authority.set_epoch(epoch);
  authority.set_replica(false);
  applied.at.epoch = epoch;
  rocksdb::WriteBatch batch;
  batch.Put(keys::kAuthority,
            EncodeRecord({keys::kAuthority, authority.SerializeAsString(), 0, 0}));
  batch.Put(keys::kApplied, EncodeApplied(applied));
  batch.DeleteRange("h/", "h0");
  batch.Put(keys::kHistoryFloor, EncodeFloor({applied.at.number, applied.history_bytes}));
  rocksdb::WriteOptions options;
  options.sync = true;
  DW_RETURN_IF_ERROR(FromRocks(db->Write(options, &batch), "writing the new epoch"));
  return FromRocks(db->Close(), "closing the copied store");
}

}  // namespace datawire::directory
