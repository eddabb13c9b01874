// Direct links against raw Proton C++ (its container on both ends), at least once: rate at 100
// bytes and 1 KiB, request/response, connect to first accepted message. Receiving end on core 0,
// this on core 1. `inline`: the service's handler runs where the messages come in, and the
// requester goes on in its callback, as both do in the raw program; else each has a thread of its
// own.
#include <benchmark/benchmark.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <proton/connection.hpp>
#include <proton/container.hpp>
#include <proton/delivery.hpp>
#include <proton/message_id.hpp>
#include <proton/messaging_handler.hpp>
#include <proton/receiver_options.hpp>
#include <proton/sender.hpp>
#include <proton/source.hpp>
#include <proton/source_options.hpp>
#include <proton/tracker.hpp>

#include "child.h"
#include "datawire/client.h"
#include "datawire/clock.h"
#include "datawire/directory/v1/directory.grpc.pb.h"

namespace datawire::bench {
namespace {

namespace pb = ::datawire::directory::v1;

constexpr int kMessages = 20'000;
constexpr int kRequests = 1'000;
std::string directory_address;
std::map<int, std::string> raw_address;  // by credit

double Now() {
  return std::chrono::duration<double>(BootClock::now().time_since_epoch()).count();
}

void Check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "benchmark: %s\n", what);
  std::exit(1);
}

proton::message Message(int64_t bytes = 100) {
  return proton::message(std::string(static_cast<size_t>(bytes), 'x'));
}
std::string Peer(int credit, bool inline_handler = false) {
  return (inline_handler ? "//bench/inline/" : "//bench/peer/") + std::to_string(credit);
}

// Sends kMessages, or connects and sends one; then closes.
class RawSender final : public proton::messaging_handler {
 public:
  RawSender(std::string url, int messages, int64_t bytes = 100)
      : url_(std::move(url)), messages_(messages), message_(Message(bytes)) {}
  void on_container_start(proton::container& container) override {
    container.open_sender(url_ + "/x");
  }
  void on_sendable(proton::sender& sender) override {
    if (started == 0) started = Now();
    while (sent_ < messages_ && sender.credit() > 0) {
      ++sent_;
      sender.send(message_);
    }
  }
  void on_tracker_accept(proton::tracker& tracker) override {
    if (++accepted_ < messages_) return;
    finished = Now();
    tracker.connection().close();
  }
  double started = 0, finished = 0;

 private:
  const std::string url_;
  const int messages_;
  const proton::message message_;
  int sent_ = 0, accepted_ = 0;
};

class RawRequester final : public proton::messaging_handler {
 public:
  explicit RawRequester(std::string url) : url_(std::move(url)) {}
  void on_container_start(proton::container& container) override {
    sender_ = container.open_sender(url_ + "/x");
    sender_.connection().open_receiver(
        "", proton::receiver_options().source(proton::source_options().dynamic(true)));
  }
  void on_receiver_open(proton::receiver& receiver) override {
    reply_to_ = receiver.source().address();
    Send();
  }
  void on_message(proton::delivery& delivery, proton::message&) override {
    took.push_back(Now() - at_);
    if (took.size() == kRequests)
      delivery.connection().close();
    else
      Send();
  }
  std::vector<double> took;

 private:
  void Send() {
    proton::message message = Message();
    message.reply_to(reply_to_);
    message.id(static_cast<uint64_t>(took.size()));
    at_ = Now();
    sender_.send(message);
  }
  const std::string url_;
  std::string reply_to_;
  proton::sender sender_;
  double at_ = 0;
};

void RateRaw(benchmark::State& state) {
  for (auto _ : state) {
    RawSender sender("amqp://" + raw_address.at(static_cast<int>(state.range(0))), kMessages,
                     state.range(1));
    proton::container(sender).run();
    Check(sender.finished > 0, "the raw sender did not finish");
    state.SetIterationTime(sender.finished - sender.started);
  }
  state.SetItemsProcessed(state.iterations() * kMessages);
}

ClientOptions Options() {
  ClientOptions options;
  options.resolver.directory = {directory_address};
  return options;
}

void RateDirect(benchmark::State& state, bool inline_handler) {
  const int credit = static_cast<int>(state.range(0));
  Client client(Options());
  auto sender = client.OpenSender(Peer(credit, inline_handler));
  Check(sender.ok(), "no sender");
  const proton::message message = Message(state.range(1));
  for (auto _ : state) {
    std::atomic<int> left{kMessages};
    std::mutex mutex;
    std::condition_variable done;
    const double start = Now();
    for (int i = 0; i < kMessages; ++i) {
      (*sender)->Send(message, {.done = [&](const DeliveryOutcome& outcome) {
                        Check(outcome.end == DeliveryEnd::kAccepted, "a message was not accepted");
                        if (left.fetch_sub(1) > 1) return;
                        std::lock_guard lock(mutex);
                        done.notify_all();
                      }});
    }
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return left == 0; });
    state.SetIterationTime(Now() - start);
  }
  state.SetItemsProcessed(state.iterations() * kMessages);
}

void RequestRaw(benchmark::State& state) {
  std::vector<double> took;
  for (auto _ : state) {
    RawRequester requester("amqp://" + raw_address.at(100));
    proton::container(requester).run();
    took.insert(took.end(), requester.took.begin(), requester.took.end());
  }
  state.counters["p50_us"] = MedianMicros(took);
}

void RequestDirect(benchmark::State& state) {
  Client client(Options());
  std::vector<double> took;
  const proton::message message = Message();
  for (auto _ : state) {
    for (int i = 0; i < kRequests; ++i) {
      const double start = Now();
      Check(client.Request(Peer(100), message, std::chrono::seconds(5)).ok(), "a request failed");
      took.push_back(Now() - start);
    }
  }
  state.counters["p50_us"] = MedianMicros(took);
}

// Each goes out when the reply to the former has come, from its callback.
class Asker {
 public:
  explicit Asker(Client& client) : client_(client) {}
  std::vector<double> Run() {
    Ask();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return took_.size() == kRequests; });
    return std::move(took_);
  }

 private:
  void Ask() {
    at_ = Now();
    client_.Request(Peer(100, true), message_, std::chrono::seconds(5),
                    [this](const Result<proton::message>& reply) {
                      Check(reply.ok(), "a request failed");
                      const double took = Now() - at_;
                      {
                        const std::lock_guard lock(mutex_);
                        took_.push_back(took);
                        if (took_.size() == kRequests) return done_.notify_all();
                      }
                      Ask();
                    });
  }

  Client& client_;
  const proton::message message_ = Message();
  std::atomic<double> at_ = 0;
  std::mutex mutex_;
  std::condition_variable done_;
  std::vector<double> took_;  // guarded by mutex_
};

void RequestInline(benchmark::State& state) {
  Client client(Options());
  std::vector<double> took;
  for (auto _ : state) {
    const std::vector<double> more = Asker(client).Run();
    took.insert(took.end(), more.begin(), more.end());
  }
  state.counters["p50_us"] = MedianMicros(took);
}

// A new connection and its first accepted message; cold: the client and its resolver are new, too.
void FirstMessageRaw(benchmark::State& state) {
  std::vector<double> took;
  for (auto _ : state) {
    const double start = Now();
    RawSender sender("amqp://" + raw_address.at(100), 1);
    proton::container(sender).run();
    took.push_back(sender.finished - start);
  }
  state.counters["p50_us"] = MedianMicros(took);
}

void FirstMessageDirect(benchmark::State& state) {
  std::vector<double> took;
  for (auto _ : state) {
    Client client(Options());
    if (state.range(0) == 1) {  // a process that runs already, and has the answer in its cache
      client.resolver().Resolve(*Address::Parse(Peer(100)));
      auto other = client.OpenSender(Peer(1000));
      Check(other.ok(), "no sender");
      Check((*other)->Send(Message()).Wait().end == DeliveryEnd::kAccepted, "a message got lost");
    }
    const double start = Now();
    auto sender = client.OpenSender(Peer(100));
    Check(sender.ok(), "no sender");
    Delivery delivery = (*sender)->Send(Message());
    Check(delivery.Wait().end == DeliveryEnd::kAccepted, "a message was not accepted");
    took.push_back(Now() - start);
  }
  state.counters["p50_us"] = MedianMicros(took);
}

void RegisterPeers(const std::map<std::string, std::string>& peers) {
  const auto stub = pb::Directory::NewStub(
      grpc::CreateChannel(directory_address, grpc::InsecureChannelCredentials()));
  pb::RegisterRequest request;
  for (const auto& [peer, address] : peers) {
    auto* r = request.add_registrations();
    r->set_address(peer);
    r->mutable_endpoint()->set_url("amqp://" + address + "///bench/peer");
  }
  grpc::ClientContext context;
  pb::RegisterResponse response;
  const auto status = stub->Register(&context, request, &response);
  Check(status.ok(), status.error_message().c_str());
}

}  // namespace

int Main(int argc, char** argv) {
  const std::string data = std::filesystem::absolute("bench-data-" + std::to_string(::getpid()));
  {
    const Child raw100("datawire-bench-peer", {"raw", "100"});
    const Child raw1000("datawire-bench-peer", {"raw", "1000"});
    const Child ours100("datawire-bench-peer", {"service", "100"});
    const Child ours1000("datawire-bench-peer", {"service", "1000"});
    const Child inline100("datawire-bench-peer", {"inline", "100"});
    const Child inline1000("datawire-bench-peer", {"inline", "1000"});
    const Child directory("datawire-directory",
                          {"--data", data, "--init", "--node-id", "n1", "--listen", "127.0.0.1:0",
                           "--http-listen", "127.0.0.1:0"});
    PinSelf();
    directory_address = directory.address();
    raw_address = {{100, raw100.address()}, {1000, raw1000.address()}};
    RegisterPeers({{Peer(100), ours100.address()},
                   {Peer(1000), ours1000.address()},
                   {Peer(100, true), inline100.address()},
                   {Peer(1000, true), inline1000.address()}});
    using benchmark::RegisterBenchmark;
    const std::vector<std::vector<int64_t>> credit_and_bytes = {{100, 1000}, {100, 1024}};
    RegisterBenchmark("Rate/raw", RateRaw)->ArgsProduct(credit_and_bytes)->UseManualTime();
    RegisterBenchmark("Rate/direct", RateDirect, false)
        ->ArgsProduct(credit_and_bytes)
        ->UseManualTime();
    RegisterBenchmark("Rate/inline", RateDirect, true)
        ->ArgsProduct(credit_and_bytes)
        ->UseManualTime();
    RegisterBenchmark("Request/raw", RequestRaw)->UseRealTime();
    RegisterBenchmark("Request/direct", RequestDirect)->UseRealTime();
    RegisterBenchmark("Request/inline", RequestInline)->UseRealTime();
    RegisterBenchmark("FirstMessage/raw", FirstMessageRaw)->UseRealTime();
    RegisterBenchmark("FirstMessage/direct_cold", FirstMessageDirect)->Arg(0)->UseRealTime();
    RegisterBenchmark("FirstMessage/direct_cached", FirstMessageDirect)->Arg(1)->UseRealTime();
    benchmark::Initialize(&argc, argv);
    if (!benchmark::ReportUnrecognizedArguments(argc, argv)) benchmark::RunSpecifiedBenchmarks();
  }
  std::filesystem::remove_all(data);
  return 0;
}

}  // namespace datawire::bench

int main(int argc, char** argv) {
  return datawire::bench::Main(argc, argv);
}
