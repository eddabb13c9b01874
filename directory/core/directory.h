#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/quotas.h"
#include "datawire/clock.h"
#include "datawire/directory/v1/directory.pb.h"
#include "datawire/result.h"
#include "engine/log.h"
#include "view/view.h"

namespace datawire::directory {

namespace pb = ::datawire::directory::v1;

/// Who is at the other end of a call. Value.
struct Peer {
  std::string address;                  ///< `127.0.0.1:41234`, for people
  std::string identity;                 ///< SPIFFE id; empty without security
  BootTime deadline = BootTime::max();  ///< of the call: work that is not begun by then is dropped
};

/// A stream the directory talks on; front-ends implement it. Wake is called on any thread, may be
/// called at any time, must not block and must not call back: it schedules a call of Next().
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void Wake() = 0;
};

/// One Subscribe stream. Its front-end calls OnRequest for each message read and, after a Wake and
/// after each finished write, Next until it returns nothing: memory is bounded by the
/// subscriptions. Thread-safe.
class Subscriber {
 public:
  virtual ~Subscriber() = default;  ///< unsubscribes
  /// Not OK: the stream ends with it.
  virtual Status OnRequest(const pb::SubscribeRequest& request) = 0;
  /// The next encoded SubscribeResponse (at most 64 KiB); nothing: wait for Wake.
  virtual std::optional<std::string> Next() = 0;
};

/// One Watch stream. As Subscriber; messages are shared between watchers where they can be.
class Watcher {
 public:
  virtual ~Watcher() = default;
  /// The next encoded WatchResponse; nothing: wait for Wake. Not OK: the stream ends with it.
  virtual Result<std::optional<std::string>> Next() = 0;
};

/// One Tether stream. Thread-safe; OnMessage calls come one at a time.
class Tether {
 public:
  virtual ~Tether() = default;  ///< the stream is gone; the session lives on until its TTL
  virtual void OnMessage(const pb::TetherRequest& request) = 0;
  /// The next message to send; nothing: wait for Wake. After an Ended message the stream ends.
  virtual std::optional<pb::TetherResponse> Next() = 0;
};

class Nodes;

struct DirectoryOptions {
  std::string node_id;
  std::string incarnation;            ///< one run of the process; random
  uint64_t seed = 0;                  ///< of ids and secrets in tests; 0: from the system
  uint64_t audit_bytes = 1ull << 30;  ///< of the audit log that are kept
  std::chrono::seconds audit_age = std::chrono::hours(24 * 30);  ///< and for how long
  QuotaOptions quotas;
  Nodes* nodes = nullptr;  ///< asks others; outlives the Directory; null: there are none
  std::string version;     ///< of the program
};

/// The verbs of the directory, whatever the front-end. Thread-safe. `view` and `log` outlive it.
class Directory {
 public:
  /// Reads the sessions there are; each gets a grace of max(TTL, 60 s) from `now`.
  static Result<std::unique_ptr<Directory>> Open(View& view, Log& log, DirectoryOptions options,
                                                 BootTime now);
  virtual ~Directory() = default;

  /// Expiry, sweeping, marks, deadlines of waiting calls. From one thread, every 100 ms or so.
  virtual void Tick(BootTime now) = 0;

  /// `done` gets an encoded ResolveResponse; it may run inside the call. min_revision and stronger
  /// consistencies wait, at most 2 s, then kBehind.
  virtual void Resolve(const pb::ResolveRequest& request,
                       std::function<void(Result<std::string>)> done) = 0;
  virtual void Register(const pb::RegisterRequest& request, const Peer& peer,
                        std::function<void(Result<pb::RegisterResponse>)> done) = 0;
  virtual void Withdraw(const pb::WithdrawRequest& request, const Peer& peer,
                        std::function<void(Result<pb::WithdrawResponse>)> done) = 0;
  virtual void SetPolicy(const pb::SetPolicyRequest& request, const Peer& peer,
                         std::function<void(Result<pb::SetPolicyResponse>)> done) = 0;
  virtual Result<pb::GetPolicyResponse> GetPolicy(const pb::GetPolicyRequest& request) = 0;
  /// Draining endpoints get no new links. Waits for subscribers, if asked to.
  virtual void Drain(const pb::DrainRequest& request, const Peer& peer,
                     std::function<void(Result<pb::DrainResponse>)> done) = 0;
  virtual Result<pb::ListResponse> List(const pb::ListRequest& request) = 0;
  virtual Result<pb::HistoryResponse> History(const pb::HistoryRequest& request) = 0;
  virtual Result<pb::ExplainResponse> Explain(const pb::ExplainRequest& request) = 0;
  virtual pb::StatusResponse GetStatus() = 0;
  /// Asks all nodes and all who keep the log: blocks for 2 s at most.
  virtual Result<pb::MembersResponse> Members() = 0;
  virtual void Acknowledged(const pb::AcknowledgedRequest& request,
                            std::function<void(Result<pb::AcknowledgedResponse>)> done) = 0;
  /// Of all live nodes. `done` may run inside the call.
  virtual void Compare(const Peer& peer, std::function<void(Result<pb::CompareResponse>)> done) = 0;
  virtual void ForgetNode(const pb::ForgetNodeRequest& request, const Peer& peer,
                          std::function<void(Result<pb::ForgetNodeResponse>)> done) = 0;
  virtual Result<pb::ListSessionsResponse> ListSessions(const pb::ListSessionsRequest& request) = 0;
  virtual void EndSession(const pb::EndSessionRequest& request, const Peer& peer,
                          std::function<void(Result<pb::EndSessionResponse>)> done) = 0;
  virtual Result<pb::ReleaseBrakeResponse> ReleaseBrake() = 0;
  virtual Result<pb::ExportResponse> Export(const pb::ExportRequest& request) = 0;
  /// One of these two at a time; `done` may run inside the call.
  virtual void Snapshot(const pb::SnapshotRequest& request,
                        std::function<void(Result<pb::SnapshotResponse>)> done) = 0;
  virtual void VerifySnapshot(const pb::SnapshotRequest& request,
                              std::function<void(Result<pb::SnapshotResponse>)> done) = 0;

  virtual Result<pb::AuditTailResponse> AuditTail(const pb::AuditTailRequest& request) = 0;
  /// One at a time; `done` may run inside the call. Ends soon after `go_on`, which any thread may
  /// call until `done` ran, turned false.
  virtual void AuditVerify(const pb::AuditVerifyRequest& request, std::function<bool()> go_on,
                           std::function<void(Result<pb::AuditVerifyResponse>)> done) = 0;

  /// The Stream outlives what is returned. kOverloaded with a retry-after when too many streams
  /// begin at once, or the peer's principal has its quota; a tether is told so by its first
  /// message.
  virtual std::unique_ptr<Tether> OpenTether(const Peer& peer, Stream& stream) = 0;
  virtual Result<std::unique_ptr<Subscriber>> OpenSubscriber(const Peer& peer, Stream& stream) = 0;
  virtual Result<std::unique_ptr<Watcher>> OpenWatcher(const pb::WatchRequest& request,
                                                       const Peer& peer, Stream& stream) = 0;

  /// Tells tethers to move, ends waiting calls with kUnavailable. Sessions are kept.
  virtual void Stop() = 0;

  /// Counters for /metrics; names in ops/METRICS.md. Value.
  struct Counters {
    uint64_t resolves = 0, resolved_names = 0, registers = 0, withdraws = 0, refused = 0;
    uint64_t heartbeats = 0, sessions_opened = 0, sessions_resumed = 0, sessions_ended = 0,
             sessions_expired = 0;
    uint64_t pushes = 0, watch_events = 0, watch_resyncs = 0, brake_trips = 0;
    uint64_t streams_paced = 0, quota_refusals = 0;
  };
  virtual Counters counters() const = 0;
};

}  // namespace datawire::directory
