#pragma once

#include <string>
#include <vector>

#include "datawire/result.h"
#include "datawire/tls_files.h"

namespace datawire::tls {

/// That they can be read, hold what they should, have not expired, and that the key is the
/// certificate's. kInvalid: one line with the file and the rule. None at all is OK.
Status CheckFiles(const TlsFiles& files);

/// Who a peer is, from the URIs among the alternative names of its certificate: exactly one, a
/// SPIFFE ID (spiffe://trust-domain/path). kDenied: it has none, several, or another one.
Result<std::string> IdentityOf(const std::vector<std::string>& uris);

}  // namespace datawire::tls
