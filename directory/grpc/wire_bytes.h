#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <string>

#include "core/directory.h"

/// Between gRPC's types and ours. Raw methods: an answer the core has encoded goes out as it is.
namespace datawire::directory {

/// The row of the error table, with a pb::Refusal in the details.
grpc::Status ToGrpc(const Status& status);

/// Takes the bytes over; long ones are not copied.
grpc::ByteBuffer ToBuffer(std::string bytes);

/// kInvalid when the bytes are not such a message or, with `most_bytes`, too many.
Status Parse(const grpc::ByteBuffer& bytes, size_t most_bytes,
             google::protobuf::MessageLite* message);

/// BootTime::max() when the caller named none.
BootTime DeadlineOf(const grpc::CallbackServerContext& context);
/// Of the caller, from its certificate; kDenied: that names none, or several.
Result<std::string> IdentityOf(const grpc::CallbackServerContext& context);
/// Of a call whose identity is in order.
Peer PeerOf(const grpc::CallbackServerContext& context);

}  // namespace datawire::directory
