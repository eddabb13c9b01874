#pragma once

#include <memory>

#include "datawire/tls_files.h"

namespace grpc {
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

/// What gRPC's channels and servers prove themselves with: TLS 1.2 at least, a certificate wanted
/// of both ends, a server's checked against its host name. Without files: plaintext. Each reads its
/// files every second, on a thread of its own, until all that use it are gone: make one for many
/// channels. The files have been checked (tls/check.h).
namespace datawire::tls {

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const TlsFiles& files);
std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const TlsFiles& files);

}  // namespace datawire::tls
