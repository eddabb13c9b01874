#include "store.h"

#include <filesystem>
#include <system_error>
#include <thread>

#include "core/ids.h"
#include "engine/embedded.h"
#include "engine/etcd/etcd.h"
#include "from_backup.h"
#include "http/bind_failure.h"
#include "tls/diagnose.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;

constexpr auto kEtcdMost = 5s;       // for an answer, while nothing can go on without it
constexpr auto kEtcdWithout = 2s;    // where the replica that is there can serve
constexpr auto kProgressEvery = 5s;  // in the log, while a listing goes on
constexpr auto kLook = 20ms;

void LogMade(const char* how, const std::string& from, const Made& made, Logger& logger) {
  logger.Info(how, {{"from", from},
                    {"registrations", std::to_string(made.registrations)},
                    {"sessions", std::to_string(made.sessions)},
                    {"cluster", made.cluster_id},
                    {"epoch", std::to_string(made.epoch)}});
}

Status CheckData(const std::string& data) {
  std::error_code none;
  if (!std::filesystem::exists(data, none) || std::filesystem::is_directory(data, none)) return {};
  return {Code::kInvalid, "data directory " + data + " is a file: name a directory with --data"};
}

std::string NewClusterId(const Config& config) {
  return config.cluster_id.empty() ? Hex(Ids(0).Bytes(8)) : config.cluster_id;
}

bool Makes(const Config& config) {
  return config.init || !config.import_file.empty() || !config.restore.empty();
}

Result<std::unique_ptr<View>> OpenOwn(const Config& config, Logger& logger) {
  if (!config.import_file.empty()) {
    DW_ASSIGN(const Made made, MakeFromExport(config.import_file, config.data, config.epoch));
    LogMade("imported", config.import_file, made, logger);
  }
  if (!config.restore.empty()) {
    DW_ASSIGN(const Made made, MakeFromSnapshot(config.restore, config.data, config.epoch));
    LogMade("restored", config.restore, made, logger);
  }
  if (config.init)
    return View::Create(config.data,
                        View::Authority{.cluster_id = NewClusterId(config), .epoch = 1});
  return View::Open(config.data);
}

/// Why it does not answer.
std::string EtcdReason(const Config& config, const Status& status) {
  const auto member = HostPort::Parse(config.etcd.front());
  const std::string why = tls::Diagnose(*member, config.etcd_tls ? config.tls : TlsFiles());
  return status.message() + (why.empty() ? "" : ": " + why);
}

/// What etcd answers, for as long as it does not and `stopping` does not say so.
template <typename Ask>
auto UntilAnswered(const Config& config, Logger& logger, const std::function<bool()>& stopping,
                   Ask ask) {
  while (true) {
    auto answer = ask();
    const Code code = answer.status().code();
    if ((code != Code::kUnavailable && code != Code::kTimeout) || stopping()) return answer;
    logger.Warn("waiting for etcd", {{"reason", EtcdReason(config, answer.status())}});
  }
}

/// `instead`: what to do where it is not.
Status CheckEmpty(etcd::Client& client, const std::string& instead) {
  const Status there = ReadEtcdAuthority(client, kEtcdMost).status();
  if (there.code() == Code::kNotFound) return {};
  return there.ok() ? Status(Code::kConflict, "this etcd holds a directory already: " + instead)
                    : there;
}

/// A replica's view: where etcd does not answer, the one that is there.
Result<std::unique_ptr<View>> OpenReplica(const Config& config, etcd::Client& client,
                                          Logger& logger, const std::function<bool()>& stopping) {
  if (config.init) {
    DW_RETURN_IF_ERROR(CheckEmpty(client, "start without --init"));
    DW_RETURN_IF_ERROR(InitEtcdAuthority(client, {NewClusterId(config), 1, true}, kEtcdMost));
  }
  if (config.raise_epoch) {
    DW_ASSIGN(const View::Authority raised, RaiseEtcdEpoch(client, kEtcdMost));
    logger.Info("raised the epoch", {{"epoch", std::to_string(raised.epoch)}});
  }
  if (!config.import_file.empty()) {
    DW_RETURN_IF_ERROR(CheckEmpty(client, "import into an empty one"));
    DW_ASSIGN(const Made made,
              FillEtcdFromExport(config.import_file, client, config.data, config.epoch));
    LogMade("imported", config.import_file, made, logger);
  }
  auto authority = ReadEtcdAuthority(client, kEtcdWithout);
  const Code code = authority.status().code();
  if (code == Code::kUnavailable || code == Code::kTimeout) {
    auto view = View::OpenReplica(config.data, std::nullopt);
    if (view.ok()) {
      logger.Warn("serving without etcd", {{"reason", EtcdReason(config, authority.status())}});
      return view;
    }
    if (view.status().code() != Code::kNotFound) return view;
    authority = UntilAnswered(config, logger, stopping,
                              [&] { return ReadEtcdAuthority(client, kEtcdMost); });
  }
  if (!authority.ok()) return authority.status();
  return View::OpenReplica(config.data, *authority);
}

}  // namespace

/// The data of --dev: made now, gone with this object.
class Store::TemporaryData {
 public:
  ~TemporaryData() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }

  Status Make() {
    std::error_code error;
    const std::filesystem::path base = std::filesystem::temp_directory_path(error);
    if (error) return Status(Code::kUnavailable, "no temporary directory: " + error.message());
    std::string path = (base / "datawire-dev-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) {
      return Status(Code::kUnavailable,
                    "cannot make " + path + ": " + std::generic_category().message(errno));
    }
    path_ = path;
    return Status::Ok();
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Store::Store() = default;

Store::~Store() {
  if (log_) log_->Stop();
}

Result<std::unique_ptr<Store>> Store::Open(const Config& config, const std::string& incarnation,
                                           Logger& logger, const std::function<bool()>& stopping,
                                           std::function<void(Status)> ended) {
  std::unique_ptr<Store> store(new Store());
  if (config.dev) {
    store->temporary_ = std::make_unique<TemporaryData>();
    DW_RETURN_IF_ERROR(store->temporary_->Make());
    const auto second = static_cast<uint64_t>(WallMillis() / 1000);
    DW_ASSIGN(store->view_, View::Create(store->temporary_->path(),
                                         View::Authority{.cluster_id = "dev", .epoch = second}));
    DW_ASSIGN(store->log_, OpenEmbedded(*store->view_));
    return store;
  }
  DW_RETURN_IF_ERROR(CheckData(config.data));
  // A start that fails must not leave an initialised directory, which the next one refuses.
  if (Makes(config)) {
    DW_RETURN_IF_ERROR(TryBind(config.listen));
    DW_RETURN_IF_ERROR(TryBind(config.http_listen));
  }
  if (config.etcd.empty()) {
    DW_ASSIGN(store->view_, OpenOwn(config, logger));
    DW_ASSIGN(store->log_, OpenEmbedded(*store->view_));
    return store;
  }
  store->client_ =
      std::make_unique<etcd::Client>(config.etcd, config.etcd_tls ? config.tls : TlsFiles());
  DW_ASSIGN(store->view_, OpenReplica(config, *store->client_, logger, stopping));
  EtcdOptions options;
  options.node_id = config.node_id;
  options.incarnation = incarnation;
  options.ended = std::move(ended);
  DW_ASSIGN(store->log_, OpenEtcd(*store->client_, *store->view_, std::move(options)));
  BootTime said = BootClock::now();
  while (!store->log_->ready()) {
    if (stopping()) return Status(Code::kCancelled, "stopped before the first listing ended");
    std::this_thread::sleep_for(kLook);
    if (BootClock::now() - said < kProgressEvery) continue;
    said = BootClock::now();
    uint64_t listed = 0;
    for (const auto& [name, count] : store->log_->figures())
      if (name == "listed") listed = count;
    logger.Info("listing what etcd holds", {{"records", std::to_string(listed)}});
  }
  return store;
}

}  // namespace datawire::directory
