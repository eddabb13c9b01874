#pragma once

#include <optional>

#include "core/ground.h"
#include "core/ops.h"

namespace datawire::directory {

/// A policy to set or unset, checked. Value.
struct CheckedPolicy {
  Address address;
  std::optional<pb::Policy> policy;  ///< nothing: unset
};

/// kInvalid with the value and the rule.
Result<CheckedPolicy> Check(const pb::SetPolicyRequest& request);
/// Reads the record as it is now and guards on it; kNotFound where none is to unset. Thread-safe.
Result<Plan> PlanPolicy(const Ground& ground, const Actor& actor, const CheckedPolicy& wanted);
/// The address's own policy, and the one that its answers carry. Thread-safe.
Result<pb::GetPolicyResponse> GetPolicy(const Ground& ground, const pb::GetPolicyRequest& request);

}  // namespace datawire::directory
