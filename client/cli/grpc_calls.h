#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "datawire/status.h"
#include "datawire/tls_files.h"

/// What calls of the native API have in common. For the files that own gRPC.
namespace datawire::cli {

/// A connection of its own; made by the first call, whose deadline bounds that.
std::shared_ptr<grpc::Channel> ConnectTo(
    const std::string& server, const std::shared_ptr<grpc::ChannelCredentials>& credentials);

/// The directory's own refusal, if there is one; else what became of the call, for people: asks the
/// server once more what it has against `tls`, if it cannot be reached.
Status FromGrpc(const grpc::Status& status, const std::string& server, const TlsFiles& tls);

}  // namespace datawire::cli
