#pragma once

#include <string>
#include <string_view>

namespace datawire::directory {

/// Who is charged for what a peer holds (PROMISES P21): its identity; without one the host of its
/// address (`10.0.0.7:41234`, `[2001:db8::7]:41234`). Empty: nobody, the peer is on loopback or
/// there is none.
std::string PrincipalOf(std::string_view identity, std::string_view peer_address);

}  // namespace datawire::directory
