#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "datawire/resolver.h"

namespace datawire::resolver {

/// Where the config may be; the first that is there and names servers counts. Empty: not set.
std::vector<std::string> ConfigFiles(std::string_view xdg_config_home, std::string_view home);

/// The first of `given`, `variable` ($DATAWIRE_DIRECTORY) and `files` that names servers is used
/// alone; none if none does. kInvalid when that one does not parse.
Result<std::vector<std::string>> FindServers(const std::vector<std::string>& given,
                                             std::string_view variable,
                                             const std::vector<std::string>& files);

/// `given`, else `variable` ($DATAWIRE_DOMAIN), else the first of `files` with the key `domain`; in
/// lower case. Empty: none is configured. kInvalid when that one is no domain.
Result<std::string> FindDomain(std::string_view given, std::string_view variable,
                               const std::vector<std::string>& files);

/// As FindServers: the first that names any of the three, checked.
Result<TlsFiles> FindTls(const TlsFiles& given, const TlsFiles& variables,
                         const std::vector<std::string>& files);

}  // namespace datawire::resolver
