#include "core/policy.h"

#include "core/op_ids.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using record::v1::AddressPolicy;

Result<std::optional<AddressPolicy>> Parse(const std::optional<Record>& record) {
  std::optional<AddressPolicy> out;
  if (record && !out.emplace().ParseFromString(record->value))
    return Status(Code::kCorrupt, "a policy record does not parse");
  return out;
}

}  // namespace

Result<CheckedPolicy> Check(const pb::SetPolicyRequest& request) {
  DW_ASSIGN(Address address, Address::Parse(request.address()));
  if (request.unset()) {
    if (request.policy() != pb::POLICY_BALANCED)
      return Status(Code::kInvalid, "a policy to unset is not named, here it is policy " +
                                        std::to_string(request.policy()));
    return CheckedPolicy{std::move(address), std::nullopt};
  }
  if (!pb::Policy_IsValid(request.policy()))
    return Status(Code::kInvalid, "policy " + std::to_string(request.policy()) +
                                      " is none of 0 balanced, 1 ordered, 2 consistent");
  return CheckedPolicy{std::move(address), request.policy()};
}

Result<Plan> PlanPolicy(const Ground& ground, const Actor& actor, const CheckedPolicy& wanted) {
  const std::string key = keys::Policy(wanted.address);
  DW_ASSIGN(const auto record, ground.view.Get(key));
  DW_ASSIGN(const auto present, Parse(record));
  Plan plan;
  if (present && DoneBefore(*present, actor.op_id)) {
    plan.already = ground.At(record->modified);
    return plan;
  }
  AddressPolicy next;
  if (wanted.policy) {
    next.set_policy(*wanted.policy);
    next.set_identity(actor.identity);
    next.set_peer(actor.peer.address);
    next.set_op_id(actor.op_id);
    next.set_at_wall_ms(WallMillis());
    if (present) RememberOps(*present, &next);
  } else {
    if (!present || present->has_ended())
      return Status(Code::kNotFound, wanted.address.text() + " has no policy of its own to unset");
    next = *present;
    auto* ended = next.mutable_ended();
    ended->set_reason(pb::REASON_WITHDRAWN);
    ended->set_by(NameOf(actor.peer));
    ended->set_at_wall_ms(WallMillis());
    ended->set_op_id(actor.op_id);
    ended->set_peer(actor.peer.address);
    plan.op.frees_space = true;
  }
  plan.op.guards.push_back(record ? Guard{Guard::kModEquals, key, record->modified}
                                  : Guard{Guard::kAbsent, key, 0});
  plan.op.changes.push_back({false, key, next.SerializeAsString()});
  return plan;
}

Result<pb::GetPolicyResponse> GetPolicy(const Ground& ground, const pb::GetPolicyRequest& request) {
  DW_ASSIGN(const Address address, Address::Parse(request.address()));
  std::vector<Match> matches;
  DW_ASSIGN(const Revision at, ground.view.Resolve(std::span(&address, 1), &matches));
  pb::Row row;
  if (!row.ParseFromString(matches.front().row->bytes))
    return Status(Code::kCorrupt, "the row of " + address.text() + " does not parse");
  DW_ASSIGN(const auto record, ground.view.Get(keys::Policy(address)));
  DW_ASSIGN(const auto own, Parse(record));
  pb::GetPolicyResponse out;
  out.set_address(address.text());
  out.set_in_force(row.policy());
  ToWire(at, out.mutable_revision());
  *out.mutable_source() = ground.source;
  if (!own || own->has_ended()) return out;
  out.set_own(own->policy());
  out.set_by(own->identity().empty() ? own->peer() : own->identity());
  out.set_at_wall_ms(own->at_wall_ms());
  return out;
}

}  // namespace datawire::directory
