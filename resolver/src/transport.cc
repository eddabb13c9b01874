#include "transport.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <vector>

#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/limits.h"
#include "datawire/wire.h"
#include "tls/credentials.h"
#include "tls/diagnose.h"

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;

// A server that refuses says why in the details, with a retry-after.
Status FromGrpc(const grpc::Status& status, const std::string& server, const TlsFiles& tls) {
  pb::Refusal refusal;
  if (!status.error_details().empty() && refusal.ParseFromString(status.error_details()) &&
      refusal.code() != pb::OK)
    return FromWire(refusal);
  const std::string message = server + ": " + status.error_message();
  return {CodeFromGrpc(status.error_code()), message + tls::Hint(message, tls)};
}

// Counts what gRPC still holds, and keeps streams that ended until Sweep: gRPC's callback thread
// must not destroy what may be the process's last channel, since that joins the callback threads.
// Thread-safe.
class Pending {
 public:
  void Add() {
    std::lock_guard lock(mutex_);
    count_++;
  }
  void Done(std::shared_ptr<void> ended = nullptr) {
    std::lock_guard lock(mutex_);
    if (ended) ended_.push_back(std::move(ended));
    if (--count_ == 0) none_.notify_all();
  }
  void WaitNone(milliseconds most) {
    std::unique_lock lock(mutex_);
    none_.wait_for(lock, most, [&] { return count_ == 0; });
  }
  void Sweep() {
    std::vector<std::shared_ptr<void>> ended;
    std::lock_guard lock(mutex_);
    ended.swap(ended_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  size_t count_ = 0;
  std::vector<std::shared_ptr<void>> ended_;  // few: swept when the next stream opens
};

// Lives until OnDone; the hold keeps OnDone away while others may still start operations.
class Stream : public grpc::ClientBidiReactor<pb::SubscribeRequest, pb::SubscribeResponse> {
 public:
  Stream(uint64_t number, std::string server, TlsFiles tls, std::shared_ptr<grpc::Channel> channel,
         std::shared_ptr<TransportSink> sink, std::shared_ptr<Pending> open)
      : number_(number),
        server_(std::move(server)),
        tls_(std::move(tls)),
        channel_(std::move(channel)),
        stub_(pb::Directory::NewStub(channel_)),
        sink_(std::move(sink)),
        open_(std::move(open)) {}

  static void Start(const std::shared_ptr<Stream>& self) {
    self->open_->Add();
    {
      std::lock_guard lock(self->mutex_);
      self->self_ = self;
    }
    self->stub_->async()->Subscribe(&self->context_, self.get());
    self->AddHold();
    self->StartCall();
  }

  bool Connected() const { return channel_->GetState(false) == GRPC_CHANNEL_READY; }

  void Read() {
    std::lock_guard lock(mutex_);
    if (!closed_) StartRead(&response_);
  }

  void Write(const pb::SubscribeRequest& request) {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    request_ = request;
    StartWrite(&request_);
  }

  void Cancel() {
    context_.TryCancel();
    Release();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Release();
    TakeOver();
    sink_->OnStream({.stream = number_,
                     .kind = StreamEvent::Kind::kRead,
                     .response = std::move(response_),
                     .status = {}});
  }

  void OnWriteDone(bool ok) override {
    // The stream ends, which the reads tell: gRPC holds its end back until all before it is read.
    if (!ok) return;
    TakeOver();
    sink_->OnStream(
        {.stream = number_, .kind = StreamEvent::Kind::kWritten, .response = {}, .status = {}});
  }

  void OnDone(const grpc::Status& status) override {
    TakeOver();
    Status why = status.ok() ? Status(Code::kUnavailable, server_ + ": ended the stream")
                             : FromGrpc(status, server_, tls_);
    sink_->OnStream({.stream = number_,
                     .kind = StreamEvent::Kind::kEnded,
                     .response = {},
                     .status = std::move(why)});
    const auto open = open_;
    open->Done(std::move(self_));
  }

 private:
  /// With the lock of who started the operation: ThreadSanitizer cannot see gRPC's own hand-over.
  void TakeOver() { std::lock_guard lock(mutex_); }

  void Release() {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      closed_ = true;
    }
    RemoveHold();  // may run OnDone: not under the lock
  }

  const uint64_t number_;
  const std::string server_;
  const TlsFiles tls_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<pb::Directory::Stub> stub_;
  const std::shared_ptr<TransportSink> sink_;
  const std::shared_ptr<Pending> open_;
  std::shared_ptr<Stream> self_;
  grpc::ClientContext context_;
  pb::SubscribeRequest request_;
  pb::SubscribeResponse response_;
  std::mutex mutex_;
  bool closed_ = false;
};

struct Call {
  grpc::ClientContext context;
  pb::ResolveRequest request;
  pb::ResolveResponse response;
  std::unique_ptr<pb::Directory::Stub> stub;
};

class GrpcTransport : public Transport {
 public:
  GrpcTransport(milliseconds connect_timeout, const TlsFiles& tls,
                std::shared_ptr<TransportSink> sink)
      : connect_timeout_(connect_timeout),
        tls_(tls),
        credentials_(tls::ChannelCredentials(tls)),
        sink_(std::move(sink)) {}

  ~GrpcTransport() override {
    Close();
    for (auto& [number, weak] : calls_)
      if (const auto call = weak.lock()) call->context.TryCancel();
    open_->WaitNone(milliseconds(5000));
    open_->Sweep();
  }

  void Open(uint64_t stream, const std::string& server) override {
    Close();
    open_->Sweep();
    stream_ = std::make_shared<Stream>(stream, server, tls_, Connect(server), sink_, open_);
    Stream::Start(stream_);
  }

  bool Connected() const override { return stream_ && stream_->Connected(); }

  void Read() override {
    if (stream_) stream_->Read();
  }

  void Write(const pb::SubscribeRequest& request) override {
    if (stream_) stream_->Write(request);
  }

  void Close() override {
    if (stream_) stream_->Cancel();
    stream_.reset();
  }

  void Resolve(uint64_t number, const std::string& server, const pb::ResolveRequest& request,
               milliseconds timeout) override {
    auto& channel = channels_[server];  // few: one a server
    if (!channel) channel = Connect(server);
    auto call = std::make_shared<Call>();
    call->request = request;
    call->stub = pb::Directory::NewStub(channel);
    call->context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                            gpr_time_from_millis(timeout.count(), GPR_TIMESPAN)));
    std::erase_if(calls_, [](const auto& c) { return c.second.expired(); });
    calls_[number] = call;
    open_->Add();
    call->stub->async()->Resolve(
        &call->context, &call->request, &call->response,
        [call, number, server, tls = tls_, sink = sink_,
         open = open_](const grpc::Status& status) mutable {
          sink->OnCall({.call = number,
                        .status = status.ok() ? Status() : FromGrpc(status, server, tls),
                        .response = std::move(call->response)});
          call.reset();
          open->Done();
        });
  }

 private:
  // A new channel for each attempt: no back-off but ours stands between us and a server that is
  // back.
  std::shared_ptr<grpc::Channel> Connect(const std::string& server) const {
    grpc::ChannelArguments arguments;
    const int connect_ms = static_cast<int>(connect_timeout_.count());
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, connect_ms);  // the connect time-out, too
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, connect_ms);
    arguments.SetInt(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, static_cast<int>(limits::kBulkBytes));
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // what a shell's proxy is for is not this
    arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // who retries, and when, is decided in one place
    return grpc::CreateCustomChannel(server, credentials_, arguments);
  }

  const milliseconds connect_timeout_;
  const TlsFiles tls_;
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  const std::shared_ptr<TransportSink> sink_;
  const std::shared_ptr<Pending> open_ = std::make_shared<Pending>();
  std::shared_ptr<Stream> stream_;
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_;
  std::map<uint64_t, std::weak_ptr<Call>> calls_;
};

}  // namespace

std::unique_ptr<Transport> Transport::Create(milliseconds connect_timeout, const TlsFiles& tls,
                                             std::shared_ptr<TransportSink> sink) {
  return std::make_unique<GrpcTransport>(connect_timeout, tls, std::move(sink));
}

}  // namespace datawire::resolver
