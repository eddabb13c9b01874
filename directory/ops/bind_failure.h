#pragma once

#include "datawire/endpoint_url.h"
#include "datawire/result.h"

namespace datawire::directory {

/// Whether a server could listen at `at` now. kUnavailable as below.
Status TryBind(const HostPort& at);

/// Why a server could not listen at `at`, found by trying it once more: libraries only say "no".
/// kUnavailable, one line with the address and the system's reason.
Status BindFailure(const HostPort& at);

}  // namespace datawire::directory
