#include "view/principal.h"

namespace datawire::directory {

std::string PrincipalOf(std::string_view identity, std::string_view peer_address) {
  if (!identity.empty()) return std::string(identity);
  constexpr std::string_view kMapped = "::ffff:";  // IPv4 peers of a listener on [::]
  std::string_view host = peer_address.substr(0, peer_address.rfind(':'));
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  if (host.starts_with(kMapped)) host.remove_prefix(kMapped.size());
  if (host == "::1" || host.starts_with("127.")) return {};
  return std::string(host);
}

}  // namespace datawire::directory
