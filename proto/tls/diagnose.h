#pragma once

#include <string>

#include "datawire/endpoint_url.h"
#include "datawire/tls_files.h"

namespace datawire::tls {

/// Why a connection that did not come about failed, as far as TLS is the reason, for people; empty:
/// it is not. Makes a connection of its own, since a refusal of TLS 1.3 reaches gRPC as a socket
/// that closes. Blocks for up to 2 s.
std::string Diagnose(const HostPort& server, const TlsFiles& files);

/// What a socket that closed may mean, for who must not block; empty where `message` says more.
std::string Hint(const std::string& message, const TlsFiles& files);

}  // namespace datawire::tls
