#include "from_backup.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <future>
#include <system_error>
#include <vector>

#include "core/directory.h"
#include "datawire/wire_export.h"
#include "engine/embedded.h"
#include "engine/etcd/etcd.h"
#include "view/checkpoint.h"
#include "view/view.h"

namespace datawire::directory {
namespace {

namespace fs = std::filesystem;

constexpr char kCurrent[] = "CURRENT";  // the file by which a RocksDB begins to exist

Status Failed(const std::string& what, const std::error_code& error) {
  return {error == std::errc::no_space_on_device ? Code::kOverloaded : Code::kDenied,
          what + ": " + error.message()};
}

Status Sync(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Failed("cannot open " + path.string(), {errno, std::generic_category()});
  const int result = ::fsync(fd);
  const std::error_code error(errno, std::generic_category());
  ::close(fd);
  return result == 0 ? Status() : Failed("cannot sync " + path.string(), error);
}

/// A store in the making, in a folder of its data directory. Publish makes it the directory's: the
/// file by which it exists comes last. Unpublished, it goes with this object.
class Incoming {
 public:
  ~Incoming() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }

  Status Make(const std::string& data) {
    data_ = data;
    const fs::path path = data_ / ".incoming";
    std::error_code error;
    fs::create_directories(data_, error);
    if (error) return Failed("data directory " + data + " cannot be created", error);
    fs::remove_all(path, error);  // of an attempt that was interrupted
    for (fs::directory_iterator it(data_, error), end; !error && it != end; it.increment(error))
      return {Code::kConflict, "data directory " + data + " is not empty, it holds " +
                                   Shown(it->path().filename().string()) +
                                   ": name an empty one, or one that is not there yet"};
    if (error) return Failed("data directory " + data + " cannot be read", error);
    fs::create_directory(path, error);
    if (error) return Failed("data directory " + data + " is not writable", error);
    path_ = path;
    return {};
  }
  const fs::path& path() const { return path_; }

  Status Publish() {
    std::error_code error;
    std::vector<fs::path> files;
    for (fs::directory_iterator it(path_, error), end; !error && it != end; it.increment(error))
      if (it->path().filename() != kCurrent) files.push_back(it->path());
    if (error) return Failed("cannot read " + path_.string(), error);
    for (const fs::path& file : files) DW_RETURN_IF_ERROR(Move(file));
    DW_RETURN_IF_ERROR(Sync(data_));
    DW_RETURN_IF_ERROR(Move(path_ / kCurrent));
    fs::remove(path_, error);
    path_.clear();
    return Sync(data_);
  }

 private:
  Status Move(const fs::path& file) {
    if (fs::is_regular_file(file)) DW_RETURN_IF_ERROR(Sync(file));
    std::error_code error;
    fs::rename(file, data_ / file.filename(), error);
    return error ? Failed("cannot move " + file.string(), error) : Status();
  }

  fs::path data_, path_;
};

Result<uint64_t> EpochAfter(uint64_t former, uint64_t wanted) {
  if (wanted == 0) return former + 1;
  if (wanted > former) return wanted;
  return Status(Code::kInvalid, "--epoch " + std::to_string(wanted) +
                                    " must be greater than the backup's, " +
                                    std::to_string(former));
}

Status Register(Directory& directory, const ExportCalls::Call& call) {
  std::promise<Status> done;
  directory.Register(
      call.request, {"import", call.identity},
      [&done](const Result<pb::RegisterResponse>& r) { done.set_value(r.status()); });
  return done.get_future().get();
}

Status SetPolicy(Directory& directory, const pb::ExportedPolicy& policy) {
  std::promise<Status> done;
  directory.SetPolicy(
      CallOf(policy), {"import", policy.identity()},
      [&done](const Result<pb::SetPolicyResponse>& r) { done.set_value(r.status()); });
  return done.get_future().get();
}

// What a checked export has, into a new store.
Status Fill(const std::string& file, View& view, Log& log) {
  DW_ASSIGN(const auto directory,
            Directory::Open(view, log, {"import", "import"}, BootClock::now()));
  ExportReader reader;
  ExportCalls calls;
  const auto send = [&](const std::vector<ExportCalls::Call>& full) {
    for (const auto& call : full) DW_RETURN_IF_ERROR(Register(*directory, call));
    return Status();
  };
  DW_RETURN_IF_ERROR(ReadExportFile(file, reader, [&](const pb::ExportLine& line) {
    return line.has_policy() ? SetPolicy(*directory, line.policy())
                             : send(calls.Add(line.registration()));
  }));
  DW_RETURN_IF_ERROR(send(calls.Finish()));
  directory->Stop();
  log.Stop();
  return {};
}

Result<Made> CheckExport(const std::string& file, uint64_t epoch) {
  ExportReader checked;
  DW_RETURN_IF_ERROR(ReadExportFile(file, checked, [](const pb::ExportLine&) { return Status(); }));
  Made made{.cluster_id = checked.header().cluster_id(), .registrations = checked.registrations()};
  DW_ASSIGN(made.epoch, EpochAfter(checked.header().revision().epoch(), epoch));
  return made;
}

}  // namespace

Result<Made> MakeFromExport(const std::string& file, const std::string& data, uint64_t epoch) {
  DW_ASSIGN(const Made made, CheckExport(file, epoch));
  Incoming incoming;
  DW_RETURN_IF_ERROR(incoming.Make(data));
  {
    DW_ASSIGN(const auto view,
              View::Create(incoming.path().string(), {made.cluster_id, made.epoch}));
    DW_ASSIGN(const auto log, OpenEmbedded(*view));
    DW_RETURN_IF_ERROR(Fill(file, *view, *log));
  }
  DW_RETURN_IF_ERROR(incoming.Publish());
  return made;
}

Result<Made> FillEtcdFromExport(const std::string& file, etcd::Client& client,
                                const std::string& data, uint64_t epoch) {
  DW_ASSIGN(const Made made, CheckExport(file, epoch));
  const View::Authority authority{made.cluster_id, made.epoch, true};
  {
    DW_ASSIGN(const auto view, View::OpenReplica(data, authority));
    EtcdOptions options;
    options.node_id = options.incarnation = "import";
    options.importing = true;
    DW_ASSIGN(const auto log, OpenEtcd(client, *view, std::move(options)));
    DW_RETURN_IF_ERROR(Fill(file, *view, *log));
  }
  DW_RETURN_IF_ERROR(InitEtcdAuthority(client, authority, std::chrono::seconds(5)));
  return made;
}

Result<Made> MakeFromSnapshot(const std::string& snapshot, const std::string& data,
                              uint64_t epoch) {
  const std::atomic<bool> to_its_end{false};  // a signal ends the program: nothing serves yet
  DW_ASSIGN(const StoreFacts facts, ReadSnapshot(snapshot, Depth::kWhole, to_its_end));
  Made made{.cluster_id = facts.cluster_id,
            .registrations = facts.registrations,
            .sessions = facts.sessions};
  DW_ASSIGN(made.epoch, EpochAfter(facts.at.epoch, epoch));
  Incoming incoming;
  DW_RETURN_IF_ERROR(incoming.Make(data));
  std::error_code error;
  for (fs::directory_iterator it(snapshot, error), end; !error && it != end; it.increment(error)) {
    if (!it->is_regular_file()) continue;
    fs::copy_file(it->path(), incoming.path() / it->path().filename(), error);
    if (error) return Failed("cannot copy " + it->path().string(), error);
  }
  if (error) return Failed("snapshot " + snapshot + " cannot be read", error);
  DW_RETURN_IF_ERROR(SetEpoch(incoming.path().string(), made.epoch));
  DW_RETURN_IF_ERROR(incoming.Publish());
  return made;
}

}  // namespace datawire::directory
