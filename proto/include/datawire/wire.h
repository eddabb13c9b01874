#pragma once

#include "datawire/answer.h"
#include "datawire/directory/v1/directory.pb.h"
#include "datawire/result.h"

/// Translation between the messages of datawire.directory.v1 and the values of datawire::common.
/// Reads are strict: what comes from a peer is checked here and nowhere else.
namespace datawire {

namespace pb = ::datawire::directory::v1;

Revision FromWire(const pb::Revision& revision);
void ToWire(const Revision& revision, pb::Revision* out);

Status FromWire(const pb::Refusal& refusal);
void ToWire(const Status& status, pb::Refusal* out);

/// kInvalid when a URL, weight or enum is out of its range.
Result<Endpoint> FromWire(const pb::Endpoint& endpoint);
void ToWire(const Endpoint& endpoint, pb::Match match, pb::Endpoint* out);

/// kCorrupt when the message breaks a rule: an answer for no address, `matched` that is not the
/// address or an ancestor, more than 256 endpoints, an endpoint that does not parse, an absurd TTL.
Result<Answer> FromWire(const pb::Answer& answer);

/// Checks what a registrant sends (URL, priority, weight, locality, labels: limits.h) and fills
/// defaults in; kInvalid with the value and the rule.
Status Canonicalize(pb::EndpointSpec* spec);

}  // namespace datawire
