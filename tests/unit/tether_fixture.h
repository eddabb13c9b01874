#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "datawire/directory/v1/directory.grpc.pb.h"
#include "tether.h"

namespace datawire::tether_testing {

namespace pb = ::datawire::directory::v1;

inline RegistrationSpec Spec(std::string_view address, std::string_view url) {
  return {.address = *Address::Parse(address), .url = *EndpointUrl::Parse(url)};
}

inline pb::TetherResponse Welcome(uint64_t attach_number, bool resumed,
                                  std::string id = std::string(16, 'i')) {
  pb::TetherResponse response;
  auto* welcome = response.mutable_welcome();
  welcome->set_session_id(std::move(id));
  if (!resumed) welcome->set_secret(std::string(32, 's'));
  welcome->set_attach_number(attach_number);
  welcome->set_resumed(resumed);
  welcome->mutable_source()->set_node_id("n1");
  return response;
}

inline pb::TetherResponse Acknowledged(uint64_t op_id, uint64_t number = 7) {
  pb::TetherResponse response;
  response.mutable_done()->set_op_id(op_id);
  response.mutable_done()->mutable_revision()->set_epoch(1);
  response.mutable_done()->mutable_revision()->set_number(number);
  return response;
}

inline pb::TetherResponse Refused(uint64_t op_id, pb::Code code, uint64_t retry_after_ms = 0) {
  pb::TetherResponse response;
  response.mutable_done()->set_op_id(op_id);
  response.mutable_done()->mutable_refusal()->set_code(code);
  response.mutable_done()->mutable_refusal()->set_retry_after_ms(retry_after_ms);
  return response;
}

inline pb::TetherResponse Ended(pb::Code code, uint64_t present = 0, std::string reason = "") {
  pb::TetherResponse response;
  response.mutable_ended()->mutable_refusal()->set_code(code);
  response.mutable_ended()->set_reason(std::move(reason));
  response.mutable_ended()->set_present_attach_number(present);
  return response;
}

inline pb::TetherResponse HeartbeatAnswer(uint64_t number) {
  pb::TetherResponse response;
  response.mutable_heartbeat()->set_number(number);
  return response;
}

/// A server whose tethers follow a script. `script` runs on a thread of the server for each stream;
/// when it returns, the stream ends. Thread-safe.
class ScriptedServer final : public pb::Directory::Service {
 public:
  using Line = grpc::ServerReaderWriter<pb::TetherResponse, pb::TetherRequest>;
  using Script = std::function<void(Line&, int stream)>;

  explicit ScriptedServer(Script script) : script_(std::move(script)) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~ScriptedServer() override { Stop(); }

  const std::string& address() const { return address_; }

  /// Cuts what is open; the port refuses from now on.
  void Stop() {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }

  /// What arrived, hellos and heartbeats too.
  std::vector<pb::TetherRequest> received() const {
    std::lock_guard lock(mutex_);
    return received_;
  }

  /// True once `seen` is true of all that arrived; false after `wait`.
  bool WaitFor(const std::function<bool(const std::vector<pb::TetherRequest>&)>& seen,
               std::chrono::milliseconds wait = std::chrono::seconds(10)) {
    std::unique_lock lock(mutex_);
    return arrived_.wait_for(lock, wait, [&] { return seen(received_); });
  }

  /// For scripts: the next message, noted.
  bool Read(Line& line, pb::TetherRequest* message) {
    if (!line.Read(message)) return false;
    std::lock_guard lock(mutex_);
    received_.push_back(*message);
    arrived_.notify_all();
    return true;
  }

  /// For scripts: answers everything as a healthy server does, until the stream ends.
  void ServeWell(Line& line) {
    for (pb::TetherRequest m; Read(line, &m);) {
      if (m.has_hello())
        line.Write(Welcome(m.hello().attach_number(), !m.hello().session_id().empty()));
      if (m.has_register_()) line.Write(Acknowledged(m.register_().op_id()));
      if (m.has_withdraw()) line.Write(Acknowledged(m.withdraw().op_id()));
      if (m.has_drain()) line.Write(Acknowledged(m.drain().op_id()));
      if (m.has_heartbeat()) line.Write(HeartbeatAnswer(m.heartbeat().number()));
      if (m.has_bye()) {
        line.Write(Ended(pb::SESSION_EXPIRED, 0, "closed"));
        return;
      }
    }
  }

 private:
  grpc::Status Tether(grpc::ServerContext*, Line* line) override {
    int stream = 0;
    {
      std::lock_guard lock(mutex_);
      stream = ++streams_;
    }
    script_(*line, stream);
    return grpc::Status::OK;
  }

  const Script script_;
  std::string address_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<pb::TetherRequest> received_;
  int streams_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace datawire::tether_testing
