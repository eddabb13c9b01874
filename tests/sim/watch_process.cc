#include "watch_process.h"

#include <algorithm>

namespace datawire::sim {

WatchProcess::WatchProcess(Network& network, Oracle& oracle, std::vector<DirectoryNode*> servers,
                           std::string the_name)
    : Process(std::move(the_name)),
      network_(network),
      scheduler_(network.scheduler()),
      oracle_(oracle),
      servers_(std::move(servers)) {}

void WatchProcess::Start() {
  up = true;
  Connect();
}

void WatchProcess::Connect() {
  DirectoryNode* server = servers_[server_++ % servers_.size()];
  wire_ = network_.MakeWire(*this, *server);
  const uint64_t attempt = ++attempt_;
  heard_ = scheduler_.now();
  part_.Clear();
  snapshot_ = false;
  pb::WatchRequest request;
  if (known_) {
    request.mutable_after()->set_epoch(1);
    request.mutable_after()->set_number(position_);
  }
  auto on_message = [this, attempt](const std::string& bytes) {
    if (attempt == attempt_) OnMessage(bytes);
  };
  wire_->Open(
      [server, wire = wire_, request, on_message] { server->Watch(wire, request, on_message); },
      [] {},
      [this, attempt](const Status&) {
        if (attempt == attempt_) Again();
      });
  // Progress comes each second: silence is a dead stream.
  const auto look = [this, attempt](const auto& self) -> void {
    if (attempt != attempt_) return;
    if (scheduler_.now() - heard_ > 10s) return Again();
    scheduler_.After(3s, this, [self] { self(self); });
  };
  scheduler_.After(3s, this, [look] { look(look); });
}

void WatchProcess::Again() {
  if (wire_) wire_->CloseByClient();
  wire_.reset();
  ++attempt_;
  scheduler_.After(scheduler_.Between(10ms, 2s), this, [this] { Connect(); });
}

void WatchProcess::OnMessage(const std::string& bytes) {
  heard_ = scheduler_.now();
  pb::WatchResponse message;
  if (!message.ParseFromString(bytes)) return scheduler_.Fail(name + ": garbage");
  using Kind = pb::WatchResponse;
  const uint64_t at = message.revision().number();
  switch (message.kind()) {
    case Kind::KIND_CHANGES_PART:
    case Kind::KIND_CHANGES:
      return OnChanges(message);
    case Kind::KIND_SNAPSHOT_BEGIN:
      snapshot_ = true;
      return;
    case Kind::KIND_SNAPSHOT:
      if (!snapshot_) scheduler_.Fail(name + ": a snapshot without a beginning");
      return;
    case Kind::KIND_SNAPSHOT_END:
      if (known_) scheduler_.Fail(name + ": a snapshot it did not ask for");
      snapshot_ = false;
      known_ = true;
      position_ = at;
      return;
    case Kind::KIND_RESYNC:
      return scheduler_.Fail(name + ": RESYNC at " + std::to_string(position_) +
                             ", history reaches back");
    case Kind::KIND_PROGRESS:
      break;
    default:
      return scheduler_.Fail(name + ": a message of an unknown kind");
  }
  if (!known_ || at < position_) return scheduler_.Fail(name + ": progress steps back");
  const auto& events = oracle_.events();
  const auto next = std::upper_bound(events.begin(), events.end(), position_,
                                     [](uint64_t p, const auto& e) { return p < e.first; });
  if (next != events.end() && next->first <= at)
    scheduler_.Fail(name + ": progress to " + std::to_string(at) + " without the events of " +
                    std::to_string(next->first));
  position_ = at;
}

void WatchProcess::OnChanges(const pb::WatchResponse& message) {
  const uint64_t at = message.revision().number();
  part_.mutable_events()->MergeFrom(message.events());
  if (message.kind() == pb::WatchResponse::KIND_CHANGES_PART) return;
  const auto& events = oracle_.events();
  const auto next = std::upper_bound(events.begin(), events.end(), position_,
                                     [](uint64_t p, const auto& e) { return p < e.first; });
  if (!known_ || next == events.end() || next->first != at)
    return scheduler_.Fail(name + ": changes of " + std::to_string(at) + " follow " +
                           std::to_string(position_) + ", expected " +
                           (next == events.end() ? "none" : std::to_string(next->first)));
  record::v1::History expected;
  expected.ParseFromString(next->second);
  if (expected.SerializeAsString() != part_.SerializeAsString())
    scheduler_.Fail(name + ": not the whole revision " + std::to_string(at));
  part_.Clear();
  position_ = at;
}

std::string WatchProcess::Settled() const {
  if (!known_) return name + " has no snapshot";
  const auto& events = oracle_.events();
  if (!events.empty() && position_ < events.back().first)
    return name + " is at " + std::to_string(position_) + ", not at " +
           std::to_string(events.back().first);
  return "";
}

}  // namespace datawire::sim
