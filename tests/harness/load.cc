// Registers and withdraws as fast as the directory acknowledges, static records and through
// tethers, one operation in flight a thread. Says on stdout what it knows, a line each:
//   `+ KIND EPOCH:NUMBER ADDRESS URL`   acknowledged: registered
//   `? KIND ADDRESS`                    about to be withdrawn: in doubt from here
//   `- KIND EPOCH:NUMBER ADDRESS`       acknowledged: withdrawn
// With `--history FILE` it also writes what each operation was, when it began and ended and what
// came of it, as history_checker.h has it; `--shared N` threads more then register, withdraw and
// read the same few addresses below //shared. What was tried again is two operations: that of the
// tries without an answer, and that of the last. `--directory` may name several nodes of one
// cluster: who gets no answer asks the next. `--pause-ms N` after each operation. On SIGTERM it
// stops after the operations in flight, says `= done` and holds its sessions; the second SIGTERM
// ends it.

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <future>
#include <optional>
#include <random>
#include <set>
#include <thread>

#include "datawire/clock.h"
#include "datawire/directory/v1/directory.grpc.pb.h"
#include "flags.h"
#include "marks.h"
#include "tether.h"

namespace {

namespace pb = datawire::directory::v1;
using datawire::Revision;

constexpr size_t kSessionMost = 900;  // registrations of one session; the rule is 1,000
constexpr int kKept = 4;              // every so many-th registration stays
constexpr char kLabel[] = "value";
// Shared addresses: so many at a time, each for so many operations, so that what is outstanding
// when the directory is killed stays little for each.
constexpr uint64_t kShared = 3, kSharedOps = 40;

std::atomic<bool> stopping{false};
std::chrono::milliseconds pause_after{0};

/// One line, one write: whole also when the process is killed.
void Say(std::string line) {
  line += '\n';
  if (::write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::_Exit(1);
  }
}

/// The history, if one is wanted. Thread-safe.
class Story {
 public:
  void Open(const std::string& path) { file_ = std::make_unique<datawire::harness::Marks>(path); }
  /// `what`: `register VALUE`, `withdraw` or `read`. The operation's id.
  uint64_t Call(const std::string& key, const std::string& what) {
    const uint64_t id = ++last_;
    Line("call " + std::to_string(id) + ' ' + Now() + ' ' + key + ' ' + what);
    return id;
  }
  void Ok(uint64_t id, Revision at, const std::string& value = "") {
    Line("ok " + std::to_string(id) + ' ' + Now() + ' ' + at.ToString() + ' ' + value);
  }
  void None(uint64_t id) { Line("none " + std::to_string(id) + ' ' + Now() + " 0:0"); }
  void Refused(uint64_t id) { Line("refused " + std::to_string(id) + ' ' + Now()); }
  /// It was done by now, if ever.
  void Cut(uint64_t id) { Line("cut " + std::to_string(id) + ' ' + Now()); }

 private:
  static std::string Now() {
    return std::to_string(datawire::BootClock::now().time_since_epoch().count());
  }
  void Line(const std::string& text) {
    if (file_) file_->Line(text);
  }
  std::unique_ptr<datawire::harness::Marks> file_;
  std::atomic<uint64_t> last_{0};
};

Story story;

/// What one thread does to the directory; both calls return when acknowledged.
class Writer {
 public:
  virtual ~Writer() = default;
  virtual Revision Register(const std::string& address, const std::string& url) = 0;
  virtual Revision Withdraw(const std::string& address, const std::string& url) = 0;
};

class StaticWriter final : public Writer {
 public:
  StaticWriter(const std::vector<std::string>& servers, uint64_t seed)
      : random_(seed), now_(seed % servers.size()) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
    args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    for (const std::string& server : servers) {
      stubs_.push_back(pb::Directory::NewStub(
          grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), args)));
    }
  }

  Revision Register(const std::string& address, const std::string& url) override {
    return Register(address, url, "1");
  }
  Revision Register(const std::string& address, const std::string& url, const std::string& value) {
    pb::RegisterRequest request;
    request.set_op_id(OpId());
    pb::TetherRequest::Registration* registration = request.add_registrations();
    registration->set_address(address);
    registration->mutable_endpoint()->set_url(url);
    (*registration->mutable_endpoint()->mutable_labels())[kLabel] = value;
    pb::RegisterResponse response;
    const Done done = Insist(address, "register " + value, [&](grpc::ClientContext* context) {
      return stubs_[now_]->Register(context, request, &response);
    });
    const Revision at{response.revision().epoch(), response.revision().number()};
    if (!done.in_doubt) {
      story.Ok(done.id, at);
      return at;
    }
    // Done once, by whichever try; and again if another wrote over it before the last one came.
    story.Ok(*done.in_doubt, {});
    if (!done.late) story.Cut(done.id);
    return at;
  }
  Revision Withdraw(const std::string& address, const std::string& url) override {
    pb::WithdrawRequest request;
    request.set_op_id(OpId());
    pb::TetherRequest::Withdrawal* withdrawal = request.add_withdrawals();
    withdrawal->set_address(address);
    withdrawal->set_url(url);
    pb::WithdrawResponse response;
    const Done done = Insist(address, "withdraw", [&](grpc::ClientContext* context) {
      return stubs_[now_]->Withdraw(context, request, &response);
    });
    const Revision at{response.revision().epoch(), response.revision().number()};
    if (done.in_doubt && !done.late) story.Cut(*done.in_doubt);
    if (!done.found)
      story.None(done.id);
    else if (!done.in_doubt)
      story.Ok(done.id, at);
    else
      story.Refused(done.id);  // it found what the one in doubt did, or that one stands for it
    return at;
  }
  void Read(const std::string& address) {
    pb::ResolveRequest request;
    request.add_addresses(address);
    request.set_consistency(pb::CONSISTENCY_LINEARIZABLE);
    pb::ResolveResponse response;
    const Done done = Insist(address, "read", [&](grpc::ClientContext* context) {
      return stubs_[now_]->Resolve(context, request, &response);
    });
    const pb::Answer& answer = response.answers(0);
    const auto& endpoints = answer.row().endpoints();
    story.Ok(done.id, {answer.revision().epoch(), answer.revision().number()},
             endpoints.empty() ? "-" : endpoints[0].labels().at(kLabel));
  }

 private:
  std::string OpId() {
    std::string id(16, '\0');
    for (char& byte : id) byte = static_cast<char>(random_());
    return id;
  }

  struct Done {
    uint64_t id = 0;                   // of the try that was answered
    std::optional<uint64_t> in_doubt;  // stands for those that were not
    bool late = false;                 // one of them may still be on its way
    bool found = true;
  };
  /// The same op id until it is done; only what says that nothing was refused for good is tried
  /// again.
  template <typename Call>
  Done Insist(const std::string& address, const std::string& what, const Call& call) {
    for (Done done;;) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
      done.id = story.Call(address, what);
      const grpc::Status status = call(&context);
      done.found = status.error_code() != grpc::StatusCode::NOT_FOUND;
      if (status.ok() || (!done.found && what == "withdraw")) return done;
      if (kTriedAgain.count(status.error_code()) == 0) {
        Say("! static " + std::to_string(status.error_code()) + ' ' + status.error_message());
        std::_Exit(1);
      }
      // In a cluster what a node had sent on may arrive after the node has gone.
      done.late = done.late || stubs_.size() > 1 ||
                  status.error_code() == grpc::StatusCode::UNKNOWN ||
                  status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
      now_ = (now_ + 1) % stubs_.size();
      if (done.in_doubt)
        story.Refused(done.id);
      else
        done.in_doubt = done.id;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  static inline const std::set<grpc::StatusCode> kTriedAgain = {
      grpc::StatusCode::UNAVAILABLE,       grpc::StatusCode::CANCELLED,
      grpc::StatusCode::DEADLINE_EXCEEDED, grpc::StatusCode::RESOURCE_EXHAUSTED,
      grpc::StatusCode::OUT_OF_RANGE,      grpc::StatusCode::UNKNOWN};  // BEHIND, OUTCOME_UNKNOWN
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<pb::Directory::Stub>> stubs_;
  size_t now_;  // the node that is asked
};

class SessionWriter final : public Writer {
 public:
  SessionWriter(std::vector<std::string> servers, std::chrono::milliseconds ttl)
      : servers_(std::move(servers)), ttl_(ttl) {}

  Revision Register(const std::string& address, const std::string& url) override {
    if (tethers_.empty() || registered_ == kSessionMost) {
      datawire::TetherOptions options;
      options.directory = servers_;
      options.ttl = ttl_;
      tethers_.push_back(datawire::TetherClient::Open(std::move(options)).value());
      registered_ = 0;
    }
    ++registered_;
    const datawire::RegistrationSpec spec{.address = datawire::Address::Parse(address).value(),
                                          .url = datawire::EndpointUrl::Parse(url).value(),
                                          .labels = {{kLabel, "1"}}};
    return Await(address, "register 1", [&](auto done) { tethers_.back()->Register(spec, done); });
  }
  Revision Withdraw(const std::string& address, const std::string& url) override {
    return Await(address, "withdraw", [&](auto done) {
      tethers_.back()->Withdraw(datawire::Address::Parse(address).value(),
                                datawire::EndpointUrl::Parse(url).value(), done);
    });
  }

 private:
  template <typename Start>
  Revision Await(const std::string& address, const std::string& what, const Start& start) {
    const uint64_t id = story.Call(address, what);
    auto promise = std::make_shared<std::promise<Revision>>();
    start([promise](const datawire::Result<Revision>& result) {
      if (!result.ok()) {
        Say("! session " + result.status().ToString());
        std::_Exit(1);
      }
      promise->set_value(*result);
    });
    const Revision at = promise->get_future().get();
    story.Ok(id, at);
    return at;
  }

  const std::vector<std::string> servers_;
  const std::chrono::milliseconds ttl_;
  std::vector<std::unique_ptr<datawire::TetherClient>> tethers_;
  size_t registered_ = 0;
};

void Run(Writer& writer, const std::string& kind, const std::string& prefix) {
  for (long i = 0; !stopping; ++i) {
    const std::string address = prefix + std::to_string(i);
    const std::string url = "amqp://127.0.0.1:" + std::to_string(1024 + i % 60000);
    Say("+ " + kind + ' ' + writer.Register(address, url).ToString() + ' ' + address + ' ' + url);
    std::this_thread::sleep_for(pause_after);
    if (i % kKept == 0) continue;
    Say("? " + kind + ' ' + address);
    Say("- " + kind + ' ' + writer.Withdraw(address, url).ToString() + ' ' + address);
    std::this_thread::sleep_for(pause_after);
  }
}

/// Registers, withdraws and reads what the other threads do too.
void RunShared(StaticWriter& writer, uint64_t number, std::mt19937_64 random) {
  static std::atomic<uint64_t> ops{0};
  for (uint64_t i = 0; !stopping; ++i) {
    const uint64_t op = ops++;
    const std::string address = "//shared/" + std::to_string(op / (kShared * kSharedOps)) + '/' +
                                std::to_string(random() % kShared);
    const uint64_t what = random() % 5;
    if (what < 2)
      writer.Register(address, "amqp://127.0.0.1:1",
                      std::to_string(number) + '.' + std::to_string(i));
    else if (what == 2)
      writer.Withdraw(address, "amqp://127.0.0.1:1");
    else
      writer.Read(address);
    std::this_thread::sleep_for(pause_after);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const datawire::harness::Flags flags(argc, argv,
                                       {{"--directory", ""},
                                        {"--prefix", "//load"},
                                        {"--each", "8"},
                                        {"--seed", "1"},
                                        {"--history", "none"},
                                        {"--pause-ms", "0"},
                                        {"--ttl-ms", "15000"},
                                        {"--shared", "0"}});
  if (flags["--history"] != "none") story.Open(flags["--history"]);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before there are threads, so that none takes it
  pause_after = std::chrono::milliseconds(flags.Number("--pause-ms"));
  const std::vector<std::string> servers = datawire::harness::Split(flags["--directory"]);
  const long each = flags.Number("--each");
  std::vector<std::unique_ptr<Writer>> writers;
  std::vector<std::thread> threads;
  for (long i = 0; i < 2 * each; ++i) {
    const std::string kind = i < each ? "static" : "session";
    if (i < each) {
      writers.push_back(std::make_unique<StaticWriter>(servers, flags.Number("--seed") * 1000 + i));
    } else {
      writers.push_back(std::make_unique<SessionWriter>(
          servers, std::chrono::milliseconds(flags.Number("--ttl-ms"))));
    }
    threads.emplace_back([&writer = *writers.back(), kind,
                          prefix = flags["--prefix"] + '/' + kind + std::to_string(i) + '/'] {
      Run(writer, kind, prefix);
    });
  }
  const uint64_t seed = static_cast<uint64_t>(flags.Number("--seed")) * 1000;
  for (long i = 0; i < flags.Number("--shared"); ++i) {
    const uint64_t number = 500 + static_cast<uint64_t>(i);
    auto writer = std::make_shared<StaticWriter>(servers, seed + number);
    threads.emplace_back([writer, number, random = std::mt19937_64(seed + number)] {
      RunShared(*writer, number, random);
    });
  }
  int signal = 0;
  sigwait(&ends, &signal);
  stopping = true;
  for (std::thread& thread : threads) thread.join();
  Say("= done");
  sigwait(&ends, &signal);
  return 0;
}
