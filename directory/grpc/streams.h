#pragma once

#include <grpcpp/grpcpp.h>

#include "grpc/executor.h"
#include "grpc/open_streams.h"

namespace datawire::directory {

/// What the calls of one server share. Outlives them.
struct Shared {
  Directory& directory;
  const bool certified;  ///< callers have a certificate
  Executor executor;     ///< what others wake, and large resolves
  Executor pages;        ///< one thread: pages of lists and the like, one after the other
  CallCounts counts;
  OpenStreams streams;
};

/// kDenied: who calls has to be somebody, and its certificate does not say who.
Status CheckCaller(const Shared& shared, const grpc::CallbackServerContext& context);

/// The reactors of the three streaming verbs; each deletes itself when gRPC is done with it.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* NewTetherStream(
    Shared& shared, const grpc::CallbackServerContext& context);
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* NewSubscribeStream(
    Shared& shared, const grpc::CallbackServerContext& context);
grpc::ServerWriteReactor<grpc::ByteBuffer>* NewWatchStream(
    Shared& shared, const grpc::CallbackServerContext& context, const grpc::ByteBuffer& request);

}  // namespace datawire::directory
