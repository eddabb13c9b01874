#include "tether.h"

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/resolver.h"
#include "discovery.h"
#include "tether_core.h"
#include "tls/credentials.h"
#include "tls/diagnose.h"

namespace datawire {
namespace {

namespace pb = ::datawire::directory::v1;
using std::chrono::milliseconds;

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

std::string ProcessName() {
  char path[4096] = {};
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path - 1);
  const std::string_view text(path, n > 0 ? static_cast<size_t>(n) : 0);
  return n > 0 ? std::string(text.substr(text.rfind('/') + 1)) : "unknown";
}

// A channel of its own for every attempt: back-off is the core's affair, and a tether shares its
// connection with nobody, so that a burst of pushes never delays a heartbeat.
std::shared_ptr<grpc::Channel> OpenChannel(
    const std::string& server, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 1000);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(server, credentials, args);
}

// One stream. Its events go to the functions given; it keeps itself alive until OnDone, which hands
// it over: gRPC's callback thread must not destroy what may be the process's last channel, since
// that joins the callback threads. Thread-safe.
class Attempt final : public grpc::ClientBidiReactor<pb::TetherRequest, pb::TetherResponse>,
                      public std::enable_shared_from_this<Attempt> {
 public:
  using OnMessage = std::function<void(pb::TetherResponse)>;
  using OnLost = std::function<void(std::shared_ptr<Attempt>, const Status&)>;

  Attempt(const std::string& server, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
          OnMessage on_message, OnLost on_lost)
      : stub_(pb::Directory::NewStub(OpenChannel(server, credentials))),
        on_message_(std::move(on_message)),
        on_lost_(std::move(on_lost)) {}

  void Start() {
    {
      std::lock_guard lock(mutex_);
      self_ = shared_from_this();
    }
    stub_->async()->Tether(&context_, this);
    AddHold();  // released by Cancel or the first failed read: writes may start until then
    StartRead(&incoming_);
    StartCall();
  }

  void Send(pb::TetherRequest message) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    outgoing_.push_back(std::move(message));
    if (outgoing_.size() == 1) StartWrite(&outgoing_.front());
  }

  // Ends the stream; further Sends are dropped.
  void Cancel() {
    context_.TryCancel();
    End();
  }

  // Reads the next message; called when the one before was taken in, so at most one is held.
  void ReadNext() {
    { std::lock_guard lock(mutex_); }  // with OnReadDone's, as in OnDone
    StartRead(&incoming_);
  }

 private:
  void End() {
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(ended_, true)) return;
    }
    RemoveHold();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End();
    { std::lock_guard lock(mutex_); }
    on_message_(std::move(incoming_));
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    outgoing_.pop_front();
    if (ok && !ended_ && !outgoing_.empty()) StartWrite(&outgoing_.front());
  }

  void OnDone(const grpc::Status& status) override {
    {
      std::lock_guard lock(mutex_);
    }  // with Start's: ThreadSanitizer cannot see gRPC's own hand-over
    const OnLost on_lost = std::move(on_lost_);
    on_lost(std::move(self_),
            Status(Code::kUnavailable,
                   status.ok() ? "the directory closed the stream" : status.error_message()));
  }

  const std::unique_ptr<pb::Directory::Stub> stub_;
  grpc::ClientContext context_;
  const OnMessage on_message_;
  OnLost on_lost_;
  std::shared_ptr<Attempt> self_;
  pb::TetherResponse incoming_;
  std::mutex mutex_;
  std::deque<pb::TetherRequest> outgoing_;  // bounded by the core's ops in flight
  bool ended_ = false;
};

// Runs the core on one thread of its own.
class Shell final : public TetherClient {
 public:
  Shell(const DirectoryPlace& place, TlsFiles tls, TetherCore::Options options)
      : tls_(std::move(tls)),
        credentials_(tls::ChannelCredentials(tls_)),
        servers_(place.servers),
        core_(std::move(options), std::random_device{}()),
        discovery_(place, std::random_device{}(),
                   [this](resolver::SrvReply reply) {
                     Post([this, reply = std::move(reply)](BootTime now) { LookedUp(reply, now); });
                   }),
        thread_([this] { Run(); }) {}

  ~Shell() override {
    Close(std::chrono::seconds(1));
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  void Register(RegistrationSpec spec, Done done) override {
    Post([this, spec = std::move(spec), done = std::move(done)](BootTime now) mutable {
      core_.Register(std::move(spec), std::move(done), now);
    });
  }

  void Withdraw(const Address& address, const EndpointUrl& url, Done done) override {
    Post([this, address, url, done = std::move(done)](BootTime now) mutable {
      core_.Withdraw(address, url, std::move(done), now);
    });
  }

  void Drain(bool undo, Done done) override {
    Post([this, undo, done = std::move(done)](BootTime now) mutable {
      core_.Drain(undo, std::move(done), now);
    });
  }

  void SetObserver(std::function<void(const std::string&)> observer) override {
    Post([this, observer = std::move(observer)](BootTime) mutable {
      observer_ = std::move(observer);
    });
  }

  std::string session_id() const override {
    std::lock_guard lock(mutex_);
    return session_id_;
  }

  void Close(milliseconds wait) override {
    Post([this](BootTime now) { core_.Close(now); });
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, wait, [this] { return closed_; });
  }

 private:
  using Event = std::function<void(BootTime)>;

  void Post(Event event) {
    {
      std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    wake_.notify_all();
  }

  void Run() {
    for (;;) {
      std::deque<Event> events;
      {
        std::unique_lock lock(mutex_);
        // At least each half second: a process that was stopped finds out as soon as it wakes.
        milliseconds wait(500);
        const BootTime due =
            std::min(core_.NextDue().value_or(BootTime::max()), discovery_.next_at());
        wait = std::clamp(std::chrono::ceil<milliseconds>(due - BootClock::now()), milliseconds(0),
                          wait);
        wake_.wait_for(lock, wait, [this] { return stop_ || !events_.empty(); });
        if (stop_) break;
        events.swap(events_);
      }
      for (Event& event : events) {
        event(BootClock::now());
        Act();
      }
      core_.Tick(BootClock::now());
      if (core_.all_failed()) discovery_.AllServersFailed();
      discovery_.Tick(BootClock::now());
      Act();
      Show();
    }
    core_.Abandon();
    Act();
    Disconnect();
    // The cancelled attempts still report: wait for the last one, it holds a pointer to this.
    std::deque<Event> last;
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return attempts_ == 0; });
    last.swap(events_);
    lock.unlock();
  }

  void LookedUp(const resolver::SrvReply& reply, BootTime now) {
    const auto found = discovery_.Take(reply, now);
    if (!found.ok()) {
      if (servers_.empty() && observer_) observer_(found.status().message());
      return;
    }
    const std::string used = servers_.empty() ? "" : servers_[core_.server()];
    servers_.clear();
    std::optional<size_t> present;
    for (const resolver::Server& server : *found) {
      if (server.name == used) present = servers_.size();
      servers_.push_back(server.name);
    }
    core_.SetServers(servers_.size(), present, now);
  }

  void Act() {
    for (TetherAction& action : core_.TakeActions()) std::visit([this](auto& a) { Do(a); }, action);
  }

  void Do(TetherConnect& connect) {
    Disconnect();
    const uint64_t number = ++attempt_number_;
    {
      std::lock_guard lock(mutex_);
      ++attempts_;
    }
    attempt_ = std::make_shared<Attempt>(
        servers_[connect.server], credentials_,
        [this, number](pb::TetherResponse message) {
          Post([this, number, message = std::move(message)](BootTime now) {
            if (number != attempt_number_ || !attempt_) return;
            const auto attempt = attempt_;
            core_.OnMessage(message, now);
            if (!core_.closed()) attempt->ReadNext();
          });
        },
        [this, number](std::shared_ptr<Attempt> attempt, const Status& why) {
          std::lock_guard lock(mutex_);
          --attempts_;
          events_.push_back([this, number, why, ended = std::move(attempt)](BootTime now) {
            if (number != attempt_number_ || !attempt_) return;
            core_.OnLost({why.code(), why.message() + tls::Hint(why.message(), tls_)}, now);
          });
          wake_.notify_all();  // under the lock: the last attempt's end lets Run destroy this
        });
    attempt_->Start();
  }

  void Do(TetherDisconnect&) { Disconnect(); }
  void Do(TetherSend& send) {
    if (attempt_) attempt_->Send(std::move(send.message));
  }
  void Do(TetherFinish& finish) { finish.done(finish.result); }
  void Do(TetherObserve& observe) {
    if (observer_) observer_(observe.line);
  }

  void Disconnect() {
    if (attempt_) attempt_->Cancel();
    attempt_.reset();
  }

  void Show() {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string hex;
    for (unsigned char c : core_.session_id()) {
      hex += kDigits[c >> 4];
      hex += kDigits[c & 15];
    }
    std::lock_guard lock(mutex_);
    session_id_ = std::move(hex);
    if (core_.closed() && !std::exchange(closed_, true)) wake_.notify_all();
  }

  const TlsFiles tls_;
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;

  // Of the thread.
  std::vector<std::string> servers_;  // none: not known yet
  TetherCore core_;
  std::shared_ptr<Attempt> attempt_;
  uint64_t attempt_number_ = 0;
  std::function<void(const std::string&)> observer_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Event> events_;  // calls of the application, and at most two of the attempt
  std::string session_id_;
  size_t attempts_ = 0;
  bool closed_ = false, stop_ = false;

  resolver::Discovery discovery_;  // of the thread; its look-up ends before what it posts to
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<TetherClient>> TetherClient::Open(TetherOptions options) {
  DW_ASSIGN(const DirectoryPlace place,
            FindDirectory({options.directory, options.domain, options.dns_server}));
  DW_ASSIGN(TlsFiles tls, FindTlsFiles(options.tls));
  if (options.ttl < limits::kSessionTtlLeast || options.ttl > limits::kSessionTtlMost)
    return Status(Code::kInvalid, "session TTL " + std::to_string(options.ttl.count()) +
                                      " ms is out of range, 3 s to 1 h");
  TetherCore::Options core{
      .servers = place.servers.size(),
      .ttl = options.ttl,
      .host = HostName(),
      .program = options.program.empty() ? ProcessName() : options.program,
      .pid = static_cast<uint32_t>(::getpid()),
  };
  return std::unique_ptr<TetherClient>(
      std::make_unique<Shell>(place, std::move(tls), std::move(core)));
}

}  // namespace datawire
