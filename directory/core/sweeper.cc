#include "core/sweeper.h"

#include <algorithm>

#include "datawire/record/v1/record.pb.h"

namespace datawire::directory {
namespace {

constexpr size_t kBatch = 100;  // a tick; 1,000 records a second
constexpr std::chrono::seconds kMomentEvery{1}, kAuditEvery{10};

}  // namespace

void Sweeper::Tick(BootTime now, BootTime healthy_clock) {
  if (now - looked_at_ >= kMomentEvery) {
    looked_at_ = now;
    const uint64_t applied = ground_->view.Applied().number;
    // One a revision: on a disc that fails for days they would be one a second, and looked at each.
    if (moments_.empty() || moments_.back().revision != applied)
      moments_.push_back({now, healthy_clock, applied});
    for (const Moment& moment : moments_) {
      if (now - moment.at >= limits::kTombstoneLife) tombstones_ = moment.revision;
      if (healthy_clock - moment.healthy >= limits::kLastEndpointLife)
        last_endpoints_ = moment.revision;
    }
    while (moments_.size() > 1 && now - moments_[1].at >= limits::kTombstoneLife &&
           healthy_clock - moments_[1].healthy >= limits::kLastEndpointLife)
      moments_.pop_front();
    if (tombstones_ > 0) ground_->view.TrimHistory(tombstones_);
  }
  if (now - audit_looked_at_ >= kAuditEvery) {
    audit_looked_at_ = now;
    const auto& options = ground_->options;
    ground_->view.TrimAudit(options.audit_bytes,
                            WallMillis() - std::chrono::milliseconds(options.audit_age).count());
  }
  if (in_flight_ > 0 || !ground_->log.Fresh().healthy) return;
  const auto role = ground_->log.Role("reaper");
  if (!role) return;
  role_ = *role;
  if (last_endpoints_ > 0) EndLastEndpoints(last_endpoints_);
  if (tombstones_ > 0) EraseTombstones(tombstones_);
}

void Sweeper::EraseTombstones(uint64_t up_to) {
  for (const Due& due : ground_->view.DueTombstones(up_to, kBatch)) {
    Op op;
    op.guards.push_back({Guard::kModEquals, due.key, due.modified});
    op.changes.push_back({true, due.key, ""});
    Propose(std::move(op));
  }
}

void Sweeper::EndLastEndpoints(uint64_t up_to) {
  for (const Due& due : ground_->view.DueLastEndpoints(up_to, kBatch)) {
    const auto record = ground_->view.Get(due.key);
    record::v1::Registration registration;
    if (!record.ok() || !*record || !registration.ParseFromString((*record)->value)) continue;
    auto* ended = registration.mutable_ended();
    ended->set_reason(pb::REASON_LAST_EXPIRED);
    ended->set_by(ground_->options.node_id);
    ended->set_at_wall_ms(WallMillis());
    Op op;
    op.guards.push_back({Guard::kModEquals, due.key, due.modified});
    op.changes.push_back({false, due.key, registration.SerializeAsString()});
    Propose(std::move(op));
  }
}

void Sweeper::Propose(Op op) {
  op.frees_space = true;
  op.guards.insert(op.guards.end(), role_.begin(), role_.end());
  ++in_flight_;
  // A refused one is still due: the queue offers it again.
  ground_->log.Propose(std::move(op), ground_->commit_deadline(),
                       [self = shared_from_this()](const Outcome&) { --self->in_flight_; });
}

}  // namespace datawire::directory
