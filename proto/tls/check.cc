#include "tls/check.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string_view>
#include <system_error>

#include "datawire/limits.h"

namespace datawire::tls {
namespace {

using Certificate = std::unique_ptr<X509, decltype(&::X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&::EVP_PKEY_free)>;

constexpr std::string_view kScheme = "spiffe://";

Status Wrong(std::string_view what, const std::string& path, const std::string& why) {
  return {Code::kInvalid, std::string(what) + " " + Shown(path) + " " + why};
}

/// What `read` makes of the file.
template <typename Owned, typename Read>
Result<Owned> ReadPem(std::string_view what, const std::string& path, Read read,
                      const char* missing) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"),
                                                             &std::fclose);
  if (!file) return Wrong(what, path, "cannot be read: " + std::generic_category().message(errno));
  Owned owned = read(file.get());
  ::ERR_clear_error();
  if (!owned) return Wrong(what, path, missing);
  return owned;
}

Result<Certificate> ReadCertificate(std::string_view what, const std::string& path) {
  const auto read = [](std::FILE* file) {
    return Certificate(::PEM_read_X509(file, nullptr, nullptr, nullptr), &::X509_free);
  };
  return ReadPem<Certificate>(what, path, read, "holds no certificate in PEM");
}

Result<Key> ReadKey(const std::string& path) {
  const auto read = [](std::FILE* file) {
    const auto no_password = [](char*, int, int, void*) { return -1; };
    return Key(::PEM_read_PrivateKey(file, nullptr, no_password, nullptr), &::EVP_PKEY_free);
  };
  return ReadPem<Key>("tls-key", path, read, "holds no private key in PEM without a password");
}

bool CleanSegment(std::string_view text, bool upper) {
  return !text.empty() && text != "." && text != ".." &&
         std::all_of(text.begin(), text.end(), [upper](char c) {
           return (c >= 'a' && c <= 'z') || (upper && c >= 'A' && c <= 'Z') ||
                  (c >= '0' && c <= '9') || std::string_view("-_.").find(c) != std::string::npos;
         });
}

bool IsSpiffeId(std::string_view uri) {
  if (uri.size() > limits::kIdentityBytes || !uri.starts_with(kScheme)) return false;
  uri.remove_prefix(kScheme.size());
  for (bool domain = true;; domain = false) {
    const size_t slash = uri.find('/');
    if (!CleanSegment(uri.substr(0, slash), !domain)) return false;
    if (slash == std::string_view::npos) return !domain;
    uri.remove_prefix(slash + 1);
  }
}

}  // namespace

Status CheckFiles(const TlsFiles& files) {
  if (!files.any()) return Status::Ok();
  for (const auto& [path, what] :
       {std::pair{&files.cert, "tls-cert"}, {&files.key, "tls-key"}, {&files.ca, "tls-ca"}}) {
    if (path->empty())
      return {Code::kInvalid,
              std::string(what) + " is missing: tls-cert, tls-key and tls-ca go together"};
  }
  DW_ASSIGN(const Certificate cert, ReadCertificate("tls-cert", files.cert));
  DW_ASSIGN(const Key key, ReadKey(files.key));
  DW_RETURN_IF_ERROR(ReadCertificate("tls-ca", files.ca).status());
  const bool belongs = ::X509_check_private_key(cert.get(), key.get()) == 1;
  ::ERR_clear_error();
  if (!belongs)
    return Wrong("tls-key", files.key, "is not the key of tls-cert " + Shown(files.cert));
  if (::X509_cmp_current_time(::X509_get0_notAfter(cert.get())) < 0)
    return Wrong("tls-cert", files.cert, "has expired");
  return Status::Ok();
}

Result<std::string> IdentityOf(const std::vector<std::string>& uris) {
  const std::string rule =
      "; it must have exactly one URI among its alternative names, spiffe://trust-domain/path";
  if (uris.empty()) return Status(Code::kDenied, "your certificate names no identity" + rule);
  if (uris.size() > 1)
    return Status(Code::kDenied, "your certificate names " + std::to_string(uris.size()) +
                                     " identities, " + Shown(uris[0]) + " and " + Shown(uris[1]) +
                                     (uris.size() > 2 ? " among them" : "") + rule);
  if (!IsSpiffeId(uris.front()))
    return Status(Code::kDenied,
                  "your certificate's identity " + Shown(uris.front()) + " is no SPIFFE ID" + rule);
  return uris.front();
}

}  // namespace datawire::tls
