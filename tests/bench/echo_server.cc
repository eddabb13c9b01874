// The reference of the gRPC benchmarks: a bare callback server that answers Resolve with bytes
// prepared once, as many answers as were asked for, and does nothing else.
#include <grpcpp/grpcpp.h>
#include <signal.h>

#include <cstdio>
#include <map>

#include "datawire/directory/v1/directory.grpc.pb.h"

namespace {

namespace pb = ::datawire::directory::v1;

class Echo final : public pb::Directory::WithRawCallbackMethod_Resolve<pb::Directory::Service> {
 public:
  Echo() {
    for (const int names : {1, 64}) {
      pb::ResolveResponse response;
      response.mutable_source()->set_cluster_id("dev");
      response.mutable_source()->set_epoch(1764000000);
      response.mutable_source()->set_node_id("n1");
      for (int i = 0; i < names; ++i) AddAnswer(&response);
      const grpc::Slice slice(response.SerializeAsString());
      prepared_.emplace(names, grpc::ByteBuffer(&slice, 1));
    }
  }

  grpc::ServerUnaryReactor* Resolve(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override {
    *response = prepared_.at(request->Length() > 1000 ? 64 : 1);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  static void AddAnswer(pb::ResolveResponse* response) {
    auto* answer = response->add_answers();
    answer->set_address("//bench.example.com/service/000000");
    answer->set_matched("//bench.example.com/service/000000");
    answer->mutable_revision()->set_epoch(1764000000);
    answer->mutable_revision()->set_number(100000);
    answer->set_ttl_ms(30000);
    auto* row = answer->mutable_row();
    row->set_status(pb::ANSWER_STATUS_FOUND);
    *row->mutable_modified() = answer->revision();
    row->set_total(1);
    row->set_hash(1);
    auto* endpoint = row->add_endpoints();
    endpoint->set_url("amqp://127.0.0.1:10000");
    endpoint->set_weight(100);
    endpoint->set_created(100000);
    endpoint->set_static_(true);
  }

  std::map<int, grpc::ByteBuffer> prepared_;
};

}  // namespace

int main() {
  Echo echo;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&echo);
  const auto server = builder.BuildAndStart();
  std::printf("ready grpc=127.0.0.1:%d\n", port);
  std::fflush(stdout);
  server->Wait();  // SIGTERM ends it
}
