#include "core/ops.h"

#include <set>

#include "core/op_ids.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using record::v1::Registration;

Status CheckCount(const char* what, int count) {
  if (count == 0) return {Code::kInvalid, std::string("no ") + what + " in the call"};
  if (static_cast<size_t>(count) > limits::kCallRegistrations)
    return {Code::kInvalid, std::to_string(count) + " " + what + " in one call, at most " +
                                std::to_string(limits::kCallRegistrations)};
  return {};
}

Result<Registration> Parse(const Record& record) {
  Registration out;
  if (!out.ParseFromString(record.value))
    return Status(Code::kCorrupt, "a registration record does not parse");
  return out;
}

bool OwnedBy(const Registration& registration, const Actor& actor) {
  return registration.session_id() == actor.session_id;
}

/// Whether it takes the place of a live registration. One passes from process to process, never
/// back: what a former one sent may arrive after the present one's.
Result<bool> Replaces(const Ground& ground, const Actor& actor, const Registration& present,
                      const CheckedRegistration& wanted) {
  if (present.has_ended()) return false;
  if (OwnedBy(present, actor)) return true;
  DW_ASSIGN(const auto mine, ground.view.Get(keys::Session(actor.session_id)));
  DW_ASSIGN(const auto holder, ground.view.Get(keys::Session(present.session_id())));
  if (!mine || !holder || holder->created <= mine->created) return holder.has_value();
  return Status(Code::kConflict, wanted.endpoint.url() + " at " + wanted.address.text() +
                                     " is registered by a newer session of the same identity");
}

Op GuardedOp(const Actor& actor) {
  Op op;
  if (!actor.session_id.empty()) {
    const std::string key = keys::Session(actor.session_id);
    op.guards.push_back({Guard::kModEquals, key, actor.session_modified});
    op.read_on_failure = key;
  }
  return op;
}

Guard AsRead(const std::string& key, const std::optional<Record>& record) {
  if (!record) return {Guard::kAbsent, key, 0};
  return {Guard::kModEquals, key, record->modified};
}

// Ends the registration; counts it. Says so when this very op ended it before.
void PlanTombstone(const Ground& ground, const Actor& actor, const Record& record,
                   Registration registration, Plan* plan) {
  // Whosever it is: ids of operators are longer than those of sessions.
  if (DoneBefore(registration, actor.op_id)) {
    plan->already = ground.At(record.modified);
    ++plan->removed;
    return;
  }
  if (registration.has_ended()) return;
  auto* ended = registration.mutable_ended();
  ended->set_reason(pb::REASON_WITHDRAWN);
  ended->set_by(NameOf(actor.peer));
  ended->set_at_wall_ms(WallMillis());
  ended->set_op_id(actor.op_id);
  ended->set_peer(actor.peer.address);
  plan->op.guards.push_back({Guard::kModEquals, record.key, record.modified});
  plan->op.changes.push_back({false, record.key, registration.SerializeAsString()});
  ++plan->removed;
}

// Records of one withdrawal, those ended too.
Result<std::vector<Record>> RecordsOf(const Ground& ground, const Actor& actor,
                                      const CheckedWithdrawal& withdrawal) {
  std::vector<Record> out;
  const bool is_static = actor.session_id.empty();
  if (!is_static && !withdrawal.url.empty()) {
    const std::string instance = keys::InstanceOf(actor.identity, false, withdrawal.url);
    DW_ASSIGN(auto record, ground.view.Get(keys::Registration(withdrawal.address, instance)));
    if (record) out.push_back(std::move(*record));
    return out;
  }
  const std::string from = keys::RegistrationsFrom(withdrawal.address);
  const std::string to = keys::RegistrationsTo(withdrawal.address);
  DW_RETURN_IF_ERROR(ground.view.Scan(from, to, [&out](const Record& record) {
    out.push_back(record);
    return true;
  }));
  return out;
}

Status NothingThere(const CheckedWithdrawal& withdrawal) {
  if (withdrawal.url.empty())
    return {Code::kNotFound, "nothing to withdraw at " + withdrawal.address.text()};
  return {Code::kNotFound, withdrawal.url + " is not registered at " + withdrawal.address.text()};
}

}  // namespace

Result<std::vector<CheckedRegistration>> Check(const Registrations& registrations) {
  DW_RETURN_IF_ERROR(CheckCount("registrations", registrations.size()));
  std::vector<CheckedRegistration> out;
  std::set<std::pair<std::string, std::string>> seen;
  for (const auto& registration : registrations) {
    DW_ASSIGN(Address address, Address::Parse(registration.address()));
    pb::EndpointSpec spec = registration.endpoint();
    DW_RETURN_IF_ERROR(Canonicalize(&spec));
    if (registrations.size() > 1 && !seen.emplace(address.text(), spec.url()).second)
      return Status(Code::kInvalid, spec.url() + " twice at " + address.text() + " in one call");
    out.push_back({std::move(address), std::move(spec)});
  }
  return out;
}

Result<std::vector<CheckedWithdrawal>> Check(const Withdrawals& withdrawals) {
  DW_RETURN_IF_ERROR(CheckCount("withdrawals", withdrawals.size()));
  std::vector<CheckedWithdrawal> out;
  for (const auto& withdrawal : withdrawals) {
    DW_ASSIGN(Address address, Address::Parse(withdrawal.address()));
    std::string url;
    if (!withdrawal.url().empty()) {
      DW_ASSIGN(EndpointUrl parsed, EndpointUrl::Parse(withdrawal.url()));
      url = parsed.text();
    }
    out.push_back({std::move(address), std::move(url)});
  }
  return out;
}

Result<Plan> PlanRegister(const Ground& ground, const Actor& actor,
                          const std::vector<CheckedRegistration>& registrations) {
  Plan plan{.op = GuardedOp(actor), .principal = PrincipalOf(actor.peer)};
  const bool is_static = actor.session_id.empty();
  for (const CheckedRegistration& wanted : registrations) {
    const std::string instance = keys::InstanceOf(actor.identity, is_static, wanted.endpoint.url());
    const std::string key = keys::Registration(wanted.address, instance);
    DW_ASSIGN(const auto record, ground.view.Get(key));
    bool mine = false, held = false;
    Registration registration;
    if (record) {
      DW_ASSIGN(const Registration present, Parse(*record));
      if (OwnedBy(present, actor) && DoneBefore(present, actor.op_id)) {
        plan.already = ground.At(record->modified);
        return plan;
      }
      DW_ASSIGN(const bool replaces, Replaces(ground, actor, present, wanted));
      mine = OwnedBy(present, actor) && !present.has_ended();
      held = replaces && PrincipalOf(present.identity(), present.peer()) == plan.principal;
      if (OwnedBy(present, actor)) RememberOps(present, &registration);
    }
    if (!mine) ++plan.added;
    if (!held) ++plan.more;
    registration.set_session_id(actor.session_id);
    *registration.mutable_endpoint() = wanted.endpoint;
    registration.set_identity(actor.identity);
    registration.set_op_id(actor.op_id);
    registration.set_at_wall_ms(WallMillis());
    registration.set_peer(actor.peer.address);
    plan.op.guards.push_back(AsRead(key, record));
    plan.op.changes.push_back({false, key, registration.SerializeAsString()});
  }
  return plan;
}

Result<Plan> PlanWithdraw(const Ground& ground, const Actor& actor,
                          const std::vector<CheckedWithdrawal>& withdrawals, bool sessions_too) {
  Plan plan{.op = GuardedOp(actor)};
  plan.op.frees_space = true;
  std::set<std::string> seen;
  const bool is_static = actor.session_id.empty();
  for (const CheckedWithdrawal& withdrawal : withdrawals) {
    const size_t before = plan.removed;
    DW_ASSIGN(const auto records, RecordsOf(ground, actor, withdrawal));
    for (const Record& record : records) {
      DW_ASSIGN(Registration registration, Parse(record));
      if (is_static ? !(registration.session_id().empty() || sessions_too)
                    : !OwnedBy(registration, actor))
        continue;
      if (!withdrawal.url.empty() && registration.endpoint().url() != withdrawal.url) continue;
      if (!seen.insert(record.key).second) {
        if (!is_static) ++plan.removed;  // named twice: met, once
        continue;
      }
      PlanTombstone(ground, actor, record, std::move(registration), &plan);
    }
    if (!is_static && plan.removed == before && !plan.already) return NothingThere(withdrawal);
  }
  plan.removed = plan.already ? plan.removed : plan.op.changes.size();
  if (plan.already) plan.op.changes.clear();
  if (!plan.already && plan.op.changes.empty()) return NothingThere(withdrawals.front());
  if (plan.op.changes.size() > limits::kSessionRegistrations)
    return Status(Code::kInvalid, std::to_string(plan.op.changes.size()) +
                                      " registrations to withdraw in one call, at most " +
                                      std::to_string(limits::kSessionRegistrations) +
                                      ": name the endpoints");
  return plan;
}

}  // namespace datawire::directory
