#include "engine/etcd/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "datawire/mutex.h"
#include "engine/etcd/api.grpc.pb.h"
#include "tls/credentials.h"

namespace datawire::directory::etcd {
namespace {

constexpr Client::Most kConnect{200};
constexpr int kResponseMost = 32 << 20;

bool Says(const grpc::Status& status, std::string_view words) {
  return status.error_message().find(words) != std::string::npos;
}

Status FromGrpc(const std::string& endpoint, const grpc::Status& status) {
  const std::string message = "etcd at " + endpoint + ": " + status.error_message();
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return {};
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {Code::kTimeout, "etcd at " + endpoint + " does not answer"};
    case grpc::StatusCode::CANCELLED:
      return {Code::kCancelled, message};
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      if (Says(status, "space exceeded")) return {Code::kOverloaded, message};
      if (Says(status, "message larger than max")) return {Code::kInvalid, message};
      return {Code::kUnavailable, message};
    case grpc::StatusCode::INVALID_ARGUMENT:
      return {Code::kInvalid, message};
    case grpc::StatusCode::OUT_OF_RANGE:
      return {Code::kAborted, message};
    case grpc::StatusCode::NOT_FOUND:
      return {Code::kNotFound, message};
    default:
      return {Code::kUnavailable, message};
  }
}

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments out;
  out.SetMaxReceiveMessageSize(kResponseMost);
  out.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own for each Client
  out.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  out.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 500);
  out.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return out;
}

}  // namespace

struct Client::Impl {
  struct Member {
    std::string endpoint;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<api::KV::Stub> kv;
    std::unique_ptr<api::Watch::Stub> watch;
    std::unique_ptr<api::Lease::Stub> lease;
    std::unique_ptr<api::Maintenance::Stub> maintenance;
  };
  std::vector<Member> members;

  Mutex mutex;
  bool stopped DW_GUARDED_BY(mutex) = false;
  std::set<grpc::ClientContext*> open DW_GUARDED_BY(mutex);

  void Enter(grpc::ClientContext& context) {
    const MutexLock lock(mutex);
    open.insert(&context);
    if (stopped) context.TryCancel();
  }
  void Leave(grpc::ClientContext& context) {
    const MutexLock lock(mutex);
    open.erase(&context);
  }

  // A call on a channel that has no connection fails at once, and nobody would be left to make one:
  // a blocking client only works on its channels while it waits.
  Status Connect(const Member& member, Most most) {
    if (member.channel->GetState(true) == GRPC_CHANNEL_READY) return {};
    const auto until =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                     gpr_time_from_millis(std::min(most, kConnect).count(), GPR_TIMESPAN));
    if (member.channel->WaitForConnected(until)) return {};
    return {Code::kUnavailable, "etcd at " + member.endpoint + " cannot be reached"};
  }

  template <typename Call>
  Status Do(size_t member, Most most, Call call) {
    DW_RETURN_IF_ERROR(Connect(members[member], most));
    grpc::ClientContext context;
    context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                      gpr_time_from_millis(most.count(), GPR_TIMESPAN)));
    Enter(context);
    const grpc::Status status = call(members[member], context);
    Leave(context);
    return FromGrpc(members[member].endpoint, status);
  }
};

namespace {

class GrpcWatch final : public Client::Watch {
 public:
  GrpcWatch(api::Watch::Stub& stub, std::string endpoint, const api::WatchCreateRequest& request,
            const std::function<void(grpc::ClientContext&)>& enter,
            std::function<void(grpc::ClientContext&)> leave)
      : endpoint_(std::move(endpoint)), leave_(std::move(leave)) {
    enter(context_);
    stream_ = stub.Watch(&context_);
    api::WatchRequest first;
    *first.mutable_create_request() = request;
    stream_->Write(first);
  }
  ~GrpcWatch() override {
    context_.TryCancel();
    if (!finished_) static_cast<void>(Finish());
    leave_(context_);
  }
  bool Read(api::WatchResponse* response) override { return stream_->Read(response); }
  void Cancel() override { context_.TryCancel(); }
  Status Finish() override {
    finished_ = true;
    return FromGrpc(endpoint_, stream_->Finish());
  }

 private:
  const std::string endpoint_;
  const std::function<void(grpc::ClientContext&)> leave_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<api::WatchRequest, api::WatchResponse>> stream_;
  bool finished_ = false;
};

}  // namespace

Client::Client(std::vector<std::string> endpoints, const TlsFiles& tls)
    : impl_(std::make_unique<Impl>()) {
  const auto credentials = tls::ChannelCredentials(tls);
  for (std::string& endpoint : endpoints) {
    auto channel = grpc::CreateCustomChannel(endpoint, credentials, Arguments());
    impl_->members.push_back({std::move(endpoint), channel, api::KV::NewStub(channel),
                              api::Watch::NewStub(channel), api::Lease::NewStub(channel),
                              api::Maintenance::NewStub(channel)});
  }
}

Client::~Client() {
  Stop();
}

size_t Client::members() const {
  return impl_->members.size();
}

const std::string& Client::endpoint(size_t member) const {
  return impl_->members[member].endpoint;
}

Result<api::TxnResponse> Client::Txn(size_t member, const api::TxnRequest& request, Most most) {
  api::TxnResponse response;
  DW_RETURN_IF_ERROR(impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    return at.kv->Txn(&context, request, &response);
  }));
  return response;
}

Result<api::RangeResponse> Client::Range(size_t member, const api::RangeRequest& request,
                                         Most most) {
  api::RangeResponse response;
  DW_RETURN_IF_ERROR(impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    return at.kv->Range(&context, request, &response);
  }));
  return response;
}

Status Client::Compact(size_t member, uint64_t revision, Most most) {
  api::CompactionRequest request;
  request.set_revision(static_cast<int64_t>(revision));
  api::CompactionResponse response;
  return impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    return at.kv->Compact(&context, request, &response);
  });
}

Result<int64_t> Client::GrantLease(size_t member, int64_t seconds, Most most) {
  api::LeaseGrantRequest request;
  request.set_ttl(seconds);
  api::LeaseGrantResponse response;
  DW_RETURN_IF_ERROR(impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    return at.lease->LeaseGrant(&context, request, &response);
  }));
  return response.id();
}

// A stream for one message: keeping it open would save little at one each few seconds, and a
// member that freezes would hold it.
Status Client::KeepLease(size_t member, int64_t lease, Most most) {
  api::LeaseKeepAliveResponse response;
  bool answered = false;
  DW_RETURN_IF_ERROR(impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    auto stream = at.lease->LeaseKeepAlive(&context);
    api::LeaseKeepAliveRequest request;
    request.set_id(lease);
    stream->Write(request);
    stream->WritesDone();
    answered = stream->Read(&response);
    return stream->Finish();
  }));
  if (!answered) return {Code::kUnavailable, "etcd at " + endpoint(member) + " keeps no lease"};
  if (response.ttl() <= 0) return {Code::kNotFound, "the lease is gone"};
  return {};
}

Status Client::RevokeLease(size_t member, int64_t lease, Most most) {
  api::LeaseRevokeRequest request;
  request.set_id(lease);
  api::LeaseRevokeResponse response;
  return impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    return at.lease->LeaseRevoke(&context, request, &response);
  });
}

Result<api::StatusResponse> Client::MemberStatus(size_t member, Most most) {
  api::StatusResponse response;
  DW_RETURN_IF_ERROR(impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    return at.maintenance->Status(&context, {}, &response);
  }));
  return response;
}

Status Client::Defragment(size_t member, Most most) {
  api::DefragmentResponse response;
  return impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    return at.maintenance->Defragment(&context, {}, &response);
  });
}

Result<api::AlarmResponse> Client::Alarm(size_t member, const api::AlarmRequest& request,
                                         Most most) {
  api::AlarmResponse response;
  DW_RETURN_IF_ERROR(impl_->Do(member, most, [&](Impl::Member& at, grpc::ClientContext& context) {
    return at.maintenance->Alarm(&context, request, &response);
  }));
  return response;
}

std::unique_ptr<Client::Watch> Client::OpenWatch(size_t member,
                                                 const api::WatchCreateRequest& request) {
  static_cast<void>(impl_->Connect(impl_->members[member], kConnect));
  return std::make_unique<GrpcWatch>(
      *impl_->members[member].watch, endpoint(member), request,
      [this](grpc::ClientContext& context) { impl_->Enter(context); },
      [this](grpc::ClientContext& context) { impl_->Leave(context); });
}

void Client::Stop() {
  const MutexLock lock(impl_->mutex);
  impl_->stopped = true;
  for (grpc::ClientContext* const context : impl_->open) context->TryCancel();
}

}  // namespace datawire::directory::etcd
