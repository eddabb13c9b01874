#include "grpc/service.h"

#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/limits.h"
#include "grpc/wire_bytes.h"
#include "ops/process.h"

namespace datawire::directory {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;

std::string Encoded(std::string bytes) {
  return bytes;
}

std::string Encoded(const google::protobuf::MessageLite& message) {
  return message.SerializeAsString();
}

template <typename Request, typename... Kinds>
constexpr bool kIsOneOf = (std::is_same_v<Request, Kinds> || ...);

/// What costs more than its refusal waits for its turn, as it came: here. The rest is answered at
/// once, since a refusal would save nothing: null.
template <typename Request>
Executor* QueueOf(Shared& shared, const ByteBuffer& request) {
  if constexpr (std::is_same_v<Request, pb::ResolveRequest>) {
    if (request.Length() > limits::kSmallResolve) return &shared.executor;
  } else if constexpr (kIsOneOf<Request, pb::ListRequest, pb::HistoryRequest, pb::ExplainRequest,
                                pb::ExportRequest, pb::ListSessionsRequest, pb::AuditTailRequest,
                                pb::MembersRequest>) {
    return &shared.pages;
  }
  return nullptr;
}

template <typename Response, typename Request, typename Finish, typename Call>
void Begin(Shared& shared, const ByteBuffer& bytes, Finish finish, ByteBuffer* out, Call call) {
  Request request;
  // All addresses of a session go from node to node at once.
  constexpr size_t kMost =
      kIsOneOf<Request, pb::AcknowledgedRequest> ? limits::kBulkBytes : limits::kUnaryBytes;
  if (const Status status = Parse(bytes, kMost, &request); !status.ok()) {
    finish(status);
    return;
  }
  const auto answer = [finish, out](Result<Response> response) {
    if (response.ok()) *out = ToBuffer(Encoded(std::move(response).value()));
    finish(response.status());
  };
  call(request, [&shared, answer, here = std::this_thread::get_id()](Result<Response> response) {
    if (std::this_thread::get_id() == here) {
      answer(std::move(response));
      return;
    }
    // The engine's thread has better to do than to write to a socket.
    shared.executor.Post([answer, held = std::make_shared<Result<Response>>(std::move(
                                      response))]() mutable { answer(std::move(*held)); });
  });
}

/// One unary call: `call` gets the parsed request and `done`, which may come later from any thread.
template <typename Response, typename Request, typename Call>
grpc::ServerUnaryReactor* Unary(Shared& shared, Verb verb, CallbackServerContext* context,
                                const ByteBuffer* bytes, ByteBuffer* out, Call call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto finish = [&shared, verb, reactor](const Status& status) {
    shared.counts.Count(verb, status.code());
    reactor->Finish(ToGrpc(status));
  };
  const BootTime deadline = DeadlineOf(*context);
  if (deadline < BootClock::now()) {
    finish(Status(Code::kTimeout, "the call's deadline passed before it was begun"));
    return reactor;
  }
  if (const Status known = CheckCaller(shared, *context); !known.ok()) {
    finish(known);
    return reactor;
  }
  Executor* const queue = QueueOf<Request>(shared, *bytes);
  if (queue == nullptr) {
    Begin<Response, Request>(shared, *bytes, finish, out, call);
    return reactor;
  }
  auto turn = [&shared, context, out, finish, call, held = *bytes](const Status& status) {
    if (!status.ok()) return finish(status);
    if (context->IsCancelled()) return finish(Status(Code::kCancelled, "the caller is gone"));
    Begin<Response, Request>(shared, held, finish, out, call);
  };
  queue->Offer(deadline, std::move(turn));
  return reactor;
}

template <typename Base>
using RawChanges = pb::Directory::WithRawCallbackMethod_History<
    pb::Directory::WithRawCallbackMethod_SetPolicy<pb::Directory::WithRawCallbackMethod_GetPolicy<
        pb::Directory::WithRawCallbackMethod_Drain<Base>>>>;
template <typename Base>
using RawUnaries =
    pb::Directory::WithRawCallbackMethod_Resolve<pb::Directory::WithRawCallbackMethod_Register<
        pb::Directory::WithRawCallbackMethod_Withdraw<pb::Directory::WithRawCallbackMethod_List<
            pb::Directory::WithRawCallbackMethod_Explain<RawChanges<Base>>>>>>;
template <typename Base>
using RawStreams =
    pb::Directory::WithRawCallbackMethod_Tether<pb::Directory::WithRawCallbackMethod_Subscribe<
        pb::Directory::WithRawCallbackMethod_Watch<Base>>>;

class DirectoryService final : public RawUnaries<RawStreams<pb::Directory::Service>> {
 public:
  explicit DirectoryService(Shared& shared) : shared_(shared) {}

  grpc::ServerUnaryReactor* Resolve(CallbackServerContext* context, const ByteBuffer* request,
                                    ByteBuffer* response) override {
    return Unary<std::string, pb::ResolveRequest>(
        shared_, Verb::kResolve, context, request, response,
        [this](const pb::ResolveRequest& parsed, auto done) {
          shared_.directory.Resolve(parsed, std::move(done));
        });
  }

  grpc::ServerUnaryReactor* Register(CallbackServerContext* context, const ByteBuffer* request,
                                     ByteBuffer* response) override {
    return Unary<pb::RegisterResponse, pb::RegisterRequest>(
        shared_, Verb::kRegister, context, request, response,
        [this, context](const pb::RegisterRequest& parsed, auto done) {
          shared_.directory.Register(parsed, PeerOf(*context), std::move(done));
        });
  }

  grpc::ServerUnaryReactor* Withdraw(CallbackServerContext* context, const ByteBuffer* request,
                                     ByteBuffer* response) override {
    return Unary<pb::WithdrawResponse, pb::WithdrawRequest>(
        shared_, Verb::kWithdraw, context, request, response,
        [this, context](const pb::WithdrawRequest& parsed, auto done) {
          shared_.directory.Withdraw(parsed, PeerOf(*context), std::move(done));
        });
  }

  grpc::ServerUnaryReactor* SetPolicy(CallbackServerContext* context, const ByteBuffer* request,
                                      ByteBuffer* response) override {
    return Unary<pb::SetPolicyResponse, pb::SetPolicyRequest>(
        shared_, Verb::kSetPolicy, context, request, response,
        [this, context](const pb::SetPolicyRequest& parsed, auto done) {
          shared_.directory.SetPolicy(parsed, PeerOf(*context), std::move(done));
        });
  }

  grpc::ServerUnaryReactor* GetPolicy(CallbackServerContext* context, const ByteBuffer* request,
                                      ByteBuffer* response) override {
    return Unary<pb::GetPolicyResponse, pb::GetPolicyRequest>(
        shared_, Verb::kGetPolicy, context, request, response,
        [this](const pb::GetPolicyRequest& parsed, const auto& done) {
          done(shared_.directory.GetPolicy(parsed));
        });
  }

  grpc::ServerUnaryReactor* Drain(CallbackServerContext* context, const ByteBuffer* request,
                                  ByteBuffer* response) override {
    return Unary<pb::DrainResponse, pb::DrainRequest>(
        shared_, Verb::kDrain, context, request, response,
        [this, context](const pb::DrainRequest& parsed, auto done) {
          shared_.directory.Drain(parsed, PeerOf(*context), std::move(done));
        });
  }

  grpc::ServerUnaryReactor* List(CallbackServerContext* context, const ByteBuffer* request,
                                 ByteBuffer* response) override {
    return Unary<pb::ListResponse, pb::ListRequest>(
        shared_, Verb::kList, context, request, response,
        [this](const pb::ListRequest& parsed, const auto& done) {
          done(shared_.directory.List(parsed));
        });
  }

  grpc::ServerUnaryReactor* History(CallbackServerContext* context, const ByteBuffer* request,
                                    ByteBuffer* response) override {
    return Unary<pb::HistoryResponse, pb::HistoryRequest>(
        shared_, Verb::kHistory, context, request, response,
        [this](const pb::HistoryRequest& parsed, const auto& done) {
          done(shared_.directory.History(parsed));
        });
  }

  grpc::ServerUnaryReactor* Explain(CallbackServerContext* context, const ByteBuffer* request,
                                    ByteBuffer* response) override {
    return Unary<pb::ExplainResponse, pb::ExplainRequest>(
        shared_, Verb::kExplain, context, request, response,
        [this](const pb::ExplainRequest& parsed, const auto& done) {
          done(shared_.directory.Explain(parsed));
        });
  }

  grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* Tether(CallbackServerContext* context) override {
    return NewTetherStream(shared_, *context);
  }

  grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* Subscribe(
      CallbackServerContext* context) override {
    return NewSubscribeStream(shared_, *context);
  }

  grpc::ServerWriteReactor<ByteBuffer>* Watch(CallbackServerContext* context,
                                              const ByteBuffer* request) override {
    return NewWatchStream(shared_, *context, *request);
  }

 private:
  Shared& shared_;
};

template <typename Base>
using RawSessions =
    pb::Admin::WithRawCallbackMethod_ListSessions<pb::Admin::WithRawCallbackMethod_EndSession<
        pb::Admin::WithRawCallbackMethod_ReleaseBrake<Base>>>;

template <typename Base>
using RawBackup = pb::Admin::WithRawCallbackMethod_Export<pb::Admin::WithRawCallbackMethod_Snapshot<
    pb::Admin::WithRawCallbackMethod_VerifySnapshot<Base>>>;
template <typename Base>
using RawAudit =
    pb::Admin::WithRawCallbackMethod_AuditTail<pb::Admin::WithRawCallbackMethod_AuditVerify<Base>>;
template <typename Base>
using RawNodes = pb::Admin::WithRawCallbackMethod_Status<pb::Admin::WithRawCallbackMethod_Members<
    pb::Admin::WithRawCallbackMethod_Acknowledged<pb::Admin::WithRawCallbackMethod_Compare<
        pb::Admin::WithRawCallbackMethod_ForgetNode<Base>>>>>;

class AdminService final : public RawNodes<RawSessions<RawBackup<RawAudit<pb::Admin::Service>>>> {
 public:
  explicit AdminService(Shared& shared) : shared_(shared) {}

  grpc::ServerUnaryReactor* Status(CallbackServerContext* context, const ByteBuffer* request,
                                   ByteBuffer* response) override {
    return Unary<pb::StatusResponse, pb::StatusRequest>(
        shared_, Verb::kStatus, context, request, response,
        [this](const pb::StatusRequest&, const auto& done) {
          pb::StatusResponse status = shared_.directory.GetStatus();
          const ProcessUse use = ReadProcessUse();
          status.set_open_files(use.open_files);
          status.set_open_files_most(use.open_files_most);
          done(Result<pb::StatusResponse>(std::move(status)));
        });
  }

  grpc::ServerUnaryReactor* Members(CallbackServerContext* context, const ByteBuffer* request,
                                    ByteBuffer* response) override {
    return Unary<pb::MembersResponse, pb::MembersRequest>(
        shared_, Verb::kMembers, context, request, response,
        [this](const pb::MembersRequest&, const auto& done) { done(shared_.directory.Members()); });
  }

  grpc::ServerUnaryReactor* Acknowledged(CallbackServerContext* context, const ByteBuffer* request,
                                         ByteBuffer* response) override {
    return Unary<pb::AcknowledgedResponse, pb::AcknowledgedRequest>(
        shared_, Verb::kAcknowledged, context, request, response,
        [this](const pb::AcknowledgedRequest& parsed, auto done) {
          shared_.directory.Acknowledged(parsed, std::move(done));
        });
  }

  grpc::ServerUnaryReactor* Compare(CallbackServerContext* context, const ByteBuffer* request,
                                    ByteBuffer* response) override {
    return Unary<pb::CompareResponse, pb::CompareRequest>(
        shared_, Verb::kCompare, context, request, response,
        [this, context](const pb::CompareRequest&, auto done) {
          shared_.directory.Compare(PeerOf(*context), std::move(done));
        });
  }

  grpc::ServerUnaryReactor* ForgetNode(CallbackServerContext* context, const ByteBuffer* request,
                                       ByteBuffer* response) override {
    return Unary<pb::ForgetNodeResponse, pb::ForgetNodeRequest>(
        shared_, Verb::kForgetNode, context, request, response,
        [this, context](const pb::ForgetNodeRequest& parsed, auto done) {
          shared_.directory.ForgetNode(parsed, PeerOf(*context), std::move(done));
        });
  }

  grpc::ServerUnaryReactor* Export(CallbackServerContext* context, const ByteBuffer* request,
                                   ByteBuffer* response) override {
    return Unary<pb::ExportResponse, pb::ExportRequest>(
        shared_, Verb::kExport, context, request, response,
        [this](const pb::ExportRequest& parsed, const auto& done) {
          done(shared_.directory.Export(parsed));
        });
  }

  grpc::ServerUnaryReactor* Snapshot(CallbackServerContext* context, const ByteBuffer* request,
                                     ByteBuffer* response) override {
    return Unary<pb::SnapshotResponse, pb::SnapshotRequest>(
        shared_, Verb::kSnapshot, context, request, response,
        [this](const pb::SnapshotRequest& parsed, auto done) {
          shared_.directory.Snapshot(parsed, std::move(done));
        });
  }

  grpc::ServerUnaryReactor* VerifySnapshot(CallbackServerContext* context,
                                           const ByteBuffer* request,
                                           ByteBuffer* response) override {
    return Unary<pb::SnapshotResponse, pb::SnapshotRequest>(
        shared_, Verb::kSnapshot, context, request, response,
        [this](const pb::SnapshotRequest& parsed, auto done) {
          shared_.directory.VerifySnapshot(parsed, std::move(done));
        });
  }

  grpc::ServerUnaryReactor* AuditTail(CallbackServerContext* context, const ByteBuffer* request,
                                      ByteBuffer* response) override {
    return Unary<pb::AuditTailResponse, pb::AuditTailRequest>(
        shared_, Verb::kAuditTail, context, request, response,
        [this](const pb::AuditTailRequest& parsed, const auto& done) {
          done(shared_.directory.AuditTail(parsed));
        });
  }

  grpc::ServerUnaryReactor* AuditVerify(CallbackServerContext* context, const ByteBuffer* request,
                                        ByteBuffer* response) override {
    return Unary<pb::AuditVerifyResponse, pb::AuditVerifyRequest>(
        shared_, Verb::kAuditVerify, context, request, response,
        [this, context](const pb::AuditVerifyRequest& parsed, auto done) {
          // Cancelled also by its deadline. The context lives until `done` ran.
          shared_.directory.AuditVerify(
              parsed, [context] { return !context->IsCancelled(); }, std::move(done));
        });
  }

  grpc::ServerUnaryReactor* ListSessions(CallbackServerContext* context, const ByteBuffer* request,
                                         ByteBuffer* response) override {
    return Unary<pb::ListSessionsResponse, pb::ListSessionsRequest>(
        shared_, Verb::kListSessions, context, request, response,
        [this](const pb::ListSessionsRequest& parsed, const auto& done) {
          done(shared_.directory.ListSessions(parsed));
        });
  }

  grpc::ServerUnaryReactor* EndSession(CallbackServerContext* context, const ByteBuffer* request,
                                       ByteBuffer* response) override {
    return Unary<pb::EndSessionResponse, pb::EndSessionRequest>(
        shared_, Verb::kEndSession, context, request, response,
        [this, context](const pb::EndSessionRequest& parsed, auto done) {
          shared_.directory.EndSession(parsed, PeerOf(*context), std::move(done));
        });
  }

  grpc::ServerUnaryReactor* ReleaseBrake(CallbackServerContext* context, const ByteBuffer* request,
                                         ByteBuffer* response) override {
    return Unary<pb::ReleaseBrakeResponse, pb::ReleaseBrakeRequest>(
        shared_, Verb::kReleaseBrake, context, request, response,
        [this](const pb::ReleaseBrakeRequest&, const auto& done) {
          done(shared_.directory.ReleaseBrake());
        });
  }

 private:
  Shared& shared_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> MakeServices(Shared& shared) {
  std::vector<std::unique_ptr<grpc::Service>> services;
  services.push_back(std::make_unique<DirectoryService>(shared));
  services.push_back(std::make_unique<AdminService>(shared));
  return services;
}

}  // namespace datawire::directory
