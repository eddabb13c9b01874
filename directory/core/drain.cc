#include "core/drain.h"

#include <algorithm>
#include <map>

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using record::v1::Registration;

constexpr std::chrono::minutes kWaitMost{10};
constexpr size_t kWaits = 256;  // calls that wait for acknowledgements; each holds its subscribers
constexpr int kPeersShown = 100;
constexpr size_t kIdBytes = 16;

Status CheckTarget(const pb::DrainRequest& request) {
  if (request.address().empty() == request.session_id().empty())
    return {Code::kInvalid, "a drain names an address or a session, one of them"};
  if (!request.session_id().empty() && request.session_id().size() != kIdBytes)
    return {Code::kInvalid, "session id is " + std::to_string(request.session_id().size()) +
                                " bytes, must be " + std::to_string(kIdBytes)};
  const std::chrono::milliseconds most(kWaitMost);
  if (request.acknowledged_within_ms() > static_cast<uint64_t>(most.count()))
    return {Code::kInvalid, "acknowledged within " +
                                std::to_string(request.acknowledged_within_ms()) + " ms, at most " +
                                std::to_string(most.count()) + " ms"};
  return {};
}

}  // namespace

Result<Plan> PlanDrain(const Ground& ground, const Actor& actor, const Address& address,
                       bool undo) {
  Plan plan;
  plan.op.frees_space = true;
  uint64_t latest = 0;
  size_t registered = 0;
  Status bad;
  const auto each = [&](const Record& record) {
    Registration registration;
    if (!registration.ParseFromString(record.value)) {
      bad = {Code::kCorrupt, "a registration record does not parse"};
      return false;
    }
    if (registration.has_ended()) return true;
    ++registered;
    latest = std::max(latest, record.modified);
    if (registration.drain_op_id() == actor.op_id) {
      plan.already = ground.At(record.modified);  // what was registered since is up
      return true;
    }
    if (registration.draining() != undo) return true;
    registration.set_draining(!undo);
    registration.set_drained_by(NameOf(actor.peer));
    registration.set_drained_wall_ms(WallMillis());
    registration.set_drain_op_id(actor.op_id);
    registration.set_drained_peer(actor.peer.address);
    plan.op.guards.push_back({Guard::kModEquals, record.key, record.modified});
    plan.op.changes.push_back({false, record.key, registration.SerializeAsString()});
    return true;
  };
  DW_RETURN_IF_ERROR(
      ground.view.Scan(keys::RegistrationsFrom(address), keys::RegistrationsTo(address), each));
  DW_RETURN_IF_ERROR(bad);
  if (registered == 0) return Status(Code::kNotFound, "nothing is registered at " + address.text());
  if (plan.op.changes.size() > limits::kSessionRegistrations)
    return Status(Code::kInvalid, std::to_string(plan.op.changes.size()) +
                                      " registrations to drain in one call, at most " +
                                      std::to_string(limits::kSessionRegistrations));
  if (!plan.already && plan.op.changes.empty()) plan.already = ground.At(latest);
  plan.removed = plan.already ? 0 : plan.op.changes.size();
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
  Status checked = CheckTarget(request);
  auto targets = checked.ok() ? TargetsOf(request)
                              : Result<std::vector<Published::Change>>(std::move(checked));
  if (!targets.ok()) {
    ++ground_->counts.refused;
    return done(targets.status());
  }
  const std::chrono::milliseconds within(request.acknowledged_within_ms());
  auto self = shared_from_this();
  const auto then = [self, targets = std::move(*targets), within, done](Revision at,
                                                                        size_t drained) {
    Wait wait{at, {}, self->ground_->now() + within, {}, done};
    ToWire(at, wait.response.mutable_revision());
    wait.response.set_drained(drained);
    if (within.count() == 0) return done(std::move(wait.response));
    for (const auto& subscriber : self->hub_->Interested(targets)) wait.left.push_back(subscriber);
    self->Await(std::move(wait));
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

void DrainVerb::Prune(Wait& wait) {
  std::erase_if(wait.left, [&](const std::weak_ptr<SubscriberState>& one) {
    const auto subscriber = one.lock();
    return subscriber == nullptr || subscriber->Acknowledged(wait.at);
  });
}

void DrainVerb::Await(Wait wait) {
  Prune(wait);
  if (wait.left.empty()) return wait.done(std::move(wait.response));
  Status refused;
  {
    std::lock_guard lock(mu_);
    if (stopped_) {
      refused = {Code::kUnavailable, "it drains; this node stops and knows not who was told"};
    } else if (waits_.size() >= kWaits) {
      refused = {Code::kOverloaded, "it drains; " + std::to_string(kWaits) +
                                        " calls wait for acknowledgements already"};
      refused.set_retry_after(std::chrono::seconds(1));
    } else {
      waits_.push_back(std::move(wait));
      return;
    }
  }
  wait.done(refused);
}

void DrainVerb::Tick(BootTime now) {
  std::list<Wait> due;
  {
    std::lock_guard lock(mu_);
    due.swap(waits_);
  }
  std::list<Wait> later;
  for (auto it = due.begin(); it != due.end();) {
    Prune(*it);
    const auto next = std::next(it);
    if (!it->left.empty() && it->until > now) later.splice(later.end(), due, it);
    it = next;
  }
  {
    std::lock_guard lock(mu_);
    if (!stopped_) waits_.splice(waits_.end(), later);
  }
  for (Wait& wait : later) wait.done(Status(Code::kUnavailable, "this node stops"));
  for (Wait& wait : due) {
    wait.response.set_waiting_total(wait.left.size());
    for (const auto& one : wait.left) {
      if (wait.response.waiting_size() == kPeersShown) break;
      if (const auto subscriber = one.lock()) wait.response.add_waiting(NameOf(subscriber->peer));
    }
    wait.done(std::move(wait.response));
  }
}

void DrainVerb::Stop() {
  std::list<Wait> ended;
  {
    std::lock_guard lock(mu_);
    stopped_ = true;
    ended.swap(waits_);
  }
  for (Wait& wait : ended) wait.done(Status(Code::kUnavailable, "this node stops"));
}

}  // namespace datawire::directory
