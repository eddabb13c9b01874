#include "resolver_process.h"

#include <algorithm>

namespace datawire::sim {

using resolver::CallEvent;
using resolver::StreamEvent;

/// The transport, over simulated streams.
class ResolverProcess::Streams final : public resolver::Transport {
 public:
  Streams(ResolverProcess& process, std::shared_ptr<resolver::TransportSink> sink)
      : process_(process), scheduler_(process.scheduler_), sink_(std::move(sink)) {}
  ~Streams() override { Close(); }

  void Open(uint64_t stream, const std::string& server) override {
    Close();
    number_ = stream;
    connected_ = reading_ = false;
    arrived_.clear();
    server_ = ByName(server);
    wire_ = process_.network_.MakeWire(process_, *server_);
    auto on_message = [this, stream](const std::string& bytes) {
      if (stream != number_) return;
      arrived_.push_back(bytes);
      Deliver();
    };
    wire_->Open(
        [server = server_, wire = wire_, on_message] { server->Subscribe(wire, on_message); },
        [this, stream] {
          if (stream == number_) connected_ = true;
        },
        [this, stream](const Status& why) {
          if (stream == number_) Tell({.stream = stream, .status = why});
        });
  }
  bool Connected() const override { return connected_; }
  void Read() override {
    reading_ = true;
    Deliver();
  }
  void Write(const pb::SubscribeRequest& request) override {
    if (!wire_) return;
    pb::SubscribeRequest sorted = request;  // their order hangs on where they lie in memory
    std::sort(sorted.mutable_add()->begin(), sorted.mutable_add()->end(),
              [](const auto& a, const auto& b) { return a.address() < b.address(); });
    std::sort(sorted.mutable_drop()->begin(), sorted.mutable_drop()->end());
    wire_->Up([server = server_, wire = wire_, request = std::move(sorted)] {
      server->OnSubscribe(wire, request);
    });
    scheduler_.After(50us, &process_, [this, stream = number_] {
      if (stream == number_) Tell({.stream = stream, .kind = StreamEvent::Kind::kWritten});
    });
  }
  void Close() override {
    if (wire_) wire_->CloseByClient();
    wire_.reset();
    number_ = 0;
  }
  void Resolve(uint64_t call, const std::string& server, const pb::ResolveRequest& request,
               std::chrono::milliseconds timeout) override {
    auto over = std::make_shared<bool>(false);
    const auto end = [process = &process_, sink = sink_, call, over,
                      life = process_.run](CallEvent event) {
      if (life != process->run || std::exchange(*over, true)) return;
      event.call = call;
      sink->OnCall(std::move(event));
      process->Soon();
    };
    DirectoryNode* to = ByName(server);
    ResolverProcess* process = &process_;  // outlives this transport
    process_.network_.Send(process_, *to, [process, to, request, end] {
      if (!to->up)
        return process->network_.Send(*to, *process, [end] {
          end({.status = Status(Code::kUnavailable, "connection refused")});
        });
      to->Resolve(*process, request, [end](const Result<std::string>& response) {
        CallEvent event;
        if (!response.ok())
          event.status = response.status();
        else
          event.response.ParseFromString(*response);
        end(std::move(event));
      });
    });
    const BootTime until = BootClock::now() + timeout;
    scheduler_.At(process_.clock.When(until), &process_,
                  [end] { end({.status = Status(Code::kTimeout, "no answer in time")}); });
  }

 private:
  DirectoryNode* ByName(const std::string& name) const {
    return *std::find_if(process_.servers_.begin(), process_.servers_.end(),
                         [&](const DirectoryNode* node) { return node->name == name; });
  }
  void Tell(StreamEvent event) {
    sink_->OnStream(std::move(event));
    process_.Soon();
  }
  void Deliver() {
    if (!reading_ || arrived_.empty()) return;
    reading_ = false;
    StreamEvent event{.stream = number_, .kind = StreamEvent::Kind::kRead};
    if (!event.response.ParseFromString(arrived_.front()))
      scheduler_.Fail(process_.name + ": a message that does not parse");
    arrived_.pop_front();
    Tell(std::move(event));
  }

  ResolverProcess& process_;
  Scheduler& scheduler_;
  const std::shared_ptr<resolver::TransportSink> sink_;
  uint64_t number_ = 0;
  std::shared_ptr<Wire> wire_;
  DirectoryNode* server_ = nullptr;
  bool connected_ = false, reading_ = false;
  std::deque<std::string> arrived_;
};

ResolverProcess::ResolverProcess(Network& network, Oracle& oracle,
                                 std::vector<DirectoryNode*> servers, std::string the_name)
    : Process(std::move(the_name)),
      network_(network),
      scheduler_(network.scheduler()),
      oracle_(oracle),
      servers_(std::move(servers)) {}

ResolverProcess::~ResolverProcess() = default;

void ResolverProcess::Start() {
  if (up) return;
  up = true;
  step_soon_ = false;
  armed_ = Time(-1);
  std::vector<std::string> names;
  for (const DirectoryNode* node : servers_) names.push_back(node->name);
  ResolverPolicy policy;
  policy.cache_entries = 1000;
  core_ = std::make_shared<resolver::Core>(DirectoryPlace{.servers = std::move(names)}, policy,
                                           scheduler_.random()());
  scheduler_.As(*this, [this] {
    core_->StartStepped(std::make_unique<Streams>(*this, core_->sink()));
    for (const Address& address : oracle_.addresses())
      listeners_.push_back(core_->Listen(address, [this, address](const AnswerPtr& answer) {
        told_[address.text()] = answer;
        if (scheduler_.tracing())
          scheduler_.Say(name + ": " + address.text() + " is " +
                         std::string(AnswerStatusName(answer->status)) + " at " +
                         answer->revision.ToString());
        oracle_.OnAnswer(name + "." + std::to_string(run), address, *answer, Slack());
      }));
    Soon();
  });
}

void ResolverProcess::Kill() {
  if (!up) return;
  listeners_.clear();
  told_.clear();
  network_.Died(*this, false);
  scheduler_.EndLife(*this);
  scheduler_.As(*this, [this] { core_->FinishStepped(); });
  core_.reset();
}

// What arrived while it slept counts as received when it is read.
Time ResolverProcess::Slack() const {
  const bool just_woken = pauses > 0 && scheduler_.now() - resumed_at < 10s;
  return age_slack + (just_woken ? resumed_at - paused_at : 0s);
}

void ResolverProcess::Soon() {
  if (std::exchange(step_soon_, true)) return;
  scheduler_.After(0s, this, [this] {
    step_soon_ = false;
    Step();
  });
}

void ResolverProcess::Step() {
  const BootTime wake = core_->Step();
  if (step_soon_) return;
  const Time when = clock.When(wake);
  if (armed_ > scheduler_.now() && armed_ <= when) return;
  armed_ = when;
  scheduler_.At(when, this, [this, when] {
    if (armed_ != when) return;
    armed_ = Time(-1);
    Step();
  });
}

void ResolverProcess::Resolve(const Address& address, Revision min) {
  const Time asked = scheduler_.now();
  ResolveOptions options;
  options.min_revision = min;
  core_->Resolve(
      address, options,
      [this, address, asked, min, life = run, pauses_before = pauses](const AnswerPtr& answer) {
        if (life != run) return;
        ++answers;
        unavailable += answer->status == AnswerStatus::kUnavailable;
        stale += answer->stale;
        oracle_.OnAnswer(name + "." + std::to_string(run), address, *answer, Slack());
        if (answer->status != AnswerStatus::kUnavailable && answer->revision < min)
          scheduler_.Fail(name + ": " + address.text() + " at " + answer->revision.ToString() +
                          ", asked for " + min.ToString());
        const Time took = clock.Span(scheduler_.now()) - clock.Span(asked);
        if (pauses == pauses_before && took > limits::kResolveDeadline + 100ms)
          scheduler_.Fail(name + ": a look-up took longer than its deadline");
      });
  Soon();
}

void ResolverProcess::Play(Time until, Time every) {
  scheduler_.After(scheduler_.Between(0s, every * 2), this,
                   [this, until, every] { PlayOnce(until, every); });
}

void ResolverProcess::PlayOnce(Time until, Time every) {
  const auto& addresses = oracle_.addresses();
  Revision min;
  if (scheduler_.Chance(0.1)) min = {1, oracle_.applied()};
  Resolve(addresses[scheduler_.Below(addresses.size())], min);
  if (scheduler_.now() < until) Play(until, every);
}

AnswerPtr ResolverProcess::told(const Address& address) const {
  const auto it = told_.find(address.text());
  return it == told_.end() ? nullptr : it->second;
}

std::string ResolverProcess::Settled() {
  if (!up) return "";
  if (!core_->Stats().live) return name + " has no stream";
  for (const Address& address : oracle_.addresses()) {
    const AnswerPtr last = told(address);
    if (last == nullptr || last->status == AnswerStatus::kUnavailable)
      return name + " knows nothing of " + address.text();
    if (last->hash != oracle_.HashOf(address))
      return name + " was last told of " + address.text() + " at " + last->revision.ToString();
    const auto hit = std::make_shared<AnswerPtr>();  // a later answer finds it too
    scheduler_.As(*this, [&] {
      core_->Resolve(address, {}, [hit](const AnswerPtr& answer) { *hit = answer; });
    });
    const AnswerPtr now = *hit;
    if (now == nullptr) return name + " has to ask for " + address.text();
    if (now->hash != oracle_.HashOf(address) || now->stale)
      return name + " answers " + address.text() + " with what is old";
  }
  return "";
}

}  // namespace datawire::sim
