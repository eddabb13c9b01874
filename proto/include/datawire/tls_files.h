#pragma once

#include <string>

namespace datawire {

/// The files of PEM by which a program proves who it is, and knows its peers: TLS in both
/// directions. All three, or none: plaintext. A renewed file is read again within seconds. Value.
struct TlsFiles {
  std::string cert;  ///< the own certificate, and after it what leads to its CA
  std::string key;   ///< of `cert`, not encrypted
  std::string ca;    ///< the CAs whose certificates peers may show

  bool any() const { return !cert.empty() || !key.empty() || !ca.empty(); }
  friend bool operator==(const TlsFiles&, const TlsFiles&) = default;
};

}  // namespace datawire
