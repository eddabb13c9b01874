#include "tls/diagnose.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>

namespace datawire::tls {
namespace {

constexpr timeval kStep{1, 0};  // connecting, and each read and write after it

/// A connected socket, whose every step has its time; -1: none.
int Connect(const HostPort& server, const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(server.port).c_str(), &hints, &found) != 0)
    return -1;
  const int fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kStep, sizeof kStep);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kStep, sizeof kStep);
  const bool connected = ::connect(fd, found->ai_addr, found->ai_addrlen) == 0;
  ::freeaddrinfo(found);
  if (connected) return fd;
  if (fd >= 0) ::close(fd);
  return -1;
}

/// What OpenSSL noted first: `tlsv1 alert unknown ca`.
std::string Reason() {
  const char* text = ::ERR_reason_error_string(::ERR_peek_error());
  return text == nullptr ? "" : text;
}

std::string Refuses(const TlsFiles& files, const std::string& reason) {
  const bool silently = reason.find("eof") != std::string::npos;  // as gRPC's servers do
  return "it refuses tls-cert " + Shown(files.cert) + ": " +
         (silently ? "its tls-ca does not allow it, or it has expired" : reason);
}

std::string WithFiles(SSL_CTX* context, SSL* ssl, const std::string& host, const TlsFiles& files) {
  if (::SSL_CTX_load_verify_locations(context, files.ca.c_str(), nullptr) != 1 ||
      ::SSL_use_certificate_chain_file(ssl, files.cert.c_str()) != 1 ||
      ::SSL_use_PrivateKey_file(ssl, files.key.c_str(), SSL_FILETYPE_PEM) != 1)
    return "";
  ::SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
  X509_VERIFY_PARAM* const rules = ::SSL_get0_param(ssl);
  if (::X509_VERIFY_PARAM_set1_ip_asc(rules, host.c_str()) != 1)
    ::X509_VERIFY_PARAM_set1_host(rules, host.c_str(), 0);
  ::ERR_clear_error();
  if (::SSL_connect(ssl) != 1) {
    if (const int64_t verdict = ::SSL_get_verify_result(ssl); verdict != X509_V_OK)
      return "its certificate does not pass tls-ca " + Shown(files.ca) + ": " +
             ::X509_verify_cert_error_string(verdict);
    const std::string reason = Reason();
    if (reason.empty()) return "";
    if (reason.find("alert") == std::string::npos) return "it speaks no TLS (" + reason + ")";
    return Refuses(files, reason);
  }
  char byte = 0;  // of what a server says first; TLS 1.3 has its refusal here
  if (::SSL_read(ssl, &byte, 1) == 1 || Reason().empty()) return "";
  return Refuses(files, Reason());
}

}  // namespace

std::string Diagnose(const HostPort& server, const TlsFiles& files) {
  std::string host = server.host;
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  const int fd = Connect(server, host);
  if (fd < 0) return "";
  const std::unique_ptr<SSL_CTX, decltype(&::SSL_CTX_free)> context(
      ::SSL_CTX_new(::TLS_client_method()), &::SSL_CTX_free);
  ::SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  const std::unique_ptr<SSL, decltype(&::SSL_free)> ssl(::SSL_new(context.get()), &::SSL_free);
  ::SSL_set_fd(ssl.get(), fd);
  static constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  ::SSL_set_alpn_protos(ssl.get(), kHttp2, sizeof kHttp2);
  ::ERR_clear_error();
  std::string why;
  if (files.any())
    why = WithFiles(context.get(), ssl.get(), host, files);
  else if (::SSL_connect(ssl.get()) == 1 || Reason().find("alert") != std::string::npos)
    why = "it speaks TLS: give tls-cert, tls-key and tls-ca";
  ::ERR_clear_error();
  ::close(fd);
  return why;
}

std::string Hint(const std::string& message, const TlsFiles& files) {
  if (message.find("Socket closed") == std::string::npos &&
      message.find("Connection reset") == std::string::npos)
    return "";
  return files.any() ? " (it refuses the certificate, or speaks no TLS?)" : " (it speaks TLS?)";
}

}  // namespace datawire::tls
