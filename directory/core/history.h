#pragma once

#include "core/ground.h"

namespace datawire::directory {

/// What happened to an address: the kept history, and of what came before it the registrations,
/// tombstones and policy that are still there. Thread-safe.
Result<pb::HistoryResponse> History(const Ground& ground, const pb::HistoryRequest& request);

}  // namespace datawire::directory
