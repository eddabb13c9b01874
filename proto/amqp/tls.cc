#include "amqp/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <boost/asio/ip/address.hpp>

#include "amqp/tls_stream.h"

namespace datawire::amqp {

namespace {

/// Which version of the files is there.
std::string Look(const TlsFiles& files) {
  std::string out;
  for (const std::string& path : {files.cert, files.key, files.ca}) {
    struct stat is {};
    ::stat(path.c_str(), &is);
    for (const int64_t part : {int64_t{is.st_mtim.tv_sec}, int64_t{is.st_mtim.tv_nsec},
                               int64_t{is.st_size}, static_cast<int64_t>(is.st_ino)})
      out += std::to_string(part) + " ";
  }
  return out;
}

/// The URIs among the alternative names of a certificate; null: none.
std::vector<std::string> UrisOf(const X509* certificate) {
  std::vector<std::string> out;
  if (certificate == nullptr) return out;
  const std::unique_ptr<GENERAL_NAMES, decltype(&::GENERAL_NAMES_free)> names(
      static_cast<GENERAL_NAMES*>(
          ::X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
      &::GENERAL_NAMES_free);
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* const uri = name->d.uniformResourceIdentifier;
    out.emplace_back(reinterpret_cast<const char*>(::ASN1_STRING_get0_data(uri)),
                     static_cast<size_t>(::ASN1_STRING_length(uri)));
  }
  return out;
}

Result<std::shared_ptr<asio::ssl::context>> Read(const TlsFiles& files) {
  using Context = asio::ssl::context;
  auto context = std::make_shared<Context>(Context::tls);
  boost::system::error_code error;
  const auto refused = [&error](const char* what, const std::string& path) {
    return Status(Code::kInvalid, std::string(what) + " " + Shown(path) + ": " + error.message());
  };
  if (context->use_certificate_chain_file(files.cert, error))
    return refused("tls-cert", files.cert);
  if (context->use_private_key_file(files.key, Context::pem, error))
    return refused("tls-key", files.key);
  if (context->load_verify_file(files.ca, error)) return refused("tls-ca", files.ca);
  context->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert, error);
  SSL_CTX* const native = context->native_handle();
  ::SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  // A resumed session would not look at the certificate again, nor at a new CA.
  ::SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  ::SSL_CTX_set_options(native, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  ::SSL_CTX_set_num_tickets(native, 0);
  return context;
}

}  // namespace

Result<std::shared_ptr<Tls>> Tls::Open(const TlsFiles& files) {
  if (!files.any()) return std::shared_ptr<Tls>();
  auto impl = std::make_unique<Impl>(files);
  if (!impl->Now()) {
    const MutexLock lock(impl->mutex);
    return Status(Code::kInvalid, impl->why);
  }
  return std::shared_ptr<Tls>(new Tls(std::move(impl)));
}

Tls::Tls(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tls::~Tls() = default;

std::string Tls::identity() {
  const auto uris = UrisOf(::SSL_CTX_get0_certificate(impl_->Now()->native_handle()));
  return uris.size() == 1 ? uris.front() : "";
}

std::shared_ptr<asio::ssl::context> Tls::Impl::Now() {
  std::string look = Look(files);
  const MutexLock lock(mutex);
  if (look == seen && why.empty()) return context;
  auto read = Read(files);  // between two files that are replaced: again, at the next connection
  why = read.status().message();
  if (!read.ok()) return context;
  seen = std::move(look);
  context = std::move(read).value();
  return context;
}

void ExpectHost(TlsStream& stream, const std::string& host) {
  boost::system::error_code error;
  asio::ip::make_address(host, error);
  if (error) SSL_set_tlsext_host_name(stream.native_handle(), host.c_str());
  stream.set_verify_callback(asio::ssl::host_name_verification(host), error);
}

std::string Handshake<TlsStream>::Reason(TlsStream& stream,
                                         const boost::system::error_code& error) {
  const int64_t verdict = ::SSL_get_verify_result(stream.native_handle());
  if (verdict == X509_V_OK) return error.message();
  return std::string("its certificate does not pass: ") + ::X509_verify_cert_error_string(verdict);
}

Status Handshake<TlsStream>::Recognise(TlsStream& stream, const ConnectionOptions& options) {
  if (options.identity.empty()) return {};
  const std::unique_ptr<X509, decltype(&::X509_free)> certificate(
      ::SSL_get1_peer_certificate(stream.native_handle()), &::X509_free);
  const auto uris = UrisOf(certificate.get());
  if (uris.size() == 1 && uris.front() == options.identity) return {};
  const std::string shown = uris.empty()       ? "no identity"
                            : uris.size() == 1 ? Shown(uris.front())
                                               : std::to_string(uris.size()) + " identities";
  return {Code::kDenied,
          "shows the certificate of " + shown + ", it is registered as " + Shown(options.identity)};
}

}  // namespace datawire::amqp
