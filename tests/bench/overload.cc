#include "overload.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "datawire/clock.h"
#include "datawire/directory/v1/directory.grpc.pb.h"

namespace datawire::bench {
namespace {

namespace pb = ::datawire::directory::v1;
using namespace std::chrono_literals;

constexpr int kNames = 256;  // of one call
constexpr int kConnections = 2,
              kBusy = 8;  // callers a connection at the peak: twice what is served
constexpr int kTimes = 1;
constexpr int kStreams = 100;  // under overload: all that a connection may open
constexpr auto kDeadline = 1s;
constexpr int kSessions = 200;

void Check(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "overload: %s\n", what.c_str());
  std::exit(1);
}

double Seconds(BootClock::duration time) {
  return std::chrono::duration<double>(time).count();
}

double Percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  const auto at = static_cast<size_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(at), values.end());
  return values[at];
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetMaxReceiveMessageSize(-1);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
  Check(channel->WaitForConnected(
            gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_seconds(10, GPR_TIMESPAN))),
        "no connection to " + address);
  return channel;
}

std::string Name(int i) {
  return "//overload.example.com/" + std::to_string(i);
}

void Fill(const std::string& address) {
  const auto stub = pb::Directory::NewStub(Connect(address));
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
    Check(status.ok(), status.error_message());
  }
}

/// Callers who ask again as soon as they have an answer, or none.
class Crowd {
 public:
  Crowd(const std::string& address, int connections, int callers) {
    pb::ResolveRequest request;
    for (int i = 0; i < kNames; ++i) request.add_addresses(Name(i));
    const grpc::Slice bytes(request.SerializeAsString());
    request_ = grpc::ByteBuffer(&bytes, 1);
    for (int i = 0; i < connections; ++i)
      stubs_.push_back(std::make_unique<grpc::GenericStub>(Connect(address)));
    running_ = connections * callers;
    for (int i = 0; i < running_; ++i) {
      calls_.push_back(std::make_unique<Call>());
      Next(*calls_.back(), *stubs_[i % connections]);
    }
  }
  ~Crowd() {
    stop_ = true;
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return running_ == 0; });
  }

  /// Names resolved and calls refused, a second, over `span`.
  std::pair<double, double> Count(std::chrono::seconds span) {
    const BootTime start = BootClock::now();
    const int64_t good = good_, bad = bad_;
    std::this_thread::sleep_for(span);
    const double took = Seconds(BootClock::now() - start);
    return {static_cast<double>(good_ - good) * kNames / took,
            static_cast<double>(bad_ - bad) / took};
  }

 private:
  struct Call {
    std::unique_ptr<grpc::ClientContext> context;
    grpc::ByteBuffer response;
  };
  void Next(Call& call, grpc::GenericStub& stub) {
    call.context = std::make_unique<grpc::ClientContext>();
    call.context->set_deadline(gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC),
        gpr_time_from_millis(std::chrono::milliseconds(kDeadline).count(), GPR_TIMESPAN)));
    stub.UnaryCall(call.context.get(), "/datawire.directory.v1.Directory/Resolve", {}, &request_,
                   &call.response, [this, &call, &stub](const grpc::Status& status) {
                     ++(status.ok() ? good_ : bad_);
                     if (!stop_) return Next(call, stub);
                     const std::lock_guard lock(mutex_);
                     if (--running_ == 0) ended_.notify_all();
                   });
  }

  grpc::ByteBuffer request_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::atomic<int64_t> good_{0}, bad_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  int running_ = 0;
};

/// A session that sends a heartbeat a second, if its last one was answered.
class Beating final : public grpc::ClientBidiReactor<pb::TetherRequest, pb::TetherResponse> {
 public:
  explicit Beating(pb::Directory::Stub& stub) {
    request_.mutable_hello()->set_program("overload");
    request_.mutable_hello()->set_ttl_ms(3000);
    stub.async()->Tether(&context_, this);
    StartWrite(&request_);
    StartRead(&response_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      if (!ok || response_.has_ended()) return;
      if (response_.has_heartbeat() && sent_ != BootTime{}) {
        took_.push_back(Seconds(BootClock::now() - sent_));
      }
      idle_ = true;
    }
    StartRead(&response_);
  }
  void OnDone(const grpc::Status&) override {
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }
  void Beat() {
    {
      const std::lock_guard lock(mutex_);
      if (over_ || !std::exchange(idle_, false)) return;
      request_.mutable_heartbeat()->set_number(++number_);
      sent_ = BootClock::now();
    }
    StartWrite(&request_);
  }
  /// True if it lived until now. Ends it.
  bool End(std::vector<double>* took) {
    std::unique_lock lock(mutex_);
    const bool alive = !over_ && number_ > 0;
    lock.unlock();
    context_.TryCancel();
    lock.lock();
    changed_.wait(lock, [this] { return over_; });
    took->insert(took->end(), took_.begin(), took_.end());
    return alive;
  }

 private:
  grpc::ClientContext context_;
  pb::TetherRequest request_;
  pb::TetherResponse response_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool idle_ = false, over_ = false;
  uint64_t number_ = 0;
  BootTime sent_{};
  std::vector<double> took_;
};

/// A session that registers, `in_flight` at a time, each again once it is answered.
class Registering final : public grpc::ClientBidiReactor<pb::TetherRequest, pb::TetherResponse> {
 public:
  Registering(pb::Directory::Stub& stub, int number, int in_flight, std::atomic<int64_t>& good)
      : number_(number), waiting_(in_flight), good_(good) {
    request_.mutable_hello()->set_program("overload");
    stub.async()->Tether(&context_, this);
    StartWrite(&request_);
    StartRead(&response_);
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (ok) Write();
  }
  void OnReadDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    if (!ok) return;
    if (response_.has_welcome()) welcomed_ = true;
    if (response_.has_done()) {
      if (response_.done().has_revision()) ++good_;
      ++waiting_;
    }
    Write();
    StartRead(&response_);
  }
  void OnDone(const grpc::Status&) override { over_.set_value(); }
  void End() {
    context_.TryCancel();
    over_.get_future().wait();
  }

 private:
  void Write() {
    if (writing_ || !welcomed_ || waiting_ == 0) return;
    --waiting_;
    writing_ = true;
    auto* registration = request_.mutable_register_();
    registration->Clear();
    registration->set_op_id(++op_);
    auto* r = registration->add_registrations();
    r->set_address("//overload.example.com/" + std::to_string(number_) + "/" +
                   std::to_string(op_ % 300));
    r->mutable_endpoint()->set_url("amqp://127.0.0.1:20000");
    r->mutable_endpoint()->set_priority(op_ / 300 % 1000);  // a change each time
    StartWrite(&request_);
  }

  grpc::ClientContext context_;
  pb::TetherRequest request_;
  pb::TetherResponse response_;
  std::mutex mutex_;
  const int number_;
  int waiting_;
  std::atomic<int64_t>& good_;
  bool writing_ = false, welcomed_ = false;
  uint64_t op_ = 0;
  std::promise<void> over_;
};

/// Calls `each` again and again on a thread of its own, `pause` between, while it lives.
class Repeating {
 public:
  Repeating(std::function<void()> each, std::chrono::milliseconds pause)
      : thread_([this, each = std::move(each), pause] {
          std::unique_lock lock(mutex_);
          while (!stop_.wait_for(lock, pause, [this] { return stopping_; })) {
            lock.unlock();
            each();
            lock.lock();
          }
        }) {}
  ~Repeating() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    stop_.notify_one();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread thread_;
};

double ResolveOne(pb::Directory::Stub& stub) {
  grpc::ClientContext context;
  context.set_deadline(
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(10, GPR_TIMESPAN)));
  pb::ResolveRequest request;
  request.add_addresses(Name(0));
  pb::ResolveResponse response;
  const BootTime start = BootClock::now();
  const auto status = stub.Resolve(&context, request, &response);
  Check(status.ok(), "somebody else's resolve failed: " + status.error_message());
  return Seconds(BootClock::now() - start);
}

struct Watched {
  std::pair<double, double> rates;
  double resolve_p99;
};

/// What a crowd gets, and somebody else beside it.
Watched Watch(Crowd& crowd, pb::Directory::Stub& other, std::chrono::seconds span) {
  std::vector<double> took;
  std::pair<double, double> rates;
  {
    const Repeating resolve([&] { took.push_back(ResolveOne(other)); }, 5ms);
    rates = crowd.Count(span);
  }
  return {rates, Percentile(took, 0.99)};
}

double RegistrationsPerSecond(const std::string& address, int sessions, int in_flight,
                              std::chrono::seconds span) {
  std::atomic<int64_t> good{0};
  std::vector<std::unique_ptr<pb::Directory::Stub>> stubs;
  std::vector<std::unique_ptr<Registering>> registering;
  for (int i = 0; i < sessions; ++i) {
    if (i % 10 == 0) stubs.push_back(pb::Directory::NewStub(Connect(address)));
    registering.push_back(std::make_unique<Registering>(*stubs.back(), i, in_flight, good));
  }
  std::this_thread::sleep_for(1s);
  const BootTime start = BootClock::now();
  const int64_t before = good;
  std::this_thread::sleep_for(span);
  const double rate = static_cast<double>(good - before) / Seconds(BootClock::now() - start);
  for (const auto& one : registering) one->End();
  return rate;
}

}  // namespace

double RegistersOfPeak(const std::string& address, std::chrono::seconds span) {
  constexpr int kSessions = 10, kInFlight = 6;
  const double peak = RegistrationsPerSecond(address, kSessions, kInFlight, span);
  return RegistrationsPerSecond(address, kSessions * 10, kInFlight * 10, span) / peak;
}

Overload MeasureOverload(const std::string& address, std::chrono::seconds span) {
  Overload out;
  Fill(address);
  const auto other = pb::Directory::NewStub(Connect(address));
  std::vector<double> quiet;
  for (int i = 0; i < 200; ++i) quiet.push_back(ResolveOne(*other));
  {
    Crowd crowd(address, kConnections, kBusy);
    crowd.Count(1s);
    const Watched watched = Watch(crowd, *other, span);
    out.peak = watched.rates.first;
    out.resolve_p99_peak = watched.resolve_p99;
  }
  std::vector<std::unique_ptr<pb::Directory::Stub>> stubs;
  std::vector<std::unique_ptr<Beating>> sessions;
  for (int i = 0; i < kSessions; ++i) {
    if (i % 50 == 0) stubs.push_back(pb::Directory::NewStub(Connect(address)));
    sessions.push_back(std::make_unique<Beating>(*stubs.back()));
  }
  std::vector<double> beats;
  {
    size_t next = 0;
    const Repeating beating(
        [&] {  // each of them once a second
          for (int i = 0; i < kSessions / 50; ++i) sessions[next++ % kSessions]->Beat();
        },
        20ms);
    {
      Crowd crowd(address, kConnections, kStreams);
      crowd.Count(1s);
      const Watched watched = Watch(crowd, *other, span);
      std::tie(out.good, out.refused) = watched.rates;
      out.resolve_p99 = watched.resolve_p99;
    }
    const BootTime fell = BootClock::now();
    std::vector<double> after;
    do {
      after.clear();
      for (int i = 0; i < 50; ++i) after.push_back(ResolveOne(*other));
    } while (Percentile(after, 0.5) > 2 * Percentile(quiet, 0.5) && BootClock::now() < fell + 60s);
    out.recovery = Seconds(BootClock::now() - fell);
  }
  for (const auto& session : sessions) out.sessions_lost += session->End(&beats) ? 0 : 1;
  out.heartbeat_p99 = Percentile(beats, 0.99);
  return out;
}

}  // namespace datawire::bench
