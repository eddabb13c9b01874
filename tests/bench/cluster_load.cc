// Loads of a cluster for cluster_bench.py, each prints one JSON object:
//   cluster_load register NODE,NODE,... SECONDS IN_FLIGHT    through one tether a node
//   cluster_load visible NODE NODE SECONDS RATE    written at the first, watched at the second
//   cluster_load etcd MEMBER SECONDS               as `register`, by bare etcd in groups
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "datawire/clock.h"
#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/record/v1/record.pb.h"
#include "engine/etcd/client.h"
#include "engine/etcd/transaction.h"

namespace datawire::bench {
namespace {

namespace pb = ::datawire::directory::v1;

double Now() {
  return std::chrono::duration<double>(BootClock::now().time_since_epoch()).count();
}

void Check(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "cluster_load: %s\n", what.c_str());
  std::exit(1);
}

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> out;
  for (size_t from = 0; from <= list.size();) {
    const size_t to = std::min(list.find(',', from), list.size());
    out.push_back(list.substr(from, to - from));
    from = to + 1;
  }
  return out;
}

std::unique_ptr<pb::Directory::Stub> Connect(const std::string& address) {
  return pb::Directory::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
}

double Quantile(std::vector<double>& of, double at) {
  if (of.empty()) return 0;
  const auto nth = of.begin() + static_cast<long>(at * static_cast<double>(of.size() - 1));
  std::nth_element(of.begin(), nth, of.end());
  return *nth;
}

/// A tether with its session. Registrations of 500 addresses in turn, each time a change.
class Registrant {
 public:
  Registrant(const std::string& node, std::string name)
      : stub_(Connect(node)), stream_(stub_->Tether(&context_)), name_(std::move(name)) {
    pb::TetherRequest hello;
    hello.mutable_hello()->set_program("bench");
    pb::TetherResponse response;
    Check(stream_->Write(hello) && stream_->Read(&response) && response.has_welcome(),
          "no welcome from " + node);
  }
  ~Registrant() {
    context_.TryCancel();
    static_cast<void>(stream_->Finish());
  }
  uint64_t Send() {
    pb::TetherRequest request;
    auto* const registration = request.mutable_register_();
    registration->set_op_id(++op_);
    auto* const r = registration->add_registrations();
    r->set_address("//write.example.com/" + name_ + "/" + std::to_string(op_ % 500));
    r->mutable_endpoint()->set_url("amqp://127.0.0.1:20000");
    r->mutable_endpoint()->set_priority(static_cast<uint32_t>(op_ / 500 % 60'000));
    Check(stream_->Write(request), "a register was not written");
    return op_;
  }
  /// The op that is done.
  uint64_t Done() {
    pb::TetherResponse response;
    do Check(stream_->Read(&response), "the tether ended");
    while (!response.has_done());
    Check(!response.done().has_refusal(), response.done().refusal().message());
    return response.done().op_id();
  }
  void Beat() {
    pb::TetherRequest request;
    request.mutable_heartbeat()->set_number(++beats_);
    Check(stream_->Write(request), "a heartbeat was not written");
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<pb::Directory::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::TetherRequest, pb::TetherResponse>> stream_;
  const std::string name_;
  uint64_t op_ = 0, beats_ = 0;
};

void Register(const std::vector<std::string>& nodes, double seconds, int in_flight) {
  std::mutex mutex;
  std::vector<double> took;
  const double until = Now() + seconds;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < nodes.size(); ++i)
    threads.emplace_back([&, i] {
      Registrant registrant(nodes[i], std::to_string(i));
      std::vector<double> started(1 << 16), own;
      double beat = Now();
      int outstanding = 0;
      while (Now() < until) {
        for (; outstanding < in_flight; ++outstanding) {
          const double now = Now();
          started[registrant.Send() % started.size()] = now;
        }
        const uint64_t done = registrant.Done();
        own.push_back(Now() - started[done % started.size()]);
        --outstanding;
        if (Now() - beat < 3) continue;
        beat = Now();
        registrant.Beat();
      }
      const std::lock_guard lock(mutex);
      took.insert(took.end(), own.begin(), own.end());
    });
  for (std::thread& thread : threads) thread.join();
  std::printf("{\"rate\": %.1f, \"p50_us\": %.1f}\n", static_cast<double>(took.size()) / seconds,
              Quantile(took, 0.5) * 1e6);
}

// What was sent when, by its priority and address; seen by a Watch at the other node.
void Visible(const std::string& node, const std::string& other, double seconds, double rate) {
  Registrant registrant(node, "v");
  std::mutex mutex;
  std::vector<double> sent, took;  // by mutex
  const auto stub = Connect(other);
  grpc::ClientContext context;
  pb::WatchRequest watch;
  watch.set_prefix("//write.example.com/v");
  watch.set_no_snapshot(true);
  const auto stream = stub->Watch(&context, watch);
  std::thread watcher([&] {
    pb::WatchResponse response;
    while (stream->Read(&response)) {
      const double now = Now();
      const std::lock_guard lock(mutex);
      for (const pb::Event& event : response.events()) {
        const std::string& address = event.address();
        const size_t op = std::stoul(address.substr(address.rfind('/') + 1)) +
                          size_t{event.endpoint().priority()} * 500;
        if (op < sent.size() && sent[op] > 0) took.push_back(now - sent[op]);
      }
    }
  });
  std::thread reader([&] {
    for (int i = 0; i < static_cast<int>(seconds * rate); ++i) registrant.Done();
  });
  const double began = Now();
  for (int i = 0; i < static_cast<int>(seconds * rate); ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double>(began + i / rate - Now()));
    const std::lock_guard lock(mutex);
    sent.resize(static_cast<size_t>(i) + 2);
    sent.back() = Now();
    registrant.Send();
  }
  reader.join();
  context.TryCancel();
  watcher.join();
  static_cast<void>(stream->Finish());
  std::printf("{\"seen\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", took.size(),
              Quantile(took, 0.5) * 1e6, Quantile(took, 0.99) * 1e6);
}

// The same records, guarded and nested, as many a transaction as etcd takes, one under way.
void Etcd(const std::string& member, double seconds) {
  directory::etcd::Client client({member});
  record::v1::Registration registration;
  registration.set_session_id(std::string(16, 's'));
  registration.mutable_endpoint()->set_url("amqp://127.0.0.1:20000");
  registration.set_op_id(std::string(8, 'o'));
  registration.set_peer("127.0.0.1:40000");
  const std::string value = registration.SerializeAsString();
  const directory::etcd::NodeKeys keys{"bench", "run"};
  for (const auto& [key, text] : {std::pair{keys.Run(), keys.incarnation},
                                  std::pair{std::string("datawire/s/bench"), value}}) {
    directory::etcd::api::TxnRequest join;
    auto* const put = join.add_success()->mutable_request_put();
    put->set_key(key);
    put->set_value(text);
    Check(client.Txn(0, join, std::chrono::seconds(5)).ok(), "etcd does not take a put");
  }
  uint64_t done = 0, number = 0, key = 0;
  const double began = Now();
  while (Now() < began + seconds) {
    directory::etcd::Transaction transaction(128);
    while (true) {
      directory::Op op;
      op.guards.push_back({directory::Guard::kExists, "s/bench"});
      op.guards.push_back({directory::Guard::kExists, "n/bench"});
      op.changes.push_back({false, "d/write.example.com/" + std::to_string(key % 1500), value});
      if (!transaction.Fits(op)) break;
      transaction.Add(op);
      ++key;
    }
    auto request = transaction.Build(keys, std::nullopt);
    auto* const put = request.add_success()->mutable_request_put();
    put->set_key(keys.Slot());
    put->set_value(keys.SlotValue(++number));
    const auto response = client.Txn(0, request, std::chrono::seconds(5));
    Check(response.ok() && response->succeeded(), "a transaction failed");
    done += transaction.ops();
  }
  std::printf("{\"rate\": %.1f}\n", static_cast<double>(done) / (Now() - began));
}

}  // namespace

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "register" && argc == 5)
    Register(Split(argv[2]), std::atof(argv[3]), std::atoi(argv[4]));
  else if (what == "visible" && argc == 6)
    Visible(argv[2], argv[3], std::atof(argv[4]), std::atof(argv[5]));
  else if (what == "etcd" && argc == 4)
    Etcd(argv[2], std::atof(argv[3]));
  else
    return 2;
  return 0;
}

}  // namespace datawire::bench

int main(int argc, char** argv) {
  return datawire::bench::Main(argc, argv);
}
