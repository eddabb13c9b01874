#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "datawire/directory/v1/directory.pb.h"
#include "datawire/result.h"
#include "datawire/tls_files.h"

namespace datawire::cli {

namespace pb = ::datawire::directory::v1;

struct ApiOptions {
  std::vector<std::string> servers;      ///< `host:port`, asked in this order
  std::chrono::milliseconds timeout{0};  ///< of a call, over all servers
  std::chrono::milliseconds wait{0};     ///< a directory that is away is asked again so long
  TlsFiles tls;
};

/// The native API, a call at a time, with failover over the servers. Every call ends by its
/// timeout, plus `wait`. Thread-compatible; Cancel is thread-safe.
class Api {
 public:
  explicit Api(ApiOptions options);
  ~Api();

  Result<pb::ResolveResponse> Resolve(const pb::ResolveRequest& request);
  Result<pb::RegisterResponse> Register(const pb::RegisterRequest& request);
  Result<pb::WithdrawResponse> Withdraw(const pb::WithdrawRequest& request);
  /// One page; the pages of a list come from the server that gave the first.
  Result<pb::ListResponse> List(const pb::ListRequest& request);
  Result<pb::SetPolicyResponse> SetPolicy(const pb::SetPolicyRequest& request);
  Result<pb::GetPolicyResponse> GetPolicy(const pb::GetPolicyRequest& request);
  /// `timeout` of its own, at each server: it may wait for acknowledgements.
  Result<pb::DrainResponse> Drain(const pb::DrainRequest& request,
                                  std::chrono::milliseconds timeout);
  Result<pb::HistoryResponse> History(const pb::HistoryRequest& request);
  Result<pb::ExplainResponse> Explain(const pb::ExplainRequest& request);
  Result<pb::StatusResponse> GetStatus();
  Result<pb::MembersResponse> Members();
  Result<pb::CompareResponse> Compare();
  Result<pb::ForgetNodeResponse> ForgetNode(const pb::ForgetNodeRequest& request);
  Result<pb::ListSessionsResponse> ListSessions(const pb::ListSessionsRequest& request);
  Result<pb::EndSessionResponse> EndSession(const pb::EndSessionRequest& request);
  Result<pb::ReleaseBrakeResponse> ReleaseBrake();
  /// One page, as List.
  Result<pb::ExportResponse> Export(const pb::ExportRequest& request);
  Result<pb::SnapshotResponse> SaveSnapshot(const pb::SnapshotRequest& request);
  Result<pb::SnapshotResponse> VerifySnapshot(const pb::SnapshotRequest& request);

  /// One page; any server goes on where another one's ended, they hold the same log.
  Result<pb::AuditTailResponse> AuditTail(const pb::AuditTailRequest& request);
  Result<pb::AuditVerifyResponse> AuditVerify(const pb::AuditVerifyRequest& request);

  /// Runs one Watch stream until it breaks, is silent for 10 s, `take` returns false, or Cancel.
  /// kCancelled after the latter two. The servers take turns.
  Status Watch(const pb::WatchRequest& request,
               const std::function<bool(const pb::WatchResponse&)>& take);
  /// Ends a Watch, now or later.
  void Cancel();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace datawire::cli
