#include "session_stream.h"

#include <atomic>

#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/wire.h"
#include "grpc_calls.h"
#include "tls/credentials.h"

namespace datawire::cli {

namespace pb = ::datawire::directory::v1;

struct Connections::Impl {
  struct One {
    std::string server;
    TlsFiles tls;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<pb::Directory::Stub> stub;
  };
  std::vector<One> all;
};

Connections::Connections(const std::vector<std::string>& servers, size_t count, const TlsFiles& tls)
    : impl_(std::make_unique<Impl>()) {
  const auto credentials = tls::ChannelCredentials(tls);
  for (size_t i = 0; i < count; ++i) {
    const std::string& server = servers[i % servers.size()];
    const auto channel = ConnectTo(server, credentials);
    impl_->all.push_back({server, tls, channel, pb::Directory::NewStub(channel)});
  }
}

Status Connections::Connect(std::chrono::milliseconds timeout) {
  const gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                          gpr_time_from_millis(timeout.count(), GPR_TIMESPAN));
  for (const Impl::One& one : impl_->all) one.channel->GetState(true);
  for (const Impl::One& one : impl_->all)
    if (!one.channel->WaitForConnected(until))
      return {Code::kTimeout,
              "directory " + one.server + " was not connected to within the time given"};
  return {};
}

Connections::~Connections() = default;

struct SessionStream::Impl {
  explicit Impl(Connections::Impl::One& one) : server(one.server), tls(one.tls) {
    stream = one.stub->Tether(&context);
  }

  // What Read and Write do while they wait.
  class Waiting {
   public:
    explicit Waiting(Impl& impl) : impl_(impl) {
      impl_.waits_since = BootClock::now().time_since_epoch().count();
    }
    ~Waiting() { impl_.waits_since = 0; }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    Impl& impl_;
  };

  Status Broken() {
    finished = true;
    const Status status = FromGrpc(stream->Finish(), server, tls);
    if (silent)
      return {Code::kTimeout, "directory " + server + " did not answer within the time given"};
    if (status.ok() || status.code() == Code::kCancelled)
      return {Code::kUnavailable, "directory " + server + " ended the stream"};
    return status;
  }

  const std::string server;
  const TlsFiles tls;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<pb::TetherRequest, pb::TetherResponse>> stream;
  bool finished = false;
  std::atomic<BootTime::rep> waits_since{0};  // 0: it does not
  std::atomic<bool> silent{false};
};

SessionStream::SessionStream(Connections& connections, size_t number)
    : impl_(
          std::make_unique<Impl>(connections.impl_->all[number % connections.impl_->all.size()])) {}

SessionStream::~SessionStream() {
  if (impl_->finished) return;
  impl_->context.TryCancel();
  (void)impl_->stream->Finish();
}

Status SessionStream::Write(const pb::TetherRequest& request) {
  if (impl_->finished) return {Code::kUnavailable, "the stream has ended"};
  const Impl::Waiting waiting(*impl_);
  return impl_->stream->Write(request) ? Status() : impl_->Broken();
}

Result<pb::TetherResponse> SessionStream::Read() {
  if (impl_->finished) return Status(Code::kUnavailable, "the stream has ended");
  const Impl::Waiting waiting(*impl_);
  pb::TetherResponse response;
  if (!impl_->stream->Read(&response)) return impl_->Broken();
  if (response.has_move())
    return Status(Code::kUnavailable, "directory " + impl_->server + " stops");
  if (response.has_ended()) {
    const Status why = FromWire(response.ended().refusal());
    return why.ok()
               ? Status(Code::kSessionExpired, "the session ended: " + response.ended().reason())
               : why;
  }
  return response;
}

void SessionStream::CancelIfSilent(BootTime since) {
  const BootTime::rep waits = impl_->waits_since;
  if (waits == 0 || waits >= since.time_since_epoch().count()) return;
  impl_->silent = true;
  impl_->context.TryCancel();
}

}  // namespace datawire::cli
