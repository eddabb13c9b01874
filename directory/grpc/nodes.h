#pragma once

#include <memory>

#include "core/nodes.h"

namespace datawire::directory {

/// Asks other nodes over gRPC, on one connection to each.
std::unique_ptr<Nodes> MakeGrpcNodes();

}  // namespace datawire::directory
