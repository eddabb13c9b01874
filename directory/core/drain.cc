#include "core/drain.h"

#include <algorithm>
#include <map>

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using record::v1::Registration;

constexpr std::chrono::minutes kWaitMost{10};
constexpr size_t kStep = 100;  // registrations: a transaction of etcd takes 128 operations
constexpr size_t kIdBytes = 16;

Status CheckWithin(uint64_t ms) {
  const std::chrono::milliseconds most(kWaitMost);
  if (ms <= static_cast<uint64_t>(most.count())) return {};
  return {Code::kInvalid, "acknowledged within " + std::to_string(ms) + " ms, at most " +
                              std::to_string(most.count()) + " ms"};
}

Status CheckTarget(const pb::DrainRequest& request) {
  if (request.address().empty() == request.session_id().empty())
    return {Code::kInvalid, "a drain names an address or a session, one of them"};
  if (!request.session_id().empty() && request.session_id().size() != kIdBytes)
    return {Code::kInvalid, "session id is " + std::to_string(request.session_id().size()) +
                                " bytes, must be " + std::to_string(kIdBytes)};
  return CheckWithin(request.acknowledged_within_ms());
}

}  // namespace

Status BeginDrain(const Ground& ground, Draining& draining) {
  draining.begun = ground.view.Applied().number;
  draining.from = keys::RegistrationsFrom(draining.address);
  uint64_t latest = 0;
  bool registered = false;
  Status bad;
  DW_RETURN_IF_ERROR(ground.view.Scan(
      draining.from, keys::RegistrationsTo(draining.address), [&](const Record& record) {
        Registration registration;
        if (!registration.ParseFromString(record.value)) {
          bad = {Code::kCorrupt, "a registration record does not parse"};
          return false;
        }
        if (registration.has_ended()) return true;
        registered = true;
        latest = std::max(latest, record.modified);
        // Tried before: it goes on with what was registered then.
        if (registration.drain_op_id() == draining.actor.op_id)
          draining.begun = std::min(draining.begun, registration.drain_begun());
        return true;
      }));
  DW_RETURN_IF_ERROR(bad);
  draining.last = ground.At(latest);
  if (registered) return {};
  return {Code::kNotFound, "nothing is registered at " + draining.address.text()};
}

Result<Plan> PlanDrain(const Ground& ground, Draining& draining) {
  Plan plan;
  plan.op.frees_space = true;
  draining.more = false;
  Status bad;
  const auto each = [&](const Record& record) {
    Registration registration;
    if (!registration.ParseFromString(record.value)) {
      bad = {Code::kCorrupt, "a registration record does not parse"};
      return false;
    }
    if (registration.has_ended() || registration.draining() != draining.undo ||
        record.modified > draining.begun)
      return true;
    if (plan.op.changes.size() == kStep) {
      draining.more = true;
      draining.next = record.key;
      return false;
    }
    const Actor& actor = draining.actor;
    registration.set_draining(!draining.undo);
    registration.set_drained_by(NameOf(actor.peer));
    registration.set_drained_wall_ms(WallMillis());
    registration.set_drain_op_id(actor.op_id);
    registration.set_drain_begun(draining.begun);
    registration.set_drained_peer(actor.peer.address);
    plan.op.guards.push_back({Guard::kModEquals, record.key, record.modified});
    plan.op.changes.push_back({false, record.key, registration.SerializeAsString()});
    return true;
  };
  DW_RETURN_IF_ERROR(
      ground.view.Scan(draining.from, keys::RegistrationsTo(draining.address), each));
  DW_RETURN_IF_ERROR(bad);
  plan.removed = plan.op.changes.size();
  if (plan.removed == 0) plan.already = draining.last;
  return plan;
}

// The addresses whose answers change, and whether those below them may.
Result<std::vector<Published::Change>> DrainVerb::TargetsOf(const pb::DrainRequest& request) const {
  std::map<std::string, Published::Change> found;
  Status bad;
  const auto add = [&](const Record& record) {
    const auto key = keys::ParseRegistration(record.key);
    Registration registration;
    if (!key.ok() || !registration.ParseFromString(record.value)) {
      bad = {Code::kCorrupt, "a registration record does not parse"};
      return false;
    }
    const bool subtree = registration.endpoint().match() == pb::MATCH_SUBTREE;
    auto& change =
        found.try_emplace(key->first.text(), Published::Change{key->first, false}).first->second;
    change.subtree |= subtree;
    return true;
  };
  if (!request.address().empty()) {
    DW_ASSIGN(const Address address, Address::Parse(request.address()));
    DW_RETURN_IF_ERROR(
        ground_->view.Scan(keys::RegistrationsFrom(address), keys::RegistrationsTo(address), add));
  } else {
    DW_ASSIGN(const auto keys, ground_->view.RegistrationsOf(request.session_id()));
    for (const std::string& key : keys) {
      DW_ASSIGN(const auto record, ground_->view.Get(key));
      if (record) add(*record);
    }
  }
  DW_RETURN_IF_ERROR(bad);
  std::vector<Published::Change> out;
  for (auto& [text, change] : found) out.push_back(std::move(change));
  return out;
}

void DrainVerb::Drain(const pb::DrainRequest& request, const Peer& peer, Done done) {
  if (!ground_->log.shared()) return Begin(request, peer, std::move(done));
  ground_->CatchUp(peer.deadline, [self = shared_from_this(), request, peer,
                                   done = std::move(done)](const Status& current) {
    if (!current.ok()) return done(current);
    self->Begin(request, peer, done);
  });
}

void DrainVerb::Begin(const pb::DrainRequest& request, const Peer& peer, Done done) {
  Status checked = CheckTarget(request);
  auto targets = checked.ok() ? TargetsOf(request)
                              : Result<std::vector<Published::Change>>(std::move(checked));
  if (!targets.ok()) {
    ++ground_->counts.refused;
    return done(targets.status());
  }
  const BootTime until =
      ground_->now() + std::chrono::milliseconds(request.acknowledged_within_ms());
  const auto then = [everywhere = everywhere_, targets = std::move(*targets), until,
                     wait = request.acknowledged_within_ms() > 0,
                     done](Revision at, size_t drained) {
    pb::DrainResponse response;
    ToWire(at, response.mutable_revision());
    response.set_drained(drained);
    if (!wait) return done(std::move(response));
    everywhere->Await(targets, at, until, [response, done](Result<Everywhere::Left> left) mutable {
      if (!left.ok()) {
        Status why(left.status().code(), "it drains; " + left.status().message());
        if (const auto later = left.status().retry_after()) why.set_retry_after(*later);
        return done(why);
      }
      response.set_waiting_total(left->total);
      response.mutable_waiting()->Assign(left->shown.begin(), left->shown.end());
      done(std::move(response));
    });
  };
  if (request.session_id().empty())
    return records_->Drain(request, peer, [then, done](const Result<Drained>& result) {
      if (!result.ok()) return done(result.status());
      then(result->at, result->changed);
    });
  const auto held = ground_->view.RegistrationsOf(request.session_id());
  tethers_->DrainSession(
      request.session_id(), request.undo(), peer,
      [then, done, count = held.ok() ? held->size() : 0](const Result<Revision>& result) {
        if (!result.ok()) return done(result.status());
        then(*result, count);
      });
}

void DrainVerb::Acknowledged(const pb::AcknowledgedRequest& request,
                             std::function<void(Result<pb::AcknowledgedResponse>)> done) {
  Status refused = CheckWithin(request.within_ms());
  std::vector<Published::Change> targets;
  for (const auto& target : request.targets()) {
    auto address = Address::Parse(target.address());
    if (!address.ok() && refused.ok()) refused = address.status();
    if (address.ok()) targets.push_back({std::move(*address), target.subtree()});
  }
  if (targets.size() > limits::kSessionRegistrations)
    refused = {Code::kInvalid, std::to_string(targets.size()) + " targets, at most " +
                                   std::to_string(limits::kSessionRegistrations)};
  if (!refused.ok()) {
    ++ground_->counts.refused;
    return done(refused);
  }
  here_->Await(std::move(targets), FromWire(request.revision()),
               ground_->now() + std::chrono::milliseconds(request.within_ms()),
               [done = std::move(done)](const Result<Acknowledgements::Left>& left) {
                 if (!left.ok()) return done(left.status());
                 pb::AcknowledgedResponse response;
                 response.mutable_waiting()->Assign(left->shown.begin(), left->shown.end());
                 response.set_waiting_total(left->total);
                 done(std::move(response));
               });
}

}  // namespace datawire::directory
