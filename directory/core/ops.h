#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/ground.h"
#include "datawire/record/v1/record.pb.h"

namespace datawire::directory {

/// Who registers or withdraws. Value.
struct Actor {
  std::string session_id;         ///< empty: static records, by an operator
  uint64_t session_modified = 0;  ///< revision number of `s/`, guarded
  std::string identity;
  Peer peer;
  std::string op_id;
};

/// A registration of a request, checked. Value.
struct CheckedRegistration {
  Address address;
  pb::EndpointSpec endpoint;
};

/// A withdrawal of a request, checked. `url` empty: all there. Value.
struct CheckedWithdrawal {
  Address address;
  std::string url;
};

using Registrations = google::protobuf::RepeatedPtrField<pb::TetherRequest::Registration>;
using Withdrawals = google::protobuf::RepeatedPtrField<pb::TetherRequest::Withdrawal>;

/// kInvalid with the value and the rule; at most 50, no address and URL twice.
Result<std::vector<CheckedRegistration>> Check(const Registrations& registrations);
Result<std::vector<CheckedWithdrawal>> Check(const Withdrawals& withdrawals);

/// What to propose, or the op's first result when the records show that it was done before.
struct Plan {
  Op op;
  std::optional<Revision> already;
  size_t added = 0;       ///< registrations the session did not have
  std::string principal;  ///< who is charged for `more`; empty: nobody
  size_t more = 0;        ///< registrations it did not hold
  size_t removed = 0;     ///< withdrawn, in `already` too
};

/// Reads the records as they are now and guards on them. Thread-safe.
Result<Plan> PlanRegister(const Ground& ground, const Actor& actor,
                          const std::vector<CheckedRegistration>& registrations);
/// kNotFound when one of a session's withdrawals, or all of an operator's, meet nothing.
Result<Plan> PlanWithdraw(const Ground& ground, const Actor& actor,
                          const std::vector<CheckedWithdrawal>& withdrawals, bool sessions_too);

}  // namespace datawire::directory
