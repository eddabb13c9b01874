#include "service_process.h"

#include <algorithm>

namespace datawire::sim {

ServiceProcess::ServiceProcess(Network& network, Oracle& oracle,
                               std::vector<DirectoryNode*> servers, std::string the_name,
                               Options options)
    : Process(std::move(the_name)),
      network_(network),
      scheduler_(network.scheduler()),
      oracle_(oracle),
      servers_(std::move(servers)),
      options_(std::move(options)),
      url_("amqp://" + name + ":5672") {}

void ServiceProcess::Start() {
  if (up) return;
  up = true;
  closing_ = draining_ = false;
  pending_ = 0;
  armed_.reset();
  wanted_.clear();
  TetherCore::Options options{.servers = servers_.size(),
                              .ttl = options_.ttl,
                              .host = name,
                              .program = program(),
                              .pid = 1};
  core_ = std::make_unique<TetherCore>(std::move(options), scheduler_.random()());
  const size_t count = 1 + scheduler_.Below(std::min<size_t>(options_.addresses.size(), 3));
  const size_t first = scheduler_.Below(options_.addresses.size());
  scheduler_.As(*this, [&] {
    for (size_t i = 0; i < count; ++i)
      Register(options_.addresses[(first + i) % options_.addresses.size()]);
  });
}

void ServiceProcess::Kill(bool silently) {
  if (!up) return;
  if (scheduler_.tracing()) scheduler_.Say(name + (silently ? " vanishes" : " is killed"));
  wire_.reset();
  network_.Died(*this, silently);
  scheduler_.EndLife(*this);
}

void ServiceProcess::Stop() {
  if (!up || paused || closing_) return;
  scheduler_.As(*this, [this] {
    closing_ = true;
    wanted_.clear();
    oracle_.OnBye(program());
    core_->Close(BootClock::now());
    Act();
    scheduler_.After(1s, this, [this] { Kill(false); });
  });
}

void ServiceProcess::Register(const Address& address) {
  if (closing_) return;
  wanted_.insert_or_assign(address.text(), address);
  ++asked_[address.text()];
  ++pending_;
  const Oracle::Key key{address.text(), url_};
  auto done = [this, key, life = run](const Result<Revision>& result) {
    if (life != run) return;
    --pending_;
    if (result.ok()) oracle_.OnRegistered(key, *result);
  };
  RegistrationSpec spec{.address = address, .url = EndpointUrl::Parse(url_).value()};
  spec.subtree = address.text() == "//sim/tree";
  core_->Register(std::move(spec), std::move(done), BootClock::now());
  Act();
}

void ServiceProcess::Withdraw(const Address& address) {
  if (closing_ || wanted_.erase(address.text()) == 0) return;
  ++pending_;
  const Oracle::Key key{address.text(), url_};
  oracle_.OnWithdrawAsked(program(), key);
  const uint64_t asked = ++asked_[key.first];
  auto done = [this, key, asked, life = run](const Result<Revision>& result) {
    if (life != run) return;
    --pending_;
    if (result.ok() && asked == asked_[key.first]) oracle_.OnWithdrawn(core_->session_id(), key);
  };
  core_->Withdraw(address, EndpointUrl::Parse(url_).value(), std::move(done), BootClock::now());
  Act();
}

void ServiceProcess::Drain(bool undo) {
  if (closing_) return;
  draining_ = !undo;
  ++pending_;
  core_->Drain(
      undo,
      [this, life = run](const Result<Revision>&) {
        if (life == run) --pending_;
      },
      BootClock::now());
  Act();
}

void ServiceProcess::Play(Time until) {
  if (!up) return;
  scheduler_.After(scheduler_.Between(1s, 40s), this, [this, until] { PlayOnce(until); });
}

void ServiceProcess::PlayOnce(Time until) {
  if (scheduler_.now() >= until || closing_) return;
  const Address& address = options_.addresses[scheduler_.Below(options_.addresses.size())];
  const size_t what = scheduler_.Below(10);
  if (what == 0)
    Drain(draining_);
  else if (what < 6 || wanted_.size() <= 1)
    Register(address);
  else
    Withdraw(address);
  Play(until);
}

// ---- the shell

void ServiceProcess::Act() {
  for (TetherAction& action : core_->TakeActions()) {
    if (auto* connect = std::get_if<TetherConnect>(&action)) {
      Connect(connect->server);
    } else if (std::get_if<TetherDisconnect>(&action) != nullptr) {
      if (wire_) wire_->CloseByClient();
      wire_.reset();
    } else if (auto* send = std::get_if<TetherSend>(&action)) {
      Send(send->message);
    } else if (auto* finish = std::get_if<TetherFinish>(&action)) {
      finish->done(finish->result);
    } else if (auto* observe = std::get_if<TetherObserve>(&action)) {
      if (observe->line.find("session opened") == 0) ++sessions_seen_;
      if (observe->line.find("session ended: expired") == 0) ++expiries_seen_;
      if (scheduler_.tracing()) scheduler_.Say(name + ": " + observe->line);
    }
  }
  if (core_->closed() && up && closing_) scheduler_.After(0s, this, [this] { Kill(false); });
  Arm();
}

void ServiceProcess::Connect(size_t server) {
  if (wire_) wire_->CloseByClient();
  server_ = servers_[server];
  wire_ = network_.MakeWire(*this, *server_);
  recorded_.push_back({server_, {}});
  if (recorded_.size() > 4) recorded_.pop_front();
  const uint64_t attempt = ++attempt_;
  const auto current = [this, attempt] { return attempt == attempt_ && wire_ != nullptr; };
  auto on_message = [this, current](const pb::TetherResponse& message) {
    if (!current()) return;
    if (scheduler_.tracing() && message.has_done())
      scheduler_.Say(name + ": " + message.ShortDebugString());
    core_->OnMessage(message, BootClock::now());
    Act();
  };
  auto lost = [this, current](const Status& why) {
    if (!current()) return;
    core_->OnLost(why, BootClock::now());
    Act();
  };
  // What happens at this end happens to the life that opened it.
  wire_->Open([server = server_, wire = wire_, on_message] { server->Tether(wire, on_message); },
              [] {}, lost);
}

void ServiceProcess::Send(const pb::TetherRequest& message) {
  if (!wire_) return;
  recorded_.back().messages.push_back(message);
  if (scheduler_.tracing() && !message.has_heartbeat() && !message.has_hello())
    scheduler_.Say(name + " sends " + message.ShortDebugString());
  const bool twice = !message.has_hello() && !message.has_bye() && options_.duplicates > 0 &&
                     scheduler_.Chance(options_.duplicates);
  for (int i = 0; i < (twice ? 2 : 1); ++i)
    wire_->Up([server = server_, wire = wire_, message] { server->OnTether(*wire, message); });
}

void ServiceProcess::Replay() {
  const auto of_this_session = [this](const Recorded& stream) {
    return !stream.messages.empty() && !stream.messages.front().hello().session_id().empty();
  };
  const auto found = std::find_if(recorded_.begin(), recorded_.end(), of_this_session);
  if (found == recorded_.end()) return;
  const Recorded& old = *found;
  if (scheduler_.tracing()) scheduler_.Say("an old stream of " + name + " is replayed");
  const auto wire = network_.MakeWire(*this, *old.server);
  wire->Open(
      [server = old.server, wire] { server->Tether(wire, [](const pb::TetherResponse&) {}); },
      [] {}, [](const Status&) {});
  for (const pb::TetherRequest& message : old.messages)
    wire->Up([server = old.server, wire, message] { server->OnTether(*wire, message); });
}

void ServiceProcess::Tick() {
  core_->Tick(BootClock::now());
  Act();
}

void ServiceProcess::Arm() {
  const auto due = core_->NextDue();
  if (!due || (armed_ && *armed_ <= *due && *armed_ > clock.At(scheduler_.now()))) return;
  armed_ = due;
  scheduler_.At(clock.When(*due), this, [this, due] {
    if (armed_ != due) return;
    armed_.reset();
    Tick();
    Arm();
  });
}

std::string ServiceProcess::Settled() const {
  if (!up || closing_) return "";
  const Oracle::Session* session = oracle_.Find(core_->session_id());
  if (session == nullptr) return name + " holds no session";
  if (session->mark.has_value() != draining_) return name + " is in the wrong state";
  if (session->mark && *session->mark != pb::ENDPOINT_STATE_DRAINING) return name + " is suspect";
  if (pending_ > 0) return name + " waits for " + std::to_string(pending_) + " ops";
  for (const Address& address : options_.addresses) {
    const Oracle::Registration* found = oracle_.Find({address.text(), url_});
    const bool there = found != nullptr && !found->ended && found->session == core_->session_id();
    if (there == wanted_.contains(address.text())) continue;
    return name + (there ? " is still at " : " is not at ") + address.text();
  }
  return "";
}

}  // namespace datawire::sim
