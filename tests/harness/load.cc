// Registers and withdraws as fast as the directory acknowledges, static records and through
// tethers, one operation in flight a thread. Says on stdout what it knows, a line each:
//   `+ KIND EPOCH:NUMBER ADDRESS URL`   acknowledged: registered
//   `? KIND ADDRESS`                    about to be withdrawn: in doubt from here
//   `- KIND EPOCH:NUMBER ADDRESS`       acknowledged: withdrawn
// On SIGTERM it stops after the operations in flight, says `= done` and holds its sessions; the
// second SIGTERM ends it.

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <future>
#include <random>
#include <thread>

#include "datawire/directory/v1/directory.grpc.pb.h"
#include "flags.h"
#include "tether.h"

namespace {

namespace pb = datawire::directory::v1;
using datawire::Revision;

constexpr size_t kSessionMost = 900;  // registrations of one session; the rule is 1,000
constexpr int kKept = 4;              // every so many-th registration stays

std::atomic<bool> stopping{false};

/// One line, one write: whole also when the process is killed.
void Say(std::string line) {
  line += '\n';
  if (::write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::_Exit(1);
  }
}

/// What one thread does to the directory; both calls return when acknowledged.
class Writer {
 public:
  virtual ~Writer() = default;
  virtual Revision Register(const std::string& address, const std::string& url) = 0;
  virtual Revision Withdraw(const std::string& address, const std::string& url) = 0;
};

class StaticWriter final : public Writer {
 public:
  StaticWriter(const std::string& server, uint64_t seed) : random_(seed) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
    args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    stub_ = pb::Directory::NewStub(
        grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), args));
  }

  Revision Register(const std::string& address, const std::string& url) override {
    pb::RegisterRequest request;
    request.set_op_id(OpId());
    pb::TetherRequest::Registration* registration = request.add_registrations();
    registration->set_address(address);
    registration->mutable_endpoint()->set_url(url);
    pb::RegisterResponse response;
    Insist(
        [&](grpc::ClientContext* context) { return stub_->Register(context, request, &response); });
    return {response.revision().epoch(), response.revision().number()};
  }
  Revision Withdraw(const std::string& address, const std::string& url) override {
    pb::WithdrawRequest request;
    request.set_op_id(OpId());
    pb::TetherRequest::Withdrawal* withdrawal = request.add_withdrawals();
    withdrawal->set_address(address);
    withdrawal->set_url(url);
    pb::WithdrawResponse response;
    Insist(
        [&](grpc::ClientContext* context) { return stub_->Withdraw(context, request, &response); });
    return {response.revision().epoch(), response.revision().number()};
  }

 private:
  std::string OpId() {
    std::string id(16, '\0');
    for (char& byte : id) byte = static_cast<char>(random_());
    return id;
  }

  /// The same op id until it is done; only what says that nothing was refused for good is tried
  /// again.
  template <typename Call>
  void Insist(const Call& call) {
    while (true) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
      const grpc::Status status = call(&context);
      if (status.ok()) return;
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE &&
          status.error_code() != grpc::StatusCode::CANCELLED &&
          status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) {
        Say("! static " + status.error_message());
        std::_Exit(1);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  std::mt19937_64 random_;
  std::unique_ptr<pb::Directory::Stub> stub_;
};

class SessionWriter final : public Writer {
 public:
  explicit SessionWriter(std::string server) : server_(std::move(server)) {}

  Revision Register(const std::string& address, const std::string& url) override {
    if (tethers_.empty() || registered_ == kSessionMost) {
      datawire::TetherOptions options;
      options.directory = {server_};
      tethers_.push_back(std::move(datawire::TetherClient::Open(std::move(options)).value()));
      registered_ = 0;
    }
    ++registered_;
    const datawire::RegistrationSpec spec{.address = datawire::Address::Parse(address).value(),
                                          .url = datawire::EndpointUrl::Parse(url).value()};
    return Await([&](auto done) { tethers_.back()->Register(spec, done); });
  }
  Revision Withdraw(const std::string& address, const std::string& url) override {
    return Await([&](auto done) {
      tethers_.back()->Withdraw(datawire::Address::Parse(address).value(),
                                datawire::EndpointUrl::Parse(url).value(), done);
    });
  }

 private:
  template <typename Start>
  Revision Await(const Start& start) {
    auto promise = std::make_shared<std::promise<Revision>>();
    start([promise](const datawire::Result<Revision>& result) {
      if (!result.ok()) {
        Say("! session " + result.status().ToString());
        std::_Exit(1);
      }
      promise->set_value(*result);
    });
    return promise->get_future().get();
  }

  const std::string server_;
  std::vector<std::unique_ptr<datawire::TetherClient>> tethers_;
  size_t registered_ = 0;
};

void Run(Writer& writer, const std::string& kind, const std::string& prefix) {
  for (long i = 0; !stopping; ++i) {
    const std::string address = prefix + std::to_string(i);
    const std::string url = "amqp://127.0.0.1:" + std::to_string(1024 + i % 60000);
    Say("+ " + kind + ' ' + writer.Register(address, url).ToString() + ' ' + address + ' ' + url);
    if (i % kKept == 0) continue;
    Say("? " + kind + ' ' + address);
    Say("- " + kind + ' ' + writer.Withdraw(address, url).ToString() + ' ' + address);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const datawire::harness::Flags flags(
      argc, argv, {{"--directory", ""}, {"--prefix", "//load"}, {"--each", "8"}, {"--seed", "1"}});
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before there are threads, so that none takes it
  const long each = flags.Number("--each");
  std::vector<std::unique_ptr<Writer>> writers;
  std::vector<std::thread> threads;
  for (long i = 0; i < 2 * each; ++i) {
    const std::string kind = i < each ? "static" : "session";
    if (i < each) {
      writers.push_back(
          std::make_unique<StaticWriter>(flags["--directory"], flags.Number("--seed") * 1000 + i));
    } else {
      writers.push_back(std::make_unique<SessionWriter>(flags["--directory"]));
    }
    threads.emplace_back([&writer = *writers.back(), kind,
                          prefix = flags["--prefix"] + '/' + kind + std::to_string(i) + '/'] {
      Run(writer, kind, prefix);
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
