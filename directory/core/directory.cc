#include "core/directory.h"

#include <filesystem>
#include <system_error>

#include "core/audit.h"
#include "core/drain.h"
#include "core/explain.h"
#include "core/export.h"
#include "core/ground.h"
#include "core/history.h"
#include "core/list.h"
#include "core/members.h"
#include "core/policy.h"
#include "core/resolve.h"
#include "core/snapshots.h"
#include "core/static_records.h"
#include "core/sweeper.h"
#include "core/tethers.h"
#include "core/watch_hub.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

/// The verbs, each in its own file, over one Ground.
class Core final : public Directory {
 public:
  Core(std::shared_ptr<Ground> ground, std::shared_ptr<Tethers> tethers, BootTime now)
      : ground_(std::move(ground)),
        tethers_(std::move(tethers)),
        hub_(std::make_shared<WatchHub>(ground_)),
        resolve_(std::make_shared<ResolveVerb>(ground_)),
        records_(std::make_shared<StaticRecords>(ground_)),
        drain_(std::make_shared<DrainVerb>(ground_, records_, tethers_, hub_)),
        sweeper_(std::make_shared<Sweeper>(ground_)),
        list_(ground_),
        export_(ground_),
        snapshots_(ground_),
        audit_(ground_),
        started_(now) {}
  ~Core() override {
    resolve_->Stop();
    drain_->Stop();
  }

  void Listen() {
    // The engine goes on publishing after this object is gone.
    ground_->view.SetListener(
        [hub = std::weak_ptr(hub_), resolve = std::weak_ptr(resolve_),
         tethers = ground_->log.shared() ? std::weak_ptr(tethers_) : std::weak_ptr<Tethers>()](
            std::shared_ptr<const Published> published) {
          if (const auto alive = tethers.lock()) alive->OnPublished(*published);
          if (const auto alive = hub.lock()) alive->Publish(*published);
          if (const auto alive = resolve.lock()) alive->OnPublished(published->at);
        });
    ground_->log.SetAfterGroup([tethers = std::weak_ptr(tethers_)] {
      if (const auto alive = tethers.lock()) alive->AfterGroup();
    });
  }

  void Tick(BootTime now) override {
    ground_->set_now(now);
    const bool healthy = ground_->log.Fresh().healthy;
    tethers_->Tick(now, healthy);
    resolve_->Tick(now);
    hub_->Tick(now);
    drain_->Tick(now);
    list_.Tick(now);
    export_.Tick(now);
    sweeper_->Tick(now, tethers_->healthy_clock());
  }

  void Resolve(const pb::ResolveRequest& request,
               std::function<void(Result<std::string>)> done) override {
    resolve_->Resolve(request, std::move(done));
  }
  void Register(const pb::RegisterRequest& request, const Peer& peer,
                std::function<void(Result<pb::RegisterResponse>)> done) override {
    records_->Register(request, peer, std::move(done));
  }
  void Withdraw(const pb::WithdrawRequest& request, const Peer& peer,
                std::function<void(Result<pb::WithdrawResponse>)> done) override {
    records_->Withdraw(request, peer, std::move(done));
  }
  void SetPolicy(const pb::SetPolicyRequest& request, const Peer& peer,
                 std::function<void(Result<pb::SetPolicyResponse>)> done) override {
    records_->SetPolicy(request, peer, std::move(done));
  }
  Result<pb::GetPolicyResponse> GetPolicy(const pb::GetPolicyRequest& request) override {
    return directory::GetPolicy(*ground_, request);
  }
  void Drain(const pb::DrainRequest& request, const Peer& peer,
             std::function<void(Result<pb::DrainResponse>)> done) override {
    drain_->Drain(request, peer, std::move(done));
  }
  Result<pb::ListResponse> List(const pb::ListRequest& request) override {
    return list_.List(request);
  }
  Result<pb::HistoryResponse> History(const pb::HistoryRequest& request) override {
    return directory::History(*ground_, request);
  }
  Result<pb::ExplainResponse> Explain(const pb::ExplainRequest& request) override {
    return directory::Explain(*ground_, *tethers_, request);
  }
  pb::StatusResponse GetStatus() override;
  Result<pb::MembersResponse> Members() override { return AskMembers(*ground_, GetStatus()); }
  void Acknowledged(const pb::AcknowledgedRequest& request,
                    std::function<void(Result<pb::AcknowledgedResponse>)> done) override {
    drain_->Acknowledged(request, std::move(done));
  }
  void Compare(const Peer& peer, std::function<void(Result<pb::CompareResponse>)> done) override {
    CompareReplicas(*ground_, peer, std::move(done));
  }
  void ForgetNode(const pb::ForgetNodeRequest& request, const Peer& peer,
                  std::function<void(Result<pb::ForgetNodeResponse>)> done) override {
    records_->ForgetNode(request.node(), peer, std::move(done));
  }
  Result<pb::ListSessionsResponse> ListSessions(const pb::ListSessionsRequest& request) override {
    return tethers_->ListSessions(request);
  }
  void EndSession(const pb::EndSessionRequest& request, const Peer& peer,
                  std::function<void(Result<pb::EndSessionResponse>)> done) override {
    tethers_->EndSession(request, peer, std::move(done));
  }
  Result<pb::ReleaseBrakeResponse> ReleaseBrake() override { return tethers_->ReleaseBrake(); }
  Result<pb::ExportResponse> Export(const pb::ExportRequest& request) override {
    return export_.Export(request);
  }
  void Snapshot(const pb::SnapshotRequest& request,
                std::function<void(Result<pb::SnapshotResponse>)> done) override {
    snapshots_.Save(request.directory(), std::move(done));
  }
  void VerifySnapshot(const pb::SnapshotRequest& request,
                      std::function<void(Result<pb::SnapshotResponse>)> done) override {
    snapshots_.Verify(request.directory(), std::move(done));
  }
  Result<pb::AuditTailResponse> AuditTail(const pb::AuditTailRequest& request) override {
    return directory::AuditTail(*ground_, request);
  }
  void AuditVerify(const pb::AuditVerifyRequest& request, std::function<bool()> go_on,
                   std::function<void(Result<pb::AuditVerifyResponse>)> done) override {
    audit_.Verify(request, std::move(go_on), std::move(done));
  }

  std::unique_ptr<Tether> OpenTether(const Peer& peer, Stream& stream) override {
    return tethers_->OpenTether(peer, stream);
  }
  Result<std::unique_ptr<Subscriber>> OpenSubscriber(const Peer& peer, Stream& stream) override {
    return hub_->OpenSubscriber(peer, stream);
  }
  Result<std::unique_ptr<Watcher>> OpenWatcher(const pb::WatchRequest& request, const Peer& peer,
                                               Stream& stream) override {
    return hub_->OpenWatcher(request, peer, stream);
  }

  void Stop() override {
    tethers_->Stop();
    resolve_->Stop();
    drain_->Stop();
    snapshots_.Stop();
    audit_.Stop();
  }

  Counters counters() const override {
    const Ground::Counts& c = ground_->counts;
    return {.resolves = c.resolves,
            .resolved_names = c.resolved_names,
            .registers = c.registers,
            .withdraws = c.withdraws,
            .refused = c.refused,
            .heartbeats = c.heartbeats,
            .sessions_opened = c.sessions_opened,
            .sessions_resumed = c.sessions_resumed,
            .sessions_ended = c.sessions_ended,
            .sessions_expired = c.sessions_expired,
            .pushes = c.pushes,
            .watch_events = c.watch_events,
            .watch_resyncs = c.watch_resyncs,
            .brake_trips = c.brake_trips,
            .streams_paced = c.streams_paced,
            .quota_refusals = ground_->quotas->refusals()};
  }

 private:
  const std::shared_ptr<Ground> ground_;
  const std::shared_ptr<Tethers> tethers_;
  const std::shared_ptr<WatchHub> hub_;
  const std::shared_ptr<ResolveVerb> resolve_;
  const std::shared_ptr<StaticRecords> records_;
  const std::shared_ptr<DrainVerb> drain_;
  const std::shared_ptr<Sweeper> sweeper_;
  ListVerb list_;
  ExportVerb export_;
  Snapshots snapshots_;
  AuditCheckVerb audit_;
  const BootTime started_;
};

pb::StatusResponse Core::GetStatus() {
  pb::StatusResponse out;
  *out.mutable_source() = ground_->source;
  out.set_version(ground_->options.version);
  out.set_engine(ground_->log.name());
  ToWire(ground_->view.Applied(), out.mutable_revision());
  out.set_uptime_ms(
      std::chrono::duration_cast<std::chrono::milliseconds>(ground_->now() - started_).count());
  const Tethers::Summary sessions = tethers_->summary();
  out.set_sessions(ground_->view.counts().sessions);
  out.set_sessions_held(sessions.sessions);
  out.set_sessions_suspect(sessions.suspects);
  out.set_brake_on(sessions.brake_on);
  out.set_brake_remaining_ms(sessions.brake_remaining.count());
  const View::Counts counts = ground_->view.counts();
  out.set_registrations(counts.registrations);
  out.set_addresses(counts.addresses);
  const WatchHub::Summary hub = hub_->summary();
  out.set_subscribers(hub.subscribers);
  out.set_subscriptions(hub.subscriptions);
  out.set_watchers(hub.watchers);
  const Log::Freshness fresh = ground_->log.Fresh();
  out.set_healthy(fresh.healthy);
  out.set_reason(fresh.reason);
  out.set_alarm(ground_->log.alarm());
  out.set_age_ms(ground_->AgeMs());
  out.set_wall_ms(WallMillis());
  std::error_code error;
  const auto disc = std::filesystem::space(ground_->view.path(), error);
  if (!error) {
    out.set_disc_free_bytes(disc.available);
    out.set_disc_bytes(disc.capacity);
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<Directory>> Directory::Open(View& view, Log& log, DirectoryOptions options,
                                                   BootTime now) {
  auto ground = std::make_shared<Ground>(view, log, std::move(options), now);
  DW_ASSIGN(auto tethers, Tethers::Open(ground, now));
  auto core = std::make_unique<Core>(std::move(ground), std::move(tethers), now);
  core->Listen();
  return std::unique_ptr<Directory>(std::move(core));
}

}  // namespace datawire::directory
