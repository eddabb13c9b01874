#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <future>
#include <map>
#include <thread>

#include "core/directory.h"
#include "datawire/limits.h"
#include "datawire/wire.h"
#include "engine/embedded.h"

namespace datawire::directory {

using namespace std::chrono_literals;

/// A stream that remembers that it was woken.
class TestStream final : public Stream {
 public:
  void Wake() override {
    const std::lock_guard lock(mu_);
    ++wakes_;
    woken_.notify_all();
  }
  /// False when nobody woke it after the first `seen` times within 5 s.
  bool Await(int seen) {
    std::unique_lock lock(mu_);
    return woken_.wait_for(lock, 5s, [&] { return wakes_ > seen; });
  }
  int wakes() {
    const std::lock_guard lock(mu_);
    return wakes_;
  }

 private:
  std::mutex mu_;
  std::condition_variable woken_;
  int wakes_ = 0;
};

/// A process at the other end of a tether.
struct TestTether {
  explicit TestTether(Directory& directory, Peer peer = {"127.0.0.1:1000", ""})
      : tether(directory.OpenTether(peer, stream)) {}

  std::optional<pb::TetherResponse> Read() {
    for (;;) {
      const int seen = stream.wakes();
      if (auto response = tether->Next()) return response;
      if (!stream.Await(seen)) return std::nullopt;
    }
  }
  pb::TetherResponse Ask(const pb::TetherRequest& request) {
    tether->OnMessage(request);
    auto response = Read();
    EXPECT_TRUE(response.has_value()) << "no reply to " << request.ShortDebugString();
    return response.value_or(pb::TetherResponse());
  }
  pb::TetherResponse Hello(uint64_t ttl_ms = 0) {
    pb::TetherRequest request;
    request.mutable_hello()->set_ttl_ms(ttl_ms);
    request.mutable_hello()->set_attach_number(1);
    request.mutable_hello()->set_host("host");
    request.mutable_hello()->set_pid(42);
    request.mutable_hello()->set_program("test");
    auto response = Ask(request);
    id = response.welcome().session_id();
    secret = response.welcome().secret();
    return response;
  }
  pb::TetherResponse Resume(const TestTether& former, uint64_t attach_number) {
    pb::TetherRequest request;
    request.mutable_hello()->set_session_id(former.id);
    request.mutable_hello()->set_secret(former.secret);
    request.mutable_hello()->set_attach_number(attach_number);
    id = former.id;
    secret = former.secret;
    return Ask(request);
  }
  static pb::TetherRequest RegisterOf(uint64_t op_id, const std::string& address,
                                      const std::string& url, bool subtree = false) {
    pb::TetherRequest request;
    request.mutable_register_()->set_op_id(op_id);
    Add(&request, address, url, subtree);
    return request;
  }
  static void Add(pb::TetherRequest* request, const std::string& address, const std::string& url,
                  bool subtree = false) {
    auto* registration = request->mutable_register_()->add_registrations();
    registration->set_address(address);
    registration->mutable_endpoint()->set_url(url);
    registration->mutable_endpoint()->set_match(subtree ? pb::MATCH_SUBTREE : pb::MATCH_EXACT);
  }
  pb::TetherResponse Register(uint64_t op_id, const std::string& address, const std::string& url,
                              bool subtree = false) {
    return Ask(RegisterOf(op_id, address, url, subtree));
  }
  pb::TetherResponse Withdraw(uint64_t op_id, const std::string& address, const std::string& url) {
    pb::TetherRequest request;
    request.mutable_withdraw()->set_op_id(op_id);
    auto* withdrawal = request.mutable_withdraw()->add_withdrawals();
    withdrawal->set_address(address);
    withdrawal->set_url(url);
    return Ask(request);
  }
  pb::TetherResponse Heartbeat(uint64_t number = 1) {
    pb::TetherRequest request;
    request.mutable_heartbeat()->set_number(number);
    return Ask(request);
  }
  pb::TetherResponse Bye() {
    pb::TetherRequest request;
    request.mutable_bye();
    return Ask(request);
  }

  TestStream stream;
  std::unique_ptr<Tether> tether;
  std::string id, secret;
};

/// A Subscribe stream whose messages are read as they come.
struct TestSubscriber {
  explicit TestSubscriber(Directory& directory, const Peer& peer = {})
      : subscriber(directory.OpenSubscriber(peer, stream).value()) {}

  void Add(const std::string& address, std::optional<uint64_t> hash = {},
           Revision revision = {1, 1}) {
    pb::SubscribeRequest request;
    auto* held = request.add_add();
    held->set_address(address);
    if (hash) {
      held->set_hash(*hash);
      ToWire(revision, held->mutable_revision());
    }
    EXPECT_TRUE(subscriber->OnRequest(request).ok());
  }
  /// With what the client holds: address and hash.
  void AddSubtree(const std::string& prefix, const std::map<std::string, uint64_t>& held = {}) {
    pb::SubscribeRequest request;
    auto* subtree = request.add_add_subtree();
    subtree->set_prefix(prefix);
    for (const auto& [address, hash] : held) {
      auto* one = subtree->add_held();
      one->set_address(address);
      one->set_hash(hash);
      ToWire(Revision{1, 1}, one->mutable_revision());
    }
    EXPECT_TRUE(subscriber->OnRequest(request).ok());
  }
  /// All that is there now.
  std::vector<pb::SubscribeResponse> Drain() {
    std::vector<pb::SubscribeResponse> out;
    while (auto bytes = subscriber->Next()) {
      EXPECT_LE(bytes->size(), limits::kPushBytes);
      pb::SubscribeResponse response;
      EXPECT_TRUE(response.ParseFromString(*bytes));
      out.push_back(std::move(response));
    }
    return out;
  }
  std::vector<pb::Answer> Answers() {
    std::vector<pb::Answer> out;
    for (const auto& response : Drain())
      out.insert(out.end(), response.answers().begin(), response.answers().end());
    return out;
  }

  /// `//d/a FOUND`, `confirmed //d/b`, `refused //d`, ... of all there is, each in its order.
  std::vector<std::string> Said() {
    std::vector<std::string> out;
    for (const auto& response : Drain()) {
      for (const auto& answer : response.answers())
        out.push_back(answer.address() + " " +
                      pb::AnswerStatus_Name(answer.row().status()).substr(14));
      for (const auto& address : response.confirmed()) out.push_back("confirmed " + address);
      for (const auto& one : response.refused())
        out.push_back((one.subtree() ? "ended " : "refused ") + one.address());
    }
    return out;
  }

  TestStream stream;
  std::unique_ptr<Subscriber> subscriber;
};

/// The verbs over the real engine and view, in a directory of its own, in simulated time.
class DirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = std::filesystem::temp_directory_path() / "datawire-core-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    path_ = path;
    auto view = View::Create(path_ + "/data", {"test", 1});
    ASSERT_TRUE(view.ok()) << view.status().ToString();
    view_ = std::move(*view);
    Start();
  }
  void TearDown() override {
    Stop();
    std::filesystem::remove_all(path_);
  }
  virtual std::unique_ptr<Log> OpenLog() {
    auto log = OpenEmbedded(*view_);
    EXPECT_TRUE(log.ok()) << log.status().ToString();
    return std::move(log).value();
  }
  void Start() {
    log_ = OpenLog();
    auto directory = Directory::Open(*view_, *log_, options_, now_);
    ASSERT_TRUE(directory.ok()) << directory.status().ToString();
    directory_ = std::move(*directory);
  }
  void Stop() {
    directory_.reset();
    if (log_) log_->Stop();
    log_.reset();
    view_.reset();
  }
  /// As a process that ends and begins again `away` later.
  void Restart(BootClock::duration away = 0s, ViewOptions options = {}) {
    Stop();
    now_ += away;
    auto view = View::Open(path_ + "/data", options);
    ASSERT_TRUE(view.ok()) << view.status().ToString();
    view_ = std::move(*view);
    Start();
  }
  /// Keeps the engine from committing while it lives.
  class HeldEngine {
   public:
    explicit HeldEngine(Log& log) {
      log.ReadBarrier(BootClock::now() + 20s, [this](const Result<Revision>&) {
        held_.set_value();
        release_.get_future().wait_for(20s);
        left_.set_value();
      });
      held_.get_future().wait_for(20s);
    }
    ~HeldEngine() {
      release_.set_value();
      left_.get_future().wait_for(20s);
    }

   private:
    std::promise<void> held_, release_, left_;
  };
  /// What was proposed is committed, what follows from it too.
  void Settle() {
    for (int i = 0; i < 3; ++i) {
      std::promise<void> done;
      log_->ReadBarrier(BootClock::now() + 5s, [&done](Result<Revision>) { done.set_value(); });
      done.get_future().wait();
    }
  }
  void Pass(BootClock::duration span) {
    for (const BootTime end = now_ + span; now_ < end;) {
      now_ += 500ms;
      directory_->Tick(now_);
      Settle();
    }
  }
  template <typename T>
  static Result<T> Within5s(std::future<Result<T>> future) {
    if (future.wait_for(5s) != std::future_status::ready)
      return Status(Code::kTimeout, "no result within 5 s");
    return future.get();
  }
  Result<pb::ResolveResponse> ResolveAll(const pb::ResolveRequest& request) {
    auto done = std::make_shared<std::promise<Result<std::string>>>();
    directory_->Resolve(request, [done](Result<std::string> r) { done->set_value(std::move(r)); });
    DW_ASSIGN(const std::string bytes, Within5s(done->get_future()));
    pb::ResolveResponse response;
    if (!response.ParseFromString(bytes)) return Status(Code::kCorrupt, "does not parse");
    return response;
  }
  Answer Resolve(const std::string& address) {
    pb::ResolveRequest request;
    request.add_addresses(address);
    const auto response = ResolveAll(request);
    EXPECT_TRUE(response.ok()) << response.status().ToString();
    auto answer = FromWire(response->answers(0));
    EXPECT_TRUE(answer.ok()) << answer.status().ToString();
    return std::move(answer).value();
  }
  AnswerStatus StatusOf(const std::string& address) { return Resolve(address).status; }
  Result<pb::RegisterResponse> TryRegister(const std::string& address, const std::string& url,
                                           const std::string& op_id = "", bool subtree = false) {
    pb::RegisterRequest request;
    request.set_op_id(op_id);
    auto* registration = request.add_registrations();
    registration->set_address(address);
    registration->mutable_endpoint()->set_url(url);
    registration->mutable_endpoint()->set_match(subtree ? pb::MATCH_SUBTREE : pb::MATCH_EXACT);
    auto done = std::make_shared<std::promise<Result<pb::RegisterResponse>>>();
    directory_->Register(request, {"127.0.0.1:9", ""},
                         [done](auto r) { done->set_value(std::move(r)); });
    return Within5s(done->get_future());
  }
  Result<pb::WithdrawResponse> TryWithdraw(const std::string& address, const std::string& url,
                                           bool sessions_too = false,
                                           const std::string& op_id = "") {
    pb::WithdrawRequest request;
    request.set_op_id(op_id);
    request.set_sessions_too(sessions_too);
    auto* withdrawal = request.add_withdrawals();
    withdrawal->set_address(address);
    withdrawal->set_url(url);
    auto done = std::make_shared<std::promise<Result<pb::WithdrawResponse>>>();
    directory_->Withdraw(request, {"127.0.0.1:9", ""},
                         [done](auto r) { done->set_value(std::move(r)); });
    return Within5s(done->get_future());
  }

  void RegisterStatic(const std::string& address, const std::string& url,
                      const std::string& op_id = "", bool subtree = false) {
    const auto done = TryRegister(address, url, op_id, subtree);
    EXPECT_TRUE(done.ok()) << done.status().ToString();
  }
  void WithdrawStatic(const std::string& address, const std::string& url) {
    const auto done = TryWithdraw(address, url);
    EXPECT_TRUE(done.ok()) << done.status().ToString();
  }

  std::string path_;
  DirectoryOptions options_{.node_id = "node-1", .incarnation = "run", .seed = 7};
  BootTime now_ = BootClock::now();
  std::unique_ptr<View> view_;
  std::unique_ptr<Log> log_;
  std::unique_ptr<Directory> directory_;
};

}  // namespace datawire::directory
