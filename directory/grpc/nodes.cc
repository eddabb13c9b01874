#include "grpc/nodes.h"

#include <grpc/support/time.h>
#include <grpcpp/grpcpp.h>

#include <map>
#include <set>

#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/limits.h"
#include "datawire/mutex.h"
#include "datawire/wire.h"
#include "tls/credentials.h"

namespace datawire::directory {
namespace {

constexpr size_t kChannels = 64;  // more addresses than that: nodes that come and go

std::shared_ptr<grpc::Channel> ConnectTo(
    const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 500);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A machine that is gone says nothing: its connection must not be tried for ever.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  args.SetMaxReceiveMessageSize(static_cast<int>(limits::kBulkBytes));
  return grpc::CreateCustomChannel(address, credentials, args);
}

Status FromGrpc(const grpc::Status& status, const std::string& address) {
  if (status.ok()) return {};
  const Code code = CodeFromGrpc(status.error_code());
  pb::Refusal refusal;
  if (!status.error_details().empty() && refusal.ParseFromString(status.error_details()))
    return FromWire(refusal);
  if (code == Code::kTimeout) return {code, "no answer from " + address};
  const std::string& chain = status.error_message();  // ends with what says something
  const size_t last = chain.rfind(": ");
  return {code, address + ": " + (last == std::string::npos ? chain : chain.substr(last + 2))};
}

class GrpcNodes final : public Nodes {
 public:
  explicit GrpcNodes(const TlsFiles& tls) : credentials_(tls::ChannelCredentials(tls)) {}
  ~GrpcNodes() override { Stop(); }

  void GetStatus(const std::string& address, BootTime deadline,
                 Done<pb::StatusResponse> done) override {
    Call<pb::StatusRequest, pb::StatusResponse>(
        address, {}, deadline, std::move(done), [](auto& stub, auto* one, auto then) {
          stub.Status(&one->context, &one->request, &one->response, std::move(then));
        });
  }

  void Acknowledged(const std::string& address, const pb::AcknowledgedRequest& request,
                    BootTime deadline, Done<pb::AcknowledgedResponse> done) override {
    Call<pb::AcknowledgedRequest, pb::AcknowledgedResponse>(
        address, request, deadline, std::move(done), [](auto& stub, auto* one, auto then) {
          stub.Acknowledged(&one->context, &one->request, &one->response, std::move(then));
        });
  }

  void Stop() override {
    MutexLock lock(mutex_);
    stopped_ = true;
    for (grpc::ClientContext* context : open_) context->TryCancel();
    while (!open_.empty()) idle_.wait(lock);
  }

 private:
  template <typename Request, typename Response>
  struct One {
    grpc::ClientContext context;
    Request request;
    Response response;
    std::unique_ptr<pb::Admin::Stub> stub;
    Done<Response> done;
  };

  template <typename Request, typename Response, typename Start>
  void Call(const std::string& address, const Request& request, BootTime deadline,
            Done<Response> done, Start start) {
    auto one = std::make_shared<One<Request, Response>>();
    one->request = request;
    one->done = std::move(done);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - BootClock::now());
    one->context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                           gpr_time_from_millis(left.count(), GPR_TIMESPAN)));
    {
      const MutexLock lock(mutex_);
      one->stub = pb::Admin::NewStub(ChannelTo(address));
      open_.insert(&one->context);
      if (stopped_) one->context.TryCancel();  // it ends at once, and says so
    }
    start(*one->stub->async(), one.get(), [this, one, address](const grpc::Status& status) {
      Done<Response> then;
      {
        const MutexLock lock(mutex_);  // gRPC's own order is not seen by ThreadSanitizer
        then = std::move(one->done);
      }
      if (status.ok())
        then(std::move(one->response));
      else
        then(FromGrpc(status, address));
      const MutexLock lock(mutex_);
      open_.erase(&one->context);
      if (open_.empty()) idle_.notify_all();
    });
  }

  std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address) DW_REQUIRES(mutex_) {
    if (channels_.size() > kChannels) channels_.clear();  // calls under way keep theirs
    auto& channel = channels_[address];
    if (!channel) channel = ConnectTo(address, credentials_);
    return channel;
  }

  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  Mutex mutex_;
  Condition idle_;
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_ DW_GUARDED_BY(mutex_);
  std::set<grpc::ClientContext*> open_ DW_GUARDED_BY(mutex_);
  bool stopped_ DW_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<Nodes> MakeGrpcNodes(const TlsFiles& tls) {
  return std::make_unique<GrpcNodes>(tls);
}

}  // namespace datawire::directory
