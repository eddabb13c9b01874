#pragma once

#include <memory>

#include "core/ground.h"
#include "core/tethers.h"

namespace datawire::directory {

/// The Explain verb: the answer, the rows that were looked at, and every registration on the way,
/// kept or dropped and why. Not at one revision: it reads records as they are. Thread-safe.
Result<pb::ExplainResponse> Explain(const Ground& ground, const Tethers& tethers,
                                    const pb::ExplainRequest& request);

}  // namespace datawire::directory
