#pragma once

#include <string>
#include <vector>

#include "datawire/client.h"
#include "datawire/endpoint_url.h"

namespace datawire {

/// The endpoint that a service bound to `bound` registers: `announce` with its port or the bound
/// one; else the bound address; for a wildcard the local address that routes to the first of
/// `directory` that can be looked up (a connected UDP socket's name; nothing is sent). `secure`:
/// amqps.
Result<EndpointUrl> AnnouncedUrl(const HostPort& bound, const std::string& announce,
                                 const DirectoryPlace& directory, bool secure);

}  // namespace datawire
