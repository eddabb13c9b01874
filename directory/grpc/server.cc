#include "grpc/server.h"

#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/service_type.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "datawire/limits.h"
#include "grpc/acceptor.h"
#include "grpc/service.h"
#include "tls/credentials.h"

namespace datawire::directory {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kStopDeadlineMs = 2000;

size_t Cores() {
  return std::clamp<size_t>(std::thread::hardware_concurrency(), 2, 8);
}

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(limits::kBulkBytes));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             static_cast<int>(limits::kConnectionStreams));
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, static_cast<int>(limits::kMetadataBytes));
  // A connection that says nothing goes; it needs no TLS for that: HTTP/2 settings are awaited too.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             static_cast<int>(milliseconds(limits::kHandshake).count()));
  // A dead peer's connection goes after 30 s; clients may ping as often as they like.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
}

}  // namespace

struct GrpcServer::Running {
  Running(Directory& directory, bool certified)
      : shared{directory,
               certified,
               Executor({.threads = Cores(),
                         .offered_threads = Cores() - 1,  // one is left for what is posted
                         .queue = limits::kResolveQueue,
                         .what = "large resolves"}),
               Executor({.threads = 1,
                         .offered_threads = 1,
                         .queue = limits::kListQueue,
                         .what = "lists",
                         .yields = true}),
               {},
               {}} {}

  Shared shared;
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections;
  std::unique_ptr<Acceptor> acceptor;
  std::optional<bool> serving;
  bool stopped = false;
};

Result<std::unique_ptr<GrpcServer>> GrpcServer::Start(const HostPort& at, const TlsFiles& tls,
                                                      Directory& directory) {
  // What gRPC has to say comes back as a Status; its own lines would not be logfmt.
  ::gpr_set_log_function([](gpr_log_func_args*) {});
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto running = std::make_unique<Running>(directory, tls.any());
  DW_ASSIGN(running->acceptor, Acceptor::Listen(at));
  running->services = MakeServices(running->shared);
  grpc::ServerBuilder builder;
  SetLimits(builder);
  for (const auto& service : running->services) builder.RegisterService(service.get());
  running->connections = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      tls::ServerCredentials(tls));
  running->server = builder.BuildAndStart();
  if (running->server == nullptr) return Status(Code::kUnavailable, "gRPC does not start");
  running->acceptor->Start([connections = running->connections.get()](int fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.fd = fd;
    connections->HandleNewConnection(&connection);
  });
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(running)));
}

GrpcServer::GrpcServer(std::unique_ptr<Running> running) : running_(std::move(running)) {}

GrpcServer::~GrpcServer() {
  Stop();
}

uint16_t GrpcServer::port() const {
  return running_->acceptor->port();
}

void GrpcServer::Tick(BootTime now, bool serving) {
  running_->shared.streams.Tick(now);
  if (running_->serving == serving) return;
  running_->serving = serving;
  running_->server->GetHealthCheckService()->SetServingStatus(serving);
  for (const char* name : {"datawire.directory.v1.Directory", "datawire.directory.v1.Admin"}) {
    running_->server->GetHealthCheckService()->SetServingStatus(name, serving);
  }
}

GrpcUse GrpcServer::use() const {
  const Shared& shared = running_->shared;
  GrpcUse use;
  for (size_t verb = 0; verb < kVerbNames.size(); ++verb) {
    for (size_t code = 0; code < CallCounts::kCodes; ++code) {
      const uint64_t calls = shared.counts.Read(verb, code);
      if (calls == 0) continue;
      use.finished.push_back({kVerbNames[verb], CodeName(static_cast<Code>(code)), calls});
    }
  }
  use.tethers = shared.streams.Count(Verb::kTether);
  use.subscribes = shared.streams.Count(Verb::kSubscribe);
  use.watches = shared.streams.Count(Verb::kWatch);
  use.connections_refused = running_->acceptor->refused();
  use.resolves_shed = shared.executor.shed();
  use.lists_shed = shared.pages.shed();
  return use;
}

void GrpcServer::Stop() {
  if (std::exchange(running_->stopped, true)) return;
  running_->shared.streams.Stop(
      Status(Code::kUnavailable, "this server stops: reconnect, elsewhere if you can"));
  running_->acceptor->Stop();
  running_->server->Shutdown(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                          gpr_time_from_millis(kStopDeadlineMs, GPR_TIMESPAN)));
  running_->server.reset();
  running_->shared.pages.Stop();
  running_->shared.executor.Stop();
}

}  // namespace datawire::directory
