#include "grpc_calls.h"

#include "datawire/directory/v1/directory.pb.h"
#include "datawire/wire.h"
#include "tls/diagnose.h"

namespace datawire::cli {
namespace {

constexpr int kConnectMost = 3'600'000;  // ms

// gRPC's chain of reasons ends with the one that says something: `Connection refused`.
std::string Reason(const std::string& chain) {
  const size_t last = chain.rfind(": ");
  return last == std::string::npos ? chain : chain.substr(last + 2);
}

}  // namespace

std::shared_ptr<grpc::Channel> ConnectTo(
    const std::string& server, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments args;
  // Not a back-off but the time a connection may take: the call's own deadline decides.
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMost);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetMaxReceiveMessageSize(8 * 1024 * 1024);
  return grpc::CreateCustomChannel(server, credentials, args);
}

Status FromGrpc(const grpc::Status& status, const std::string& server, const TlsFiles& tls) {
  if (status.ok()) return {};
  const Code code = CodeFromGrpc(status.error_code());
  if (directory::v1::Refusal refusal;
      !status.error_details().empty() && refusal.ParseFromString(status.error_details())) {
    if (const Status said = FromWire(refusal); said.code() == code) return said;
  }
  if (code == Code::kTimeout)
    return {code, "directory " + server + " did not answer within the time given"};
  if (code == Code::kUnavailable) {
    const auto at = HostPort::Parse(server);
    const std::string why = at.ok() ? tls::Diagnose(*at, tls) : "";
    return {code, "directory " + server + " cannot be reached: " +
                      (why.empty() ? Reason(status.error_message()) : why)};
  }
  return {code, "directory " + server + ": " + status.error_message()};
}

}  // namespace datawire::cli
