#include "network.h"

#include <algorithm>

namespace datawire::sim {

void Wire::Open(Task accepted, Task connected, std::function<void(const Status&)> lost) {
  lost_ = std::move(lost);
  auto self = shared_from_this();
  const auto arrived = [self, accepted, connected] {
    if (self->broken_) return;
    if (!self->server_.up) {
      self->refused_ = true;
      return self->TellLost({Code::kUnavailable, "connection refused"});
    }
    self->server_open_ = true;
    accepted();
    self->Down(connected);
  };
  network_.Send(client_, server_, {self, &up_last_, arrived, false});
}

void Wire::Up(Task deliver) {
  if (!client_open_) return;
  auto self = shared_from_this();
  auto arrived = [self, deliver = std::move(deliver)] {
    if (self->server_open_) deliver();
  };
  network_.Send(client_, server_, {self, &up_last_, std::move(arrived), false});
}

void Wire::Down(Task deliver) {
  if (!server_open_) return;
  auto self = shared_from_this();
  auto arrived = [self, deliver = std::move(deliver)] {
    if (self->client_open_) deliver();
  };
  network_.Send(server_, client_, {self, &down_last_, std::move(arrived), false});
}

void Wire::CloseByClient() {
  if (!std::exchange(client_open_, false)) return;
  TellGone();
}

void Wire::CloseByServer(const Status& status) {
  if (!std::exchange(server_open_, false)) return;
  gone_ = {};
  TellLost(status);
}

void Wire::TellGone() {
  auto self = shared_from_this();
  const auto arrived = [self] {
    if (!std::exchange(self->server_open_, false)) return;
    if (const Task gone = std::move(self->gone_)) gone();
  };
  network_.Send(client_, server_, {self, &up_last_, arrived, true});
}

void Wire::TellLost(const Status& status) {
  auto self = shared_from_this();
  const auto arrived = [self, status] {
    if (!std::exchange(self->client_open_, false)) return;
    if (const auto lost = std::move(self->lost_)) lost(status);
  };
  network_.Send(server_, client_, {self, &down_last_, arrived, true});
}

void Wire::Break() {
  if (std::exchange(broken_, true)) return;
  TellGone();
  TellLost({Code::kUnavailable, "connection reset"});
}

void Wire::EndDied(const Process& which, bool silently) {
  if (&which == &client_) {
    client_open_ = false;
    lost_ = {};
    if (!silently) TellGone();
  } else {
    server_open_ = false;
    gone_ = {};
    if (!silently && client_open_) TellLost({Code::kUnavailable, "connection reset"});
  }
}

std::shared_ptr<Wire> Network::MakeWire(Process& client, Process& server) {
  std::erase_if(wires_, [](const auto& wire) { return wire.use_count() == 1; });
  wires_.push_back(std::make_shared<Wire>(*this, ++made_, client, server));
  return wires_.back();
}

Network::Path& Network::PathOf(Process& from, Process& to) {
  const auto [it, added] = paths_.try_emplace({&from, &to});
  if (added) known_.emplace_back(&from, &to);
  return it->second;
}

Time Network::Delay() {
  const double x = scheduler_.Real();
  return 100us + Time(static_cast<int64_t>(x * x * x * x * double(delay_most.count())));
}

void Network::Send(Process& from, Process& to, Message message) {
  Path& path = PathOf(from, to);
  if (path.cut > 0) {
    path.held.push_back(std::move(message));
    return;
  }
  Time when = scheduler_.now() + Delay();
  if (message.last != nullptr) when = *message.last = std::max(when, *message.last);
  scheduler_.ToMachine(when, &to, [message = std::move(message)] {
    if (message.wire && message.wire->broken_ && !message.tells) return;
    message.arrived();
  });
}

void Network::Heal(Process& from, Process& to) {
  Path& path = PathOf(from, to);
  if (path.cut == 0 || --path.cut > 0) return;
  for (Message& message : std::exchange(path.held, {})) Send(from, to, std::move(message));
}

void Network::HealAll() {
  for (const auto& [from, to] : known_) {
    Path& path = PathOf(*from, *to);
    path.cut = std::min(path.cut, 1);
    Heal(*from, *to);
  }
}

void Network::BreakAll(Process& process) {
  const auto wires = wires_;
  for (const auto& wire : wires)
    if (&wire->client() == &process || &wire->server() == &process) wire->Break();
}

void Network::Died(Process& process, bool silently) {
  const auto wires = wires_;
  for (const auto& wire : wires)
    if (&wire->client() == &process || &wire->server() == &process)
      wire->EndDied(process, silently);
}

}  // namespace datawire::sim
