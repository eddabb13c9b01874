#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "datawire/status.h"

/// What calls of the native API have in common. For the files that own gRPC.
namespace datawire::cli {

/// A connection of its own; made by the first call, whose deadline bounds that.
std::shared_ptr<grpc::Channel> ConnectTo(const std::string& server);

/// The directory's own refusal, if there is one; else what became of the call, for people.
Status FromGrpc(const grpc::Status& status, const std::string& server);

}  // namespace datawire::cli
