#pragma once

#include <grpcpp/grpcpp.h>

#include "grpc/executor.h"
#include "grpc/open_streams.h"

namespace datawire::directory {

/// What the calls of one server share. Outlives them.
struct Shared {
  Directory& directory;
  Executor executor;  ///< what others wake, and large resolves
  Executor pages;     ///< one thread: pages of lists and the like, one after the other
  CallCounts counts;
  OpenStreams streams;
};

/// The reactors of the three streaming verbs; each deletes itself when gRPC is done with it.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* NewTetherStream(
    Shared& shared, const grpc::CallbackServerContext& context);
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* NewSubscribeStream(
    Shared& shared, const grpc::CallbackServerContext& context);
grpc::ServerWriteReactor<grpc::ByteBuffer>* NewWatchStream(
    Shared& shared, const grpc::CallbackServerContext& context, const grpc::ByteBuffer& request);

}  // namespace datawire::directory
