#include <absl/synchronization/mutex.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <system_error>
#include <thread>

#include "config.h"
#include "core/directory.h"
#include "core/ids.h"
#include "datawire/closed_streams.h"
#include "datawire/limits.h"
#include "datawire/mutex.h"
#include "datawire/record/v1/record.pb.h"
#include "grpc/nodes.h"
#include "grpc/server.h"
#include "http/server.h"
#include "ops/log.h"
#include "ops/process.h"
#include "server_metrics.h"
#include "store.h"
#include "view/view.h"

namespace datawire::directory {
namespace {

constexpr std::chrono::milliseconds kTick{100};

/// Calls `tick` every kTick, on a thread of its own, until it is destroyed.
class Ticker {
 public:
  explicit Ticker(std::function<void(BootTime now)> tick)
      : thread_([this, tick = std::move(tick)] {
          MutexLock lock(mutex_);
          while (!stop_.wait_for(lock, kTick, [this]() DW_REQUIRES(mutex_) { return stopping_; })) {
            lock.unlock();
            tick(BootClock::now());
            lock.lock();
          }
        }) {}
  ~Ticker() {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    stop_.notify_one();
    thread_.join();
  }

 private:
  Mutex mutex_;
  Condition stop_;
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

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

void WarnOpenListener(const char* what, const char* danger, const HostPort& at, Logger& logger) {
  if (at.loopback()) return;
  logger.Warn(std::string("listening beyond loopback without certificates: ") + danger,
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

/// Why an engine ended, told on its thread.
class EngineEnd {
 public:
  explicit EngineEnd(Signals& signals) : signals_(signals) {}
  void Set(Status why) {
    {
      const MutexLock lock(mutex_);
      why_ = std::move(why);
    }
    signals_.Interrupt();
  }
  /// OK: it has not.
  Status why() const {
    const MutexLock lock(mutex_);
    return why_;
  }

 private:
  Signals& signals_;
  mutable Mutex mutex_;
  Status why_ DW_GUARDED_BY(mutex_);
};

std::string AliveRecord(const Config& config, const HostPort& grpc_at,
                        const std::string& incarnation) {
  record::v1::NodeAlive alive;
  alive.set_incarnation(incarnation);
  alive.set_address(config.advertise.empty() ? grpc_at.ToString() : config.advertise);
  alive.set_version(DATAWIRE_VERSION);
  alive.set_started_wall_ms(WallMillis());
  return alive.SerializeAsString();
}

/// Builds the parts in order, serves until a signal, stops them in reverse. kAborted: the view is
/// to be opened anew, where `config` then says where it listened.
Status Serve(Config& config, Signals& signals, Logger& logger) {
  const BootTime started = BootClock::now();
  const uint64_t files = RaiseFileLimit();
  DW_RETURN_IF_ERROR(CheckFileLimit(files, logger));
  DirectoryOptions options;
  options.node_id = config.dev ? "dev" : config.node_id;
  options.version = DATAWIRE_VERSION;
  options.incarnation = Hex(Ids(0).Bytes(8));
  EngineEnd end(signals);
  const auto opened = Store::Open(
      config, options.incarnation, logger, [&] { return signals.stopping() || !end.why().ok(); },
      [&end](Status why) { end.Set(std::move(why)); });
  if (!opened.ok() && signals.stopping()) return Status::Ok();
  if (!opened.ok()) return end.why().ok() ? opened.status() : end.why();
  View* const view = &(*opened)->view();
  Log* const log = &(*opened)->log();
  options.quotas = config.quotas;
  options.audit_bytes = config.audit_bytes;
  options.audit_age = config.audit_age;
  const std::unique_ptr<Nodes> nodes = MakeGrpcNodes(config.tls);
  options.nodes = nodes.get();
  DW_ASSIGN(const std::unique_ptr<Directory> directory,
            Directory::Open(*view, *log, options, BootClock::now()));
  DW_ASSIGN(const std::unique_ptr<GrpcServer> grpc,
            GrpcServer::Start(config.listen, config.tls, *directory));
  std::atomic<bool> stopping{false};
  const ServerMetrics metrics{*view, *log, *directory, *grpc, started};
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
    if (!config.tls.any()) WarnOpenListener("grpc", "anybody can read and write", grpc_at, logger);
    WarnOpenListener("http", "anybody can read metrics and health", http_at, logger);
    logger.Info("serving", {{"grpc", grpc_at.ToString()},
                            {"http", http_at.ToString()},
                            {"tls", config.tls.any() ? "on" : "off"},
                            {"data", view->path()},
                            {"node", options.node_id},
                            {"cluster", view->authority().cluster_id},
                            {"revision", view->Applied().ToString()},
                            {"files", std::to_string(files)}});
    log->Announce(AliveRecord(config, grpc_at, options.incarnation));
    config.listen.port = grpc_at.port;
    config.http_listen.port = http_at.port;
    std::printf("ready grpc=%s http=%s\n", grpc_at.ToString().c_str(), http_at.ToString().c_str());
    std::fflush(stdout);
    const int signal = signals.Wait();
    if (signal == 0)
      logger.Error("the engine ended", {{"reason", end.why().message()}});
    else
      logger.Info("stopping", {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
    stopping = true;
    directory->Stop();
  }
  nodes->Stop();
  // After the last tick: Stop takes away what Tick uses.
  grpc->Tick(BootClock::now(), false);
  grpc->Stop();
  http->Stop();
  log->Stop();
  return signals.stopping() ? Status::Ok() : end.why();
}

/// Runs Serve under what lives longer than all parts.
int Run(const Config& config) {
  Logger logger;
  Signals signals([&logger](const char* why) { logger.Error("exit at once", {{"reason", why}}); });
  Config now = config;
  Status status = Serve(now, signals, logger);
  while (status.code() == Code::kAborted && !signals.stopping()) {
    logger.Warn("beginning again", {{"reason", status.message()}});
    now.init = now.raise_epoch = false;
    now.import_file.clear();
    status = Serve(now, signals, logger);
  }
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
    // gRPC's locks: Debian builds Abseil so that it would look for cycles of them.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    return datawire::directory::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "datawire-directory: %s\n", error.what());
    return 1;
  }
}
