#include "core/static_records.h"

#include <algorithm>

#include "core/drain.h"
#include "core/members.h"
#include "core/policy.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr int kAttempts = 8;
constexpr size_t kOpIdBytes = 16;

}  // namespace

Result<Actor> StaticRecords::ActorOf(const std::string& op_id, const Peer& peer) {
  if (!op_id.empty() && op_id.size() != kOpIdBytes)
    return Status(Code::kInvalid, "op id is " + std::to_string(op_id.size()) + " bytes, must be " +
                                      std::to_string(kOpIdBytes));
  return Actor{.identity = peer.identity,
               .peer = peer,
               .op_id = op_id.empty() ? ground_->ids.Bytes(kOpIdBytes) : op_id};
}

void StaticRecords::Register(const pb::RegisterRequest& request, const Peer& peer,
                             std::function<void(Result<pb::RegisterResponse>)> done) {
  ++ground_->counts.registers;
  auto actor = ActorOf(request.op_id(), peer);
  auto checked = Check(request.registrations());
  if (!actor.ok() || !checked.ok()) {
    ++ground_->counts.refused;
    return done(actor.ok() ? checked.status() : actor.status());
  }
  auto ground = ground_;
  auto planner = [ground, who = std::move(*actor), list = std::move(*checked)] {
    return PlanRegister(*ground, who, list);
  };
  Propose(std::move(planner), peer.deadline, 0, [done = std::move(done)](Result<Done> result) {
    if (!result.ok()) return done(result.status());
    pb::RegisterResponse response;
    ToWire(result->at, response.mutable_revision());
    done(std::move(response));
  });
}

void StaticRecords::Withdraw(const pb::WithdrawRequest& request, const Peer& peer,
                             std::function<void(Result<pb::WithdrawResponse>)> done) {
  ++ground_->counts.withdraws;
  auto actor = ActorOf(request.op_id(), peer);
  auto checked = Check(request.withdrawals());
  if (!actor.ok() || !checked.ok()) {
    ++ground_->counts.refused;
    return done(actor.ok() ? checked.status() : actor.status());
  }
  auto ground = ground_;
  auto planner = [ground, who = std::move(*actor), list = std::move(*checked),
                  sessions_too = request.sessions_too()] {
    return PlanWithdraw(*ground, who, list, sessions_too);
  };
  Propose(std::move(planner), peer.deadline, 0, [done = std::move(done)](Result<Done> result) {
    if (!result.ok()) return done(result.status());
    pb::WithdrawResponse response;
    ToWire(result->at, response.mutable_revision());
    response.set_withdrawn(result->removed);
    done(std::move(response));
  });
}

void StaticRecords::SetPolicy(const pb::SetPolicyRequest& request, const Peer& peer,
                              std::function<void(Result<pb::SetPolicyResponse>)> done) {
  auto actor = ActorOf(request.op_id(), peer);
  auto checked = Check(request);
  if (!actor.ok() || !checked.ok()) {
    ++ground_->counts.refused;
    return done(actor.ok() ? checked.status() : actor.status());
  }
  auto ground = ground_;
  auto planner = [ground, who = std::move(*actor), wanted = std::move(*checked)] {
    return PlanPolicy(*ground, who, wanted);
  };
  Propose(std::move(planner), peer.deadline, 0, [done = std::move(done)](Result<Done> result) {
    if (!result.ok()) return done(result.status());
    pb::SetPolicyResponse response;
    ToWire(result->at, response.mutable_revision());
    done(std::move(response));
  });
}

void StaticRecords::ForgetNode(const std::string& node, const Peer& peer,
                               std::function<void(Result<pb::ForgetNodeResponse>)> done) {
  Propose([ground = ground_, peer, node] { return PlanForget(*ground, peer, node); }, peer.deadline,
          0,
          [done = std::move(done)](Result<Done> result) {
            if (!result.ok()) return done(result.status());
            pb::ForgetNodeResponse response;
            ToWire(result->at, response.mutable_revision());
            done(std::move(response));
          });
}

void StaticRecords::Drain(const pb::DrainRequest& request, const Peer& peer,
                          std::function<void(Result<Drained>)> done) {
  auto actor = ActorOf(request.op_id(), peer);
  auto address = Address::Parse(request.address());
  if (!actor.ok() || !address.ok()) {
    ++ground_->counts.refused;
    return done(actor.ok() ? address.status() : actor.status());
  }
  const auto draining = std::make_shared<Draining>(
      Draining{.actor = std::move(*actor), .address = std::move(*address), .undo = request.undo()});
  if (const Status begun = BeginDrain(*ground_, *draining); !begun.ok()) {
    ++ground_->counts.refused;
    return done(begun);
  }
  DrainOn(draining, peer.deadline, 0, std::move(done));
}

void StaticRecords::DrainOn(const std::shared_ptr<Draining>& draining, BootTime deadline,
                            size_t changed, std::function<void(Result<Drained>)> done) {
  auto self = shared_from_this();
  Propose([ground = ground_, draining] { return PlanDrain(*ground, *draining); }, deadline, 0,
          [self, draining, deadline, changed, done = std::move(done)](const Result<Done>& step) {
            if (!step.ok()) return done(step.status());
            const size_t sum = changed + step->removed;
            if (step->removed > 0) draining->last = step->at;
            if (!draining->more) return done(Drained{draining->last, sum});
            draining->from = draining->next;
            self->DrainOn(draining, deadline, sum, done);
          });
}

void StaticRecords::Propose(Planner planner, BootTime deadline, int attempt,
                            std::function<void(Result<Done>)> done) {
  auto plan = planner();
  if (!plan.ok() && attempt == 0 && ground_->log.shared()) {
    auto self = shared_from_this();
    return ground_->CatchUp(deadline, [self, planner = std::move(planner), deadline,
                                       done = std::move(done)](const Status& current) {
      if (!current.ok()) return done(current);
      self->Propose(planner, deadline, 1, done);
    });
  }
  if (plan.ok() && plan->already) return done(Done{*plan->already, plan->removed});
  auto held = plan.ok() ? ground_->HoldQuota(plan->principal, plan->more) : plan.status();
  if (!held.ok()) {
    ++ground_->counts.refused;
    return done(held.status());
  }
  auto self = shared_from_this();
  auto then = [self, planner = std::move(planner), deadline, attempt, removed = plan->removed,
               held = std::move(*held), done = std::move(done)](const Outcome& outcome) mutable {
    held.reset();  // what was committed the view counts
    if (outcome.status.ok()) return done(Done{outcome.at, removed});
    // A record changed between reading and the commit: read again.
    if (outcome.status.code() == Code::kConflict && attempt + 1 < kAttempts)
      return self->Propose(planner, deadline, attempt + 1, done);
    if (outcome.status.code() != Code::kConflict) return done(outcome.status);
    Status busy(Code::kUnavailable, "the records keep changing: try again");
    done(busy.set_retry_after(std::chrono::milliseconds(100)));
  };
  ground_->log.Propose(std::move(plan->op), std::min(deadline, ground_->commit_deadline()),
                       std::move(then));
}

}  // namespace datawire::directory
