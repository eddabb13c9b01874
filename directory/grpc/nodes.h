#pragma once

#include <memory>

#include "core/nodes.h"
#include "datawire/tls_files.h"

namespace datawire::directory {

/// Asks other nodes over gRPC, on one connection to each, with this node's own certificate: the
/// others let it in, and are checked, as any client and server are (tls/credentials.h).
std::unique_ptr<Nodes> MakeGrpcNodes(const TlsFiles& tls);

}  // namespace datawire::directory
