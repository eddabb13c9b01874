#include "api.h"

#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "datawire/clock.h"
#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/limits.h"
#include "grpc_calls.h"
#include "tls/credentials.h"

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAgain{100};  // between rounds over the servers while waiting
constexpr milliseconds kAttemptLeast{100};

// Another server may know better, or this one later.
bool WorthAnotherServer(const Status& status) {
  switch (status.code()) {
    case Code::kUnavailable:
    case Code::kOverloaded:
    case Code::kBehind:
    case Code::kTimeout:
    case Code::kCancelled:  // not by us
      return true;
    default:
      return false;
  }
}

void SetDeadline(grpc::ClientContext& context, milliseconds timeout) {
  context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                    gpr_time_from_millis(timeout.count(), GPR_TIMESPAN)));
}

struct Server {
  std::string name;
  std::shared_ptr<grpc::Channel> channel;
};

}  // namespace

struct Api::Impl {
  explicit Impl(ApiOptions from)
      : options(std::move(from)), credentials(tls::ChannelCredentials(options.tls)) {
    for (const std::string& name : options.servers) servers.push_back({name, nullptr});
  }

  std::shared_ptr<grpc::Channel> ChannelTo(size_t index) {
    Server& server = servers[index];
    if (!server.channel) server.channel = ConnectTo(server.name, credentials);
    return server.channel;
  }

  // One round over the servers, from the one that answered last.
  template <typename Response, typename Call>
  Result<Response> Round(milliseconds timeout, const Call& call) {
    const BootTime until = BootClock::now() + timeout;
    Status last(Code::kUnavailable, "no directory server");
    for (size_t tried = 0; tried < servers.size(); ++tried) {
      const size_t index = (present + tried) % servers.size();
      const auto left = std::chrono::ceil<milliseconds>(until - BootClock::now());
      if (tried > 0 && left.count() <= 0) break;
      // What hangs leaves time for those after it.
      const auto share = left / static_cast<int>(servers.size() - tried);
      grpc::ClientContext context;
      SetDeadline(context, std::max(kAttemptLeast, share));
      Response response;
      const auto stub = pb::Directory::NewStub(ChannelTo(index));
      const auto admin = pb::Admin::NewStub(ChannelTo(index));
      last = FromGrpc(call(*stub, *admin, &context, &response), servers[index].name, options.tls);
      if (last.ok()) {
        present = index;
        return response;
      }
      if (!WorthAnotherServer(last)) return last;
      servers[index].channel.reset();  // the next attempt connects, and tells its own failure
    }
    return last;
  }

  template <typename Response, typename Call>
  Result<Response> Invoke(const Call& call) {
    return Invoke<Response>(call, options.timeout);
  }

  template <typename Response, typename Call>
  Result<Response> Invoke(const Call& call, milliseconds timeout) {
    const BootTime until = BootClock::now() + options.wait;
    for (;;) {
      auto result = Round<Response>(timeout, call);
      if (result.ok() || !WorthAnotherServer(result.status())) return result;
      if (BootClock::now() + kAgain >= until) return result;
      std::unique_lock lock(mutex);
      wake.wait_for(lock, result.status().retry_after().value_or(kAgain),
                    [this] { return cancelled; });
      if (cancelled) return result;
    }
  }

  // Only the server that gave a page's token holds its snapshot.
  template <typename Response, typename Call>
  Result<Response> InvokePage(const std::string& token, const Call& call) {
    if (token.empty()) return Invoke<Response>(call);
    grpc::ClientContext context;
    SetDeadline(context, options.timeout);
    Response response;
    const auto stub = pb::Directory::NewStub(ChannelTo(present));
    const auto admin = pb::Admin::NewStub(ChannelTo(present));
    const Status status =
        FromGrpc(call(*stub, *admin, &context, &response), servers[present].name, options.tls);
    if (!status.ok()) return status;
    return response;
  }

  const ApiOptions options;
  const std::shared_ptr<grpc::ChannelCredentials> credentials;
  std::vector<Server> servers;
  size_t present = 0;

  std::mutex mutex;
  std::condition_variable wake;
  bool cancelled = false;
  grpc::ClientContext* watching = nullptr;
};

Api::Api(ApiOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
  // What gRPC has to say comes back as a Status; its own lines would be a second error.
  ::gpr_set_log_function([](gpr_log_func_args*) {});
}
Api::~Api() = default;

Result<pb::ResolveResponse> Api::Resolve(const pb::ResolveRequest& request) {
  return impl_->Invoke<pb::ResolveResponse>([&](auto& stub, auto&, auto* context, auto* out) {
    return stub.Resolve(context, request, out);
  });
}

Result<pb::RegisterResponse> Api::Register(const pb::RegisterRequest& request) {
  return impl_->Invoke<pb::RegisterResponse>([&](auto& stub, auto&, auto* context, auto* out) {
    return stub.Register(context, request, out);
  });
}

Result<pb::WithdrawResponse> Api::Withdraw(const pb::WithdrawRequest& request) {
  return impl_->Invoke<pb::WithdrawResponse>([&](auto& stub, auto&, auto* context, auto* out) {
    return stub.Withdraw(context, request, out);
  });
}

Result<pb::SetPolicyResponse> Api::SetPolicy(const pb::SetPolicyRequest& request) {
  return impl_->Invoke<pb::SetPolicyResponse>([&](auto& stub, auto&, auto* context, auto* out) {
    return stub.SetPolicy(context, request, out);
  });
}

Result<pb::GetPolicyResponse> Api::GetPolicy(const pb::GetPolicyRequest& request) {
  return impl_->Invoke<pb::GetPolicyResponse>([&](auto& stub, auto&, auto* context, auto* out) {
    return stub.GetPolicy(context, request, out);
  });
}

Result<pb::DrainResponse> Api::Drain(const pb::DrainRequest& request, milliseconds timeout) {
  return impl_->Invoke<pb::DrainResponse>(
      [&](auto& stub, auto&, auto* context, auto* out) {
        return stub.Drain(context, request, out);
      },
      timeout * static_cast<int>(impl_->servers.size()));  // each may have all of it
}

Result<pb::ListResponse> Api::List(const pb::ListRequest& request) {
  const auto call = [&](auto& stub, auto&, auto* context, auto* out) {
    return stub.List(context, request, out);
  };
  return impl_->InvokePage<pb::ListResponse>(request.page_token(), call);
}

Result<pb::HistoryResponse> Api::History(const pb::HistoryRequest& request) {
  return impl_->Invoke<pb::HistoryResponse>([&](auto& stub, auto&, auto* context, auto* out) {
    return stub.History(context, request, out);
  });
}

Result<pb::ExplainResponse> Api::Explain(const pb::ExplainRequest& request) {
  return impl_->Invoke<pb::ExplainResponse>([&](auto& stub, auto&, auto* context, auto* out) {
    return stub.Explain(context, request, out);
  });
}

Result<pb::StatusResponse> Api::GetStatus() {
  return impl_->Invoke<pb::StatusResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.Status(context, pb::StatusRequest(), out);
  });
}

Result<pb::MembersResponse> Api::Members() {
  return impl_->Invoke<pb::MembersResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.Members(context, pb::MembersRequest(), out);
  });
}

Result<pb::CompareResponse> Api::Compare() {
  return impl_->Invoke<pb::CompareResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.Compare(context, pb::CompareRequest(), out);
  });
}

Result<pb::ForgetNodeResponse> Api::ForgetNode(const pb::ForgetNodeRequest& request) {
  return impl_->Invoke<pb::ForgetNodeResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.ForgetNode(context, request, out);
  });
}

Result<pb::ListSessionsResponse> Api::ListSessions(const pb::ListSessionsRequest& request) {
  return impl_->Invoke<pb::ListSessionsResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.ListSessions(context, request, out);
  });
}

Result<pb::EndSessionResponse> Api::EndSession(const pb::EndSessionRequest& request) {
  return impl_->Invoke<pb::EndSessionResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.EndSession(context, request, out);
  });
}

Result<pb::ReleaseBrakeResponse> Api::ReleaseBrake() {
  return impl_->Invoke<pb::ReleaseBrakeResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.ReleaseBrake(context, pb::ReleaseBrakeRequest(), out);
  });
}

Result<pb::ExportResponse> Api::Export(const pb::ExportRequest& request) {
  return impl_->InvokePage<pb::ExportResponse>(request.page_token(),
                                               [&](auto&, auto& admin, auto* context, auto* out) {
                                                 return admin.Export(context, request, out);
                                               });
}

Result<pb::SnapshotResponse> Api::SaveSnapshot(const pb::SnapshotRequest& request) {
  return impl_->Invoke<pb::SnapshotResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.Snapshot(context, request, out);
  });
}

Result<pb::SnapshotResponse> Api::VerifySnapshot(const pb::SnapshotRequest& request) {
  return impl_->Invoke<pb::SnapshotResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.VerifySnapshot(context, request, out);
  });
}

Result<pb::AuditTailResponse> Api::AuditTail(const pb::AuditTailRequest& request) {
  return impl_->Invoke<pb::AuditTailResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.AuditTail(context, request, out);
  });
}

Result<pb::AuditVerifyResponse> Api::AuditVerify(const pb::AuditVerifyRequest& request) {
  return impl_->Invoke<pb::AuditVerifyResponse>([&](auto&, auto& admin, auto* context, auto* out) {
    return admin.AuditVerify(context, request, out);
  });
}

Status Api::Watch(const pb::WatchRequest& request,
                  const std::function<bool(const pb::WatchResponse&)>& take) {
  grpc::ClientContext context;
  const size_t index = impl_->present;
  impl_->present = (impl_->present + 1) % impl_->servers.size();
  const std::string& server = impl_->servers[index].name;
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->cancelled) return {Code::kCancelled, "cancelled"};
    impl_->watching = &context;
  }
  const auto stub = pb::Directory::NewStub(impl_->ChannelTo(index));
  const auto reader = stub->Watch(&context, request);

  // Reads block; this one ends them when nothing came for too long. Marks come each second.
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false, silent = false;
  const BootTime begun = BootClock::now();
  BootTime heard = begun;
  bool any = false;
  std::thread guard([&] {
    std::unique_lock lock(mutex);
    while (!ended) {
      const auto most = any ? milliseconds(limits::kStreamSilence) : impl_->options.timeout;
      const auto left = std::chrono::ceil<milliseconds>(heard + most - BootClock::now());
      if (left.count() <= 0) {
        silent = true;
        context.TryCancel();
        return;
      }
      changed.wait_for(lock, left);
    }
  });
  bool enough = false;
  for (pb::WatchResponse message; !enough && reader->Read(&message);) {
    {
      std::lock_guard lock(mutex);
      heard = BootClock::now();
      any = true;
    }
    enough = !take(message);
  }
  {
    std::lock_guard lock(mutex);
    ended = true;
  }
  changed.notify_all();
  guard.join();
  if (enough) context.TryCancel();
  const Status status = FromGrpc(reader->Finish(), server, impl_->options.tls);
  std::lock_guard lock(impl_->mutex);
  impl_->watching = nullptr;
  if (impl_->cancelled || enough) return {Code::kCancelled, "cancelled"};
  if (silent)
    return {Code::kTimeout, "directory " + server + " did not answer within the time given"};
  if (status.ok() || status.code() == Code::kCancelled)  // not by us
    return {Code::kUnavailable, "directory " + server + " ended the stream"};
  return status;
}

void Api::Cancel() {
  std::lock_guard lock(impl_->mutex);
  impl_->cancelled = true;
  if (impl_->watching != nullptr) impl_->watching->TryCancel();
  impl_->wake.notify_all();
}

}  // namespace datawire::cli
