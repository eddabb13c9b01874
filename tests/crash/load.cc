#include "load.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <optional>
#include <random>
#include <thread>

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;
using harness::HistoryOp;
using Keys = std::vector<std::string>;

constexpr auto kAnswer = 30s;  // of whatever is asked; far more than it takes
constexpr int kStatics = 3, kSessions = 2;
constexpr size_t kContended = 4, kCallMost = 5, kSessionKeys = 12;
constexpr char kUrl[] = "amqp://127.0.0.1:5672", kLabel[] = "value";
constexpr uint64_t kTtlMs = 3600 * 1000;

void Fill(const std::string& key, const std::string& value,
          pb::TetherRequest::Registration* registration) {
  registration->set_address(key);
  registration->mutable_endpoint()->set_url(kUrl);
  (*registration->mutable_endpoint()->mutable_labels())[kLabel] = value;
}

/// One thread of the load. The ops it begins are in the history when it has their answers.
class Client {
 public:
  Client(Node& node, LoadState& state, const std::atomic<bool>& stop, std::string name,
         uint64_t seed)
      : node_(node), state_(state), stop_(stop), name_(std::move(name)), random_(seed) {}
  virtual ~Client() = default;
  void Run() {
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    while (!Over()) {
      Step();
      if (std::exchange(refused_, false)) never.wait_for(lock, 2ms);
    }
  }

 protected:
  virtual void Step() = 0;
  bool Over() const { return stop_ || node_.disc().off(); }
  uint64_t Below(uint64_t n) { return random_() % n; }
  std::string NewKey() { return "//" + name_ + "/" + std::to_string(++keys_); }
  std::string NewValue() { return name_ + "." + std::to_string(++values_); }
  Keys NewKeys(size_t count) {
    Keys out;
    while (out.size() < count) out.push_back(NewKey());
    return out;
  }

  std::vector<HistoryOp> Begin(HistoryOp::Kind kind, const Keys& keys,
                               const std::string& value = "") {
    std::vector<HistoryOp> ops;
    const uint64_t now = state_.witness.Now();
    for (const std::string& key : keys) ops.push_back({kind, HistoryOp::kOpen, key, value, now});
    return ops;
  }
  /// As the caller knows it now. True: acknowledged.
  bool End(std::vector<HistoryOp> ops, const Result<Revision>& result) {
    const Code code = result.ok() ? Code::kOk : result.status().code();
    HistoryOp::End end = HistoryOp::kOpen;
    if (code == Code::kOk)
      end = HistoryOp::kOk;
    else if (code == Code::kNotFound && ops[0].kind == HistoryOp::kWithdraw)
      end = HistoryOp::kNone;
    else if (code == Code::kUnavailable || code == Code::kOverloaded)
      end = HistoryOp::kRefused;
    else if (code != Code::kOutcomeUnknown)
      ADD_FAILURE() << ops[0].key << ": " << result.status().ToString();
    refused_ = end == HistoryOp::kRefused || end == HistoryOp::kOpen;
    const uint64_t now = state_.witness.Now();
    for (HistoryOp& op : ops) {
      op.end = end;
      if (end != HistoryOp::kOpen) op.ended = now;
      if (result.ok()) op.at = *result;
    }
    state_.witness.Add(std::move(ops));
    return result.ok();
  }
  void Read(const Keys& keys) {
    std::vector<HistoryOp> ops = Begin(HistoryOp::kRead, keys);
    Revision at;
    const auto values = ReadKeys(node_.directory(), keys, &at);
    if (!values.ok()) {
      ADD_FAILURE() << values.status().ToString();
      return;
    }
    for (size_t i = 0; i < ops.size(); ++i) ops[i].value = (*values)[i];
    End(std::move(ops), at);
  }
  /// All of a call, or nothing of it.
  void ReadACall() {
    Keys keys;
    {
      const std::lock_guard lock(state_.mutex);
      if (state_.calls.empty()) return;
      const size_t late = std::min<size_t>(state_.calls.size(), 8);
      keys = state_.calls[state_.calls.size() - 1 - Below(late)];
    }
    Revision at;
    const auto values = ReadKeys(node_.directory(), keys, &at);
    if (!values.ok()) return;
    for (const std::string& value : *values) {
      if (value.empty() == values->front().empty()) continue;
      const std::lock_guard lock(state_.mutex);
      state_.torn.push_back(keys.front());
      return;
    }
  }
  void BeginCall(const Keys& keys) {
    const std::lock_guard lock(state_.mutex);
    if (keys.size() > 1) state_.calls.push_back(keys);
  }

  Node& node_;
  LoadState& state_;
  const std::atomic<bool>& stop_;
  const std::string name_;

 private:
  std::mt19937_64 random_;
  uint64_t keys_ = 0, values_ = 0;
  bool refused_ = false;  // the last op
};

class StaticClient final : public Client {
 public:
  StaticClient(Node& node, LoadState& state, const std::atomic<bool>& stop, int life, int number,
               uint64_t seed)
      : Client(node, state, stop,
               "static" + std::to_string(number) + ".life" + std::to_string(life), seed),
        contended_("//contended.life" + std::to_string(life) + "/") {}

 private:
  void Step() override {
    const Keys contended{contended_ + std::to_string(Below(kContended))};
    switch (Below(12)) {
      case 0:
      case 1:
      case 2:
        Register(contended);
        break;
      case 3:
        Withdraw(contended);
        break;
      case 4:
      case 5:
      case 6:
        Read(contended);
        break;
      case 7:
        ReadACall();
        break;
      case 8:
      case 9:
        UseLeft();
        break;
      default:
        MakeCall();
    }
  }
  void MakeCall() {
    const Keys keys = NewKeys(1 + Below(kCallMost));
    BeginCall(keys);
    if (!Register(keys)) return;
    if (Below(2) == 0)
      Withdraw(keys);
    else
      LeaveCall(keys);
  }
  void LeaveCall(const Keys& keys) {
    const std::lock_guard lock(state_.mutex);
    state_.left.push_back(keys);
  }
  void UseLeft() {
    Keys keys;
    {
      const std::lock_guard lock(state_.mutex);
      if (state_.left.empty()) return;
      std::swap(state_.left[Below(state_.left.size())], state_.left.back());
      keys = std::move(state_.left.back());
      state_.left.pop_back();
    }
    BeginCall(keys);
    Read(keys);
    if (Below(3) > 0)
      Withdraw(keys);
    else if (Register(keys))
      LeaveCall(keys);
  }

  template <typename Response, typename Start>
  Result<Revision> Await(const Start& start) {
    auto promise = std::make_shared<std::promise<Result<Revision>>>();
    auto future = promise->get_future();
    start([promise](Result<Response> response) {
      if (response.ok())
        promise->set_value(FromWire(response->revision()));
      else
        promise->set_value(response.status());
    });
    if (future.wait_for(kAnswer) == std::future_status::ready) return future.get();
    return Status(Code::kTimeout, "no answer");
  }
  bool Register(const Keys& keys) {
    const std::string value = NewValue();
    pb::RegisterRequest request;
    for (const std::string& key : keys) Fill(key, value, request.add_registrations());
    auto ops = Begin(HistoryOp::kRegister, keys, value);
    return End(std::move(ops), Await<pb::RegisterResponse>([&](auto done) {
                 node_.directory().Register(request, {"127.0.0.1:9", ""}, done);
               }));
  }
  bool Withdraw(const Keys& keys) {
    pb::WithdrawRequest request;
    for (const std::string& key : keys) request.add_withdrawals()->set_address(key);
    auto ops = Begin(HistoryOp::kWithdraw, keys);
    return End(std::move(ops), Await<pb::WithdrawResponse>([&](auto done) {
                 node_.directory().Withdraw(request, {"127.0.0.1:9", ""}, done);
               }));
  }

  const std::string contended_;
};

/// One process at a time: opens or resumes a session, uses it, ends it or leaves it.
class SessionClient final : public Client, private Stream {
 public:
  SessionClient(Node& node, LoadState& state, const std::atomic<bool>& stop, int life, int number,
                uint64_t seed)
      : Client(node, state, stop,
               "session" + std::to_string(number) + ".life" + std::to_string(life), seed) {}
  ~SessionClient() override {
    if (tether_) Leave();
  }

 private:
  void Step() override {
    if (!tether_) {
      Hello();
      return;
    }
    switch (Below(10)) {
      case 0:
        Ask(Heartbeat());
        break;
      case 1:
        if (Below(2) == 0) Bye();
        break;
      case 2:
        if (Below(2) == 0) Leave();
        break;
      case 3:
      case 4:
        Withdraw();
        break;
      case 5:
        ReadACall();
        break;
      case 6:
        if (!session_.keys.empty()) Read({session_.keys[Below(session_.keys.size())]});
        break;
      default:
        Register();
    }
  }

  void Wake() override {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    wake_.notify_all();
  }
  std::optional<pb::TetherResponse> Ask(const pb::TetherRequest& request) {
    tether_->OnMessage(request);
    const bool bye = request.has_bye();
    for (const BootTime until = BootClock::now() + kAnswer; BootClock::now() < until;) {
      if (auto response = tether_->Next()) return response;
      if (bye && Over()) return std::nullopt;  // an end that cannot be committed is tried again
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, 10ms, [this] { return woken_; });
      woken_ = false;
    }
    ADD_FAILURE() << "no answer to " << request.ShortDebugString();
    return std::nullopt;
  }
  Result<Revision> AskDone(const pb::TetherRequest& request) {
    const auto response = Ask(request);
    if (!response) return Status(Code::kTimeout, "no answer");
    if (!response->has_done())
      return Status(Code::kInternal, "not an answer: " + response->ShortDebugString());
    if (response->done().has_refusal()) return FromWire(response->done().refusal());
    return FromWire(response->done().revision());
  }
  static pb::TetherRequest Heartbeat() {
    pb::TetherRequest request;
    request.mutable_heartbeat()->set_number(1);
    return request;
  }

  void Hello() {
    session_ = {};
    {
      const std::lock_guard lock(state_.mutex);
      if (!state_.sessions.empty() && Below(2) == 0) {
        session_ = std::move(state_.sessions.back());
        state_.sessions.pop_back();
      }
    }
    pb::TetherRequest request;
    auto* hello = request.mutable_hello();
    hello->set_session_id(session_.id);
    hello->set_secret(session_.secret);
    hello->set_attach_number(++session_.attach_number);
    hello->set_ttl_ms(kTtlMs);
    tether_ = node_.directory().OpenTether({"127.0.0.1:10", ""}, *this);
    const auto response = Ask(request);
    if (response && response->has_welcome()) {
      if (session_.id.empty()) {
        session_.id = response->welcome().session_id();
        session_.secret = response->welcome().secret();
      }
      state_.witness.Acknowledged(FromWire(response->welcome().revision()));
      return;
    }
    tether_.reset();
    if (response && FromWire(response->ended().refusal()).code() == Code::kSessionExpired)
      ADD_FAILURE() << "an acknowledged session is gone: " << response->ShortDebugString();
    if (session_.id.empty()) return;
    const std::lock_guard lock(state_.mutex);
    state_.sessions.push_back(std::move(session_));
  }
  void Leave() {
    tether_.reset();
    single_.clear();
    const std::lock_guard lock(state_.mutex);
    state_.sessions.push_back(std::move(session_));
  }
  void Register() {
    if (session_.keys.size() >= kSessionKeys) return Bye();
    const Keys keys = NewKeys(1 + Below(kCallMost));
    BeginCall(keys);
    const std::string value = NewValue();
    pb::TetherRequest request;
    request.mutable_register_()->set_op_id(NextOp());
    for (const std::string& key : keys)
      Fill(key, value, request.mutable_register_()->add_registrations());
    auto ops = Begin(HistoryOp::kRegister, keys, value);
    const auto result = AskDone(request);
    const bool registered = End(std::move(ops), result);
    if (!registered && result.status().code() != Code::kOutcomeUnknown) return;
    Keys& list = registered ? session_.keys : session_.maybe;
    list.insert(list.end(), keys.begin(), keys.end());
    if (registered && keys.size() == 1) single_ = keys.front();
  }
  void Withdraw() {
    if (single_.empty()) return;
    pb::TetherRequest request;
    request.mutable_withdraw()->set_op_id(NextOp());
    request.mutable_withdraw()->add_withdrawals()->set_address(single_);
    auto ops = Begin(HistoryOp::kWithdraw, {single_});
    const auto result = AskDone(request);
    const bool withdrawn = End(std::move(ops), result);
    const bool unknown = !withdrawn && result.status().code() == Code::kOutcomeUnknown;
    if (withdrawn || unknown) std::erase(session_.keys, single_);
    if (unknown) session_.maybe.push_back(single_);
    single_.clear();
  }
  /// Ends the session: all it registered goes in one revision.
  void Bye() {
    pb::TetherRequest request;
    request.mutable_bye();
    auto ops = Begin(HistoryOp::kWithdraw, session_.keys);
    auto maybe = Begin(HistoryOp::kWithdraw, session_.maybe);
    const auto response = Ask(request);
    tether_.reset();
    single_.clear();
    const Status unknown(Code::kOutcomeUnknown, "perhaps there was nothing to end");
    if (!maybe.empty()) End(std::move(maybe), unknown);
    if (ops.empty()) return;
    End(std::move(ops), response && response->has_ended() ? Result<Revision>(Revision{}) : unknown);
  }
  uint64_t NextOp() { return session_.attach_number * 1'000'000 + ++ops_; }

  LeftSession session_;
  std::string single_;  // a key that was registered alone
  uint64_t ops_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
  std::unique_ptr<Tether> tether_;
};

}  // namespace

Result<std::vector<std::string>> ReadKeys(Directory& directory, const Keys& keys, Revision* at) {
  pb::ResolveRequest request;
  for (const std::string& key : keys) request.add_addresses(key);
  auto promise = std::make_shared<std::promise<Result<std::string>>>();
  auto future = promise->get_future();
  directory.Resolve(request,
                    [promise](Result<std::string> r) { promise->set_value(std::move(r)); });
  if (future.wait_for(kAnswer) != std::future_status::ready)
    return Status(Code::kTimeout, "no answer");
  DW_ASSIGN(const std::string bytes, future.get());
  pb::ResolveResponse response;
  if (!response.ParseFromString(bytes)) return Status(Code::kCorrupt, "does not parse");
  std::vector<std::string> out;
  for (const auto& answer : response.answers()) {
    const Revision revision = FromWire(answer.revision());
    if (out.empty() || revision < *at) *at = revision;
    const auto& endpoints = answer.row().endpoints();
    out.push_back(endpoints.empty() ? "" : endpoints[0].labels().at(kLabel));
  }
  return out;
}

void RunLoad(Node& node, int life, uint64_t seed, const std::atomic<bool>& stop, LoadState& state) {
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kStatics; ++i)
    clients.push_back(std::make_unique<StaticClient>(node, state, stop, life, i, ++seed));
  for (int i = 0; i < kSessions; ++i)
    clients.push_back(std::make_unique<SessionClient>(node, state, stop, life, i, ++seed));
  std::vector<std::thread> threads;
  threads.reserve(clients.size());
  for (auto& client : clients) threads.emplace_back([&client] { client->Run(); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace datawire::directory
