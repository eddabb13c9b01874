#include "grpc/wire_bytes.h"

#include <grpc/grpc_security_constants.h>
#include <grpc/support/time.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include "datawire/wire.h"
#include "tls/check.h"

namespace datawire::directory {
namespace {

constexpr size_t kCopied = 512;  // below it a copy is cheaper than a second owner
constexpr size_t kDetailBytes = 1024;

void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
    text.replace(at, from.size(), to);
    at += to.size();
  }
}

std::vector<std::string> CertifiedUris(const grpc::CallbackServerContext& context) {
  std::vector<std::string> uris;
  for (const auto& uri : context.auth_context()->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME))
    uris.emplace_back(uri.data(), uri.size());
  return uris;
}

}  // namespace

grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // Clients take 8 KiB of trailers at most; a message is one line and far shorter.
  Status shown(status.code(), status.message().substr(0, kDetailBytes));
  if (const auto wait = status.retry_after()) shown.set_retry_after(*wait);
  pb::Refusal refusal;
  ToWire(shown, &refusal);
  return grpc::Status(static_cast<grpc::StatusCode>(MappingOf(status.code()).grpc), shown.message(),
                      refusal.SerializeAsString());
}

grpc::ByteBuffer ToBuffer(std::string bytes) {
  if (bytes.size() <= kCopied) {
    const grpc::Slice slice(bytes);
    return grpc::ByteBuffer(&slice, 1);
  }
  auto* held = new std::string(std::move(bytes));
  const grpc::Slice slice(
      held->data(), held->size(), [](void* owner) { delete static_cast<std::string*>(owner); },
      held);
  return grpc::ByteBuffer(&slice, 1);
}

Status Parse(const grpc::ByteBuffer& bytes, size_t most_bytes,
             google::protobuf::MessageLite* message) {
  if (bytes.Length() > most_bytes) {
    return Status(Code::kInvalid, "the request is " + std::to_string(bytes.Length()) +
                                      " bytes, at most " + std::to_string(most_bytes));
  }
  grpc::ByteBuffer mine = bytes;  // the reader wants it mutable; counts a reference
  grpc::ProtoBufferReader reader(&mine);
  if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) return Status::Ok();
  return Status(Code::kInvalid, "the request's " + std::to_string(bytes.Length()) +
                                    " bytes are not a " + message->GetTypeName());
}

BootTime DeadlineOf(const grpc::CallbackServerContext& context) {
  // raw_deadline: on gRPC's monotonic clock, so that a stepped wall clock refuses nobody (P22).
  const gpr_timespec deadline = context.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return BootTime::max();
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  return BootClock::now() + std::chrono::seconds(left.tv_sec) +
         std::chrono::nanoseconds(left.tv_nsec);
}

Result<std::string> IdentityOf(const grpc::CallbackServerContext& context) {
  return tls::IdentityOf(CertifiedUris(context));
}

Peer PeerOf(const grpc::CallbackServerContext& context) {
  Peer peer;
  peer.deadline = DeadlineOf(context);
  peer.address = context.peer();  // ipv4:127.0.0.1:41234, ipv6:%5B::1%5D:41234
  const size_t colon = peer.address.find(':');
  if (colon != std::string::npos) peer.address.erase(0, colon + 1);
  ReplaceAll(peer.address, "%5B", "[");
  ReplaceAll(peer.address, "%5D", "]");
  if (auto uris = CertifiedUris(context); uris.size() == 1) peer.identity = std::move(uris.front());
  return peer;
}

}  // namespace datawire::directory
