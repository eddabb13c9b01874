#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/ground.h"
#include "core/nodes.h"
#include "core/ops.h"

namespace datawire::directory {

/// What all said, put together. `answers` are those of the nodes that were asked. Pure.
pb::MembersResponse ComposeMembers(const std::vector<KnownNode>& nodes,
                                   const std::map<std::string, Result<pb::StatusResponse>>& answers,
                                   const std::vector<Log::Member>& log, const pb::Source& source);

/// Asks all others and who keeps the log, all at a time; blocks for 1.5 s at most. `own` is the
/// status of this node.
Result<pb::MembersResponse> AskMembers(const Ground& ground, const pb::StatusResponse& own);

/// All live replicas at one revision; answered before the peer's deadline, after 1 min at most.
void CompareReplicas(Ground& ground, const Peer& peer,
                     std::function<void(Result<pb::CompareResponse>)> done);

/// That a node has stopped for good. kConflict: it lives; kNotFound: nobody knows it.
Result<Plan> PlanForget(const Ground& ground, const Peer& peer, const std::string& node);

}  // namespace datawire::directory
