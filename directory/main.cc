#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <system_error>
#include <thread>

#include "config.h"
#include "core/directory.h"
#include "datawire/closed_streams.h"
#include "datawire/limits.h"
#include "engine/embedded.h"
#include "from_backup.h"
#include "grpc/server.h"
#include "ops/bind_failure.h"
#include "ops/http.h"
#include "ops/log.h"
#include "ops/process.h"
#include "server_metrics.h"
#include "view/view.h"

namespace datawire::directory {
namespace {

constexpr std::chrono::milliseconds kTick{100};

std::string RandomHex(size_t bytes) {
  std::random_device source;
  std::string hex;
  for (size_t i = 0; i < bytes; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", source() & 0xffu);
    hex += two;
  }
  return hex;
}

/// The data of --dev: made now, gone with this object.
class TemporaryData {
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

/// Calls `tick` every kTick, on a thread of its own, until it is destroyed.
class Ticker {
 public:
  explicit Ticker(std::function<void(BootTime now)> tick)
      : thread_([this, tick = std::move(tick)] {
          std::unique_lock lock(mutex_);
          while (!stop_.wait_for(lock, kTick, [this] { return stopping_; })) {
            lock.unlock();
            tick(BootClock::now());
            lock.lock();
          }
        }) {}
  ~Ticker() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    stop_.notify_one();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread thread_;
};

void LogMade(const char* how, const std::string& from, const Made& made, Logger& logger) {
  logger.Info(how, {{"from", from},
                    {"registrations", std::to_string(made.registrations)},
                    {"sessions", std::to_string(made.sessions)},
                    {"cluster", made.cluster_id},
                    {"epoch", std::to_string(made.epoch)}});
}

Result<std::unique_ptr<View>> OpenView(const Config& config, const std::string& data,
                                       Logger& logger) {
  std::error_code none;
  if (std::filesystem::exists(data, none) && !std::filesystem::is_directory(data, none)) {
    return Status(Code::kInvalid,
                  "data directory " + data + " is a file: name a directory with --data");
  }
  if (config.dev) {
    const auto second = static_cast<uint64_t>(WallMillis() / 1000);
    return View::Create(data, View::Authority{.cluster_id = "dev", .epoch = second});
  }
  // A start that fails must not leave an initialised directory, which the next one refuses.
  if (config.init || !config.import_file.empty() || !config.restore.empty()) {
    DW_RETURN_IF_ERROR(TryBind(config.listen));
    DW_RETURN_IF_ERROR(TryBind(config.http_listen));
  }
  if (!config.import_file.empty()) {
    DW_ASSIGN(const Made made, MakeFromExport(config.import_file, data, config.epoch));
    LogMade("imported", config.import_file, made, logger);
  }
  if (!config.restore.empty()) {
    DW_ASSIGN(const Made made, MakeFromSnapshot(config.restore, data, config.epoch));
    LogMade("restored", config.restore, made, logger);
  }
  if (config.init) {
    const std::string id = config.cluster_id.empty() ? RandomHex(8) : config.cluster_id;
    return View::Create(data, View::Authority{.cluster_id = id, .epoch = 1});
  }
  return View::Open(data);
}

Status Readiness(const Log& log, const std::atomic<bool>& stopping) {
  if (stopping) return Status(Code::kUnavailable, "stopping");
  const Log::Freshness fresh = log.Fresh();
  if (fresh.healthy) return Status::Ok();
  return Status(Code::kUnavailable,
                fresh.reason.empty() ? "the engine does not commit" : fresh.reason);
}

void LogHealth(const Status& ready, bool& was_ready, Logger& logger) {
  if (ready.ok() == was_ready) return;
  was_ready = ready.ok();
  if (was_ready) {
    logger.Info("ready again");
  } else {
    logger.Warn("not ready", {{"reason", ready.message()}});
  }
}

void WarnOpenListener(const char* what, const HostPort& at, Logger& logger) {
  if (at.loopback()) return;
  logger.Warn("listening beyond loopback without certificates: anybody can read and write",
              {{"listener", what}, {"address", at.ToString()}});
}

Status CheckFileLimit(uint64_t files, Logger& logger) {
  if (files == 0 || files >= limits::kFilesEnough) return Status::Ok();
  const std::string what = "this process may open " + std::to_string(files) + " files, ";
  const std::string remedy = ": raise its hard limit (LimitNOFILE= of its unit, ulimit -Hn)";
  if (files < limits::kFilesLeast) {
    return Status(Code::kUnavailable, what + "at least " + std::to_string(limits::kFilesLeast) +
                                          " are needed" + remedy);
  }
  logger.Warn("few open files",
              {{"reason", what + std::to_string(limits::kFilesEnough) +
                              " are wanted, a client process takes two" + remedy}});
  return Status::Ok();
}

/// Builds the parts in order, serves until a signal, stops them in reverse.
Status Serve(const Config& config, Signals& signals, Logger& logger) {
  const BootTime started = BootClock::now();
  TemporaryData temporary;
  if (config.dev) DW_RETURN_IF_ERROR(temporary.Make());
  const std::string& data = config.dev ? temporary.path() : config.data;
  const uint64_t files = RaiseFileLimit();
  DW_RETURN_IF_ERROR(CheckFileLimit(files, logger));
  DW_ASSIGN(const std::unique_ptr<View> view, OpenView(config, data, logger));
  DW_ASSIGN(const std::unique_ptr<Log> log, OpenEmbedded(*view));
  DirectoryOptions options;
  options.node_id = config.dev ? "dev" : config.node_id;
  options.incarnation = RandomHex(8);
  options.quotas = config.quotas;
  options.audit_bytes = config.audit_bytes;
  options.audit_age = config.audit_age;
  DW_ASSIGN(const std::unique_ptr<Directory> directory,
            Directory::Open(*view, *log, options, BootClock::now()));
  DW_ASSIGN(const std::unique_ptr<GrpcServer> grpc, GrpcServer::Start(config.listen, *directory));
  std::atomic<bool> stopping{false};
  const ServerMetrics metrics{*view, *directory, *grpc, started};
  DW_ASSIGN(const std::unique_ptr<HttpServer> http,
            HttpServer::Start(config.http_listen,
                              {.metrics = [&] { return metrics.Text(BootClock::now()); },
                               .ready = [&] { return Readiness(*log, stopping); }}));
  bool was_ready = true;
  grpc->Tick(BootClock::now(), true);
  {
    const Ticker ticker([&](BootTime now) {
      directory->Tick(now);
      const Status ready = Readiness(*log, stopping);
      grpc->Tick(now, ready.ok());
      if (!stopping) LogHealth(ready, was_ready, logger);
    });
    const HostPort grpc_at{config.listen.host, grpc->port()};
    const HostPort http_at{config.http_listen.host, http->port()};
    WarnOpenListener("grpc", grpc_at, logger);
    WarnOpenListener("http", http_at, logger);
    logger.Info("serving", {{"grpc", grpc_at.ToString()},
                            {"http", http_at.ToString()},
                            {"data", data},
                            {"node", options.node_id},
                            {"cluster", view->authority().cluster_id},
                            {"revision", view->Applied().ToString()},
                            {"files", std::to_string(files)}});
    std::printf("ready grpc=%s http=%s\n", grpc_at.ToString().c_str(), http_at.ToString().c_str());
    std::fflush(stdout);
    const int signal = signals.Wait();
    logger.Info("stopping", {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
    stopping = true;
    directory->Stop();
  }
  // After the last tick: Stop takes away what Tick uses.
  grpc->Tick(BootClock::now(), false);
  grpc->Stop();
  http->Stop();
  log->Stop();
  return Status::Ok();
}

/// Runs Serve under what lives longer than all parts.
int Run(const Config& config) {
  Logger logger;
  Signals signals([&logger](const char* why) { logger.Error("exit at once", {{"reason", why}}); });
  const Status status = Serve(config, signals, logger);
  if (!status.ok()) {
    std::fprintf(stderr, "datawire-directory: %s\n", status.message().c_str());
    return 1;
  }
  logger.Info("stopped");
  return 0;
}

int Main(int argc, const char* const* argv) {
  const auto invocation = ParseCommandLine(argc, argv);
  if (!invocation.ok()) {
    std::fprintf(stderr, "datawire-directory: %s\n", invocation.status().message().c_str());
    return 1;
  }
  if (!invocation->text.empty()) {
    std::fputs(invocation->text.c_str(), stdout);
    return 0;
  }
  return Run(invocation->config);
}

}  // namespace
}  // namespace datawire::directory

DW_FILL_CLOSED_STREAMS;

int main(int argc, char** argv) {
  try {
    return datawire::directory::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "datawire-directory: %s\n", error.what());
    return 1;
  }
}
