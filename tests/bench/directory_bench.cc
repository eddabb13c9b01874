// The directory over gRPC: resolve, subscribe, register, change to subscriber. Server on core 0,
// this on core 1. Figures that count are ratios to the reference in the same run
// (tests/bench/README.md). `directory_bench HOST:PORT ...` measures one that runs.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "child.h"
#include "datawire/clock.h"
#include "datawire/directory/v1/directory.grpc.pb.h"

namespace datawire::bench {
namespace {

namespace pb = ::datawire::directory::v1;

constexpr int kNames = 10'000;

std::string directory_address, echo_address, data_folder;

double Now() {
  return std::chrono::duration<double>(BootClock::now().time_since_epoch()).count();
}

std::string Name(int i) {
  char text[64];
  std::snprintf(text, sizeof text, "//bench.example.com/service/%06d", i % kNames);
  return text;
}

std::unique_ptr<pb::Directory::Stub> Connect(const std::string& address) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetMaxReceiveMessageSize(-1);
  const auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
  channel->WaitForConnected(
      gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_seconds(10, GPR_TIMESPAN)));
  return pb::Directory::NewStub(channel);
}

void Check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "benchmark: %s\n", what);
  std::exit(1);
}

void Fill() {
  const auto stub = Connect(directory_address);
  for (int i = 0; i < kNames;) {
    pb::RegisterRequest request;
    for (int n = 0; n < 50 && i < kNames; ++n, ++i) {
      auto* registration = request.add_registrations();
      registration->set_address(Name(i));
      registration->mutable_endpoint()->set_url("amqp://127.0.0.1:" + std::to_string(10000 + i));
    }
    grpc::ClientContext context;
    pb::RegisterResponse response;
    const auto status = stub->Register(&context, request, &response);
    Check(status.ok(), status.error_message().c_str());
  }
}

// `in_flight` calls at a time on one connection until `left` is used up.
class Caller {
 public:
  Caller(pb::Directory::Stub& stub, int names) : stub_(stub), names_(names) {}

  void Run(int in_flight, int calls) {
    left_ = calls;
    running_ = in_flight;
    std::vector<std::unique_ptr<Slot>> slots;
    for (int i = 0; i < in_flight; ++i) {
      slots.push_back(std::make_unique<Slot>());
      Next(*slots.back());
    }
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  struct Slot {
    std::unique_ptr<grpc::ClientContext> context;
    pb::ResolveRequest request;
    pb::ResolveResponse response;
  };

  void Next(Slot& slot) {
    if (left_.fetch_sub(1) <= 0) {
      std::lock_guard lock(mutex_);
      if (--running_ == 0) done_.notify_all();
      return;
    }
    slot.context = std::make_unique<grpc::ClientContext>();
    slot.request.Clear();
    for (int i = 0; i < names_; ++i) slot.request.add_addresses(Name(next_++));
    stub_.async()->Resolve(slot.context.get(), &slot.request, &slot.response,
                           [this, &slot](const grpc::Status& status) {
                             Check(status.ok() && slot.response.answers_size() == names_ &&
                                       slot.response.answers(0).row().endpoints_size() == 1,
                                   "a resolve failed");
                             Next(slot);
                           });
  }

  pb::Directory::Stub& stub_;
  const int names_;
  std::atomic<int> left_{0}, next_{0};
  std::mutex mutex_;
  std::condition_variable done_;
  int running_ = 0;
};

void ResolveMany(benchmark::State& state, const std::string& address, int names) {
  const auto stub = Connect(address);
  Caller caller(*stub, names);
  const int calls = names == 1 ? 4000 : 400;
  for (auto _ : state) caller.Run(64, calls);
  state.SetItemsProcessed(state.iterations() * calls * names);
}

void ResolveOne(benchmark::State& state, const std::string& address) {
  const auto stub = Connect(address);
  std::vector<double> took;
  int next = 0;
  for (auto _ : state) {
    grpc::ClientContext context;
    pb::ResolveRequest request;
    request.add_addresses(Name(next++));
    pb::ResolveResponse response;
    const double start = Now();
    Check(stub->Resolve(&context, request, &response).ok(), "a resolve failed");
    took.push_back(Now() - start);
  }
  state.counters["p50_us"] = MedianMicros(took);
}

// Misses of one resolver: names added to one Subscribe stream, 64 a message, 512 outstanding.
void SubscribeNames(benchmark::State& state) {
  const auto stub = Connect(directory_address);
  for (auto _ : state) {
    grpc::ClientContext context;
    const auto stream = stub->Subscribe(&context);
    int asked = 0, answered = 0;
    pb::SubscribeResponse response;
    while (answered < kNames) {
      while (asked < kNames && asked - answered <= 448) {
        pb::SubscribeRequest request;
        for (int i = 0; i < 64 && asked < kNames; ++i)
          request.add_add()->set_address(Name(asked++));
        Check(stream->Write(request), "a subscription failed");
      }
      Check(stream->Read(&response), "the stream ended");
      answered += response.answers_size();
    }
    stream->WritesDone();
    context.TryCancel();
    (void)stream->Finish();
  }
  state.SetItemsProcessed(state.iterations() * kNames);
}

// Registrations of one session, each acknowledged after a synced write.
void Register(benchmark::State& state) {
  const int in_flight = static_cast<int>(state.range(0));
  const auto stub = Connect(directory_address);
  grpc::ClientContext context;
  const auto stream = stub->Tether(&context);
  pb::TetherRequest request;
  request.mutable_hello()->set_program("bench");
  pb::TetherResponse response;
  Check(stream->Write(request) && stream->Read(&response) && response.has_welcome(), "no welcome");
  uint64_t op = 0;
  std::vector<double> started(1 << 20), took;
  const auto send = [&] {
    auto* registration = request.mutable_register_();
    registration->Clear();
    registration->set_op_id(++op);
    auto* r = registration->add_registrations();
    r->set_address("//write.example.com/" + std::to_string(op % 500));
    r->mutable_endpoint()->set_url("amqp://127.0.0.1:20000");
    r->mutable_endpoint()->set_priority(op / 500 % 1000);  // a change each time
    started[op % started.size()] = Now();
    Check(stream->Write(request), "a register was not written");
  };
  int outstanding = 0;
  for (auto _ : state) {
    for (; outstanding < in_flight; ++outstanding) send();
    do Check(stream->Read(&response), "the tether ended");
    while (!response.has_done());
    Check(!response.done().has_refusal(), response.done().refusal().message().c_str());
    took.push_back(Now() - started[response.done().op_id() % started.size()]);
    --outstanding;
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["p50_us"] = MedianMicros(took);
  request.mutable_bye();
  stream->Write(request);
  context.TryCancel();
  (void)stream->Finish();
}

void Fdatasync(benchmark::State& state) {
  const std::string path = data_folder + "/sync";
  const int file = ::open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  const std::string record(200, 'x');
  std::vector<double> took;
  for (auto _ : state) {
    const double start = Now();
    Check(::write(file, record.data(), record.size()) == 200 && ::fdatasync(file) == 0, "no sync");
    took.push_back(Now() - start);
  }
  ::close(file);
  state.counters["p50_us"] = MedianMicros(took);
}

// One of many subscribers of one address.
class Listener final : public grpc::ClientBidiReactor<pb::SubscribeRequest, pb::SubscribeResponse> {
 public:
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<double> arrivals;
    int open = 0;
    uint32_t priority = 0;  // of the change that is awaited
  };
  Listener(pb::Directory::Stub& stub, Shared& shared) : shared_(shared) {
    request_.add_add()->set_address("//change.example.com/x");
    stub.async()->Subscribe(&context_, this);
    StartWrite(&request_);
    StartRead(&response_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      std::lock_guard lock(shared_.mutex);
      for (const auto& answer : response_.answers())
        if (answer.row().endpoints_size() == 1 &&
            answer.row().endpoints(0).priority() == shared_.priority)
          shared_.arrivals.push_back(Now());
    }
    shared_.changed.notify_all();
    StartRead(&response_);
  }
  void OnDone(const grpc::Status&) override {
    std::lock_guard lock(shared_.mutex);
    --shared_.open;
    shared_.changed.notify_all();
  }
  void Cancel() { context_.TryCancel(); }

 private:
  Shared& shared_;
  grpc::ClientContext context_;
  pb::SubscribeRequest request_;
  pb::SubscribeResponse response_;
};

void ChangeToSubscribers(benchmark::State& state) {
  const size_t count = static_cast<size_t>(state.range(0));
  const auto writer = Connect(directory_address);
  const auto change = [&](uint32_t priority) {
    pb::RegisterRequest request;
    auto* r = request.add_registrations();
    r->set_address("//change.example.com/x");
    r->mutable_endpoint()->set_url("amqp://127.0.0.1:20000");
    r->mutable_endpoint()->set_priority(priority);
    grpc::ClientContext context;
    pb::RegisterResponse response;
    Check(writer->Register(&context, request, &response).ok(), "a change failed");
  };
  static uint32_t priority = 1;
  Listener::Shared shared;
  shared.priority = ++priority;
  change(priority);
  std::vector<std::unique_ptr<pb::Directory::Stub>> stubs;
  std::vector<std::unique_ptr<Listener>> listeners;
  const auto all_arrived = [&] {
    std::unique_lock lock(shared.mutex);
    Check(shared.changed.wait_for(lock, std::chrono::seconds(30),
                                  [&] { return shared.arrivals.size() >= count; }),
          "a change did not arrive");
  };
  for (size_t i = 0; i < count; ++i) {
    if (i % 50 == 0) stubs.push_back(Connect(directory_address));
    shared.open += 1;
    listeners.push_back(std::make_unique<Listener>(*stubs.back(), shared));
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // streams are let in at a pace
  }
  all_arrived();
  std::vector<double> took;
  for (auto _ : state) {
    {
      std::lock_guard lock(shared.mutex);
      shared.arrivals.clear();
      shared.priority = ++priority;
    }
    const double start = Now();
    change(priority);
    all_arrived();
    std::lock_guard lock(shared.mutex);
    for (const double at : shared.arrivals) took.push_back(at - start);
  }
  state.counters["p50_us"] = MedianMicros(took);
  for (auto& listener : listeners) listener->Cancel();
  std::unique_lock lock(shared.mutex);
  shared.changed.wait(lock, [&] { return shared.open == 0; });
}

}  // namespace

int Main(int argc, char** argv) {
  data_folder = std::filesystem::absolute("bench-data-" + std::to_string(::getpid()));
  std::filesystem::create_directories(data_folder);
  {
    const Child echo("datawire-bench-echo");
    std::optional<Child> own;
    if (argc > 1 && argv[1][0] != '-') {
      directory_address = argv[1];
      std::copy(argv + 2, argv + argc + 1, argv + 1);
      --argc;
    } else {
      own.emplace("datawire-directory",
                  std::vector<std::string>{"--data", data_folder + "/directory", "--init",
                                           "--node-id", "n1", "--listen", "127.0.0.1:0",
                                           "--http-listen", "127.0.0.1:0"});
      directory_address = own->address();
    }
    PinSelf();
    echo_address = echo.address();
    Fill();
    using benchmark::RegisterBenchmark;
    RegisterBenchmark("ResolveUnary64/echo", [](auto& s) {
      ResolveMany(s, echo_address, 1);
    })->UseRealTime();
    RegisterBenchmark("ResolveUnary64/directory", [](auto& s) {
      ResolveMany(s, directory_address, 1);
    })->UseRealTime();
    RegisterBenchmark("ResolveOne/echo", [](auto& s) {
      ResolveOne(s, echo_address);
    })->UseRealTime();
    RegisterBenchmark("ResolveOne/directory", [](auto& s) {
      ResolveOne(s, directory_address);
    })->UseRealTime();
    RegisterBenchmark("ResolveBatch64/echo", [](auto& s) {
      ResolveMany(s, echo_address, 64);
    })->UseRealTime();
    RegisterBenchmark("ResolveBatch64/directory", [](auto& s) {
      ResolveMany(s, directory_address, 64);
    })->UseRealTime();
    RegisterBenchmark("SubscribeNames", SubscribeNames)->UseRealTime();
    RegisterBenchmark("Fdatasync", Fdatasync)->UseRealTime();
    RegisterBenchmark("Register", Register)->Arg(1)->Arg(16)->Arg(64)->UseRealTime();
    RegisterBenchmark("ChangeToSubscribers", ChangeToSubscribers)
        ->Arg(1)
        ->Arg(100)
        ->Arg(1000)
        ->UseRealTime();
    benchmark::Initialize(&argc, argv);
    if (!benchmark::ReportUnrecognizedArguments(argc, argv)) benchmark::RunSpecifiedBenchmarks();
  }
  std::filesystem::remove_all(data_folder);
  return 0;
}

}  // namespace datawire::bench

int main(int argc, char** argv) {
  return datawire::bench::Main(argc, argv);
}
