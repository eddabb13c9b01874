#pragma once

#include <cstdint>
#include <vector>

#include "datawire/endpoint_url.h"
#include "datawire/result.h"

namespace datawire {

/// Sockets that listen at `at`, one for each address it stands for, non-blocking; all on one port.
/// kUnavailable as below. Whoever gets them closes them.
Result<std::vector<int>> ListenAt(const HostPort& at);
uint16_t PortOf(int socket);

/// Whether a server could listen at `at` now. kUnavailable as below.
Status TryBind(const HostPort& at);

/// Why a server could not listen at `at`, found by trying it once more: libraries only say "no".
/// kUnavailable, one line with the address and the system's reason.
Status BindFailure(const HostPort& at);

}  // namespace datawire
