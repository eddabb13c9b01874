#include "core/everywhere.h"

#include <algorithm>

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

constexpr auto kAgain = 250ms;  // a node that could not be reached
constexpr auto kReply = 1s;     // beyond the time to wait: then it does not answer

uint64_t MsUntil(BootTime until, BootTime now) {
  return std::max<int64_t>(std::chrono::ceil<milliseconds>(until - now).count(), 0);
}

}  // namespace

std::string Everywhere::At(const std::string& peer, const std::string& node) const {
  return ground_->log.shared() ? peer + " at node " + node : peer;
}

void Everywhere::Await(std::vector<Published::Change> targets, Revision at, BootTime until,
                       Acknowledgements::Done done) {
  auto gathering = std::make_shared<Gathering>();
  gathering->until = until;
  gathering->done = std::move(done);
  ToWire(at, gathering->request.mutable_revision());
  for (const Published::Change& target : targets) {
    auto* const out = gathering->request.add_targets();
    out->set_address(target.address.text());
    out->set_subtree(target.subtree);
  }
  if (ground_->options.nodes != nullptr && ground_->log.shared()) {
    auto nodes = ReadNodes(ground_->view);
    if (!nodes.ok()) return gathering->done(nodes.status());
    for (KnownNode& node : *nodes)
      if (node.alive && node.id != ground_->options.node_id) {
        Part& part = gathering->parts[node.id];
        part.node = std::move(node);
      }
  }
  std::vector<std::string> ids;
  for (const auto& [id, part] : gathering->parts) ids.push_back(id);
  bool stopped;
  {
    const MutexLock lock(mu_);
    stopped = stopped_;
    if (!stopped) gatherings_.push_back(gathering);
  }
  if (stopped) return gathering->done(Status(Code::kUnavailable, "this node stops"));
  auto self = shared_from_this();
  for (const std::string& id : ids) Ask(gathering, id);
  here_->Await(std::move(targets), at, until, [self, gathering](const Result<Left>& result) {
    self->HereDone(gathering, result);
  });
}

void Everywhere::Ask(const Shared& gathering, const std::string& id) {
  const BootTime now = ground_->now();
  pb::AcknowledgedRequest request = gathering->request;
  request.set_within_ms(MsUntil(gathering->until, now));
  std::string address;
  int round;
  {
    const MutexLock lock(mu_);
    Part& part = gathering->parts.at(id);
    part.asked = true;
    round = ++part.round;
    address = part.node.address;
  }
  const auto deadline = BootClock::now() + milliseconds(request.within_ms()) + kReply;
  ground_->options.nodes->Acknowledged(address, request, deadline,
                                       [self = shared_from_this(), gathering, id,
                                        round](const Result<pb::AcknowledgedResponse>& result) {
                                         self->Answered(gathering, id, round, result);
                                       });
}

void Everywhere::Answered(const Shared& gathering, const std::string& id, int round,
                          const Result<pb::AcknowledgedResponse>& result) {
  {
    const MutexLock lock(mu_);
    Part& part = gathering->parts.at(id);
    if (part.over || part.round != round) return;
    part.asked = false;
    if (result.ok()) {
      part.over = true;
      gathering->total += result->waiting_total();
      for (const std::string& peer : result->waiting()) gathering->peers.push_back(At(peer, id));
    } else {
      part.why = result.status().message();
      part.again = ground_->now() + kAgain;
    }
  }
  EndIfOver(gathering);
}

void Everywhere::HereDone(const Shared& gathering, const Result<Left>& result) {
  if (!result.ok()) return EndIfOver(gathering, result.status());
  {
    const MutexLock lock(mu_);
    gathering->here_over = true;
    gathering->total += result->total;
    for (const std::string& peer : result->shown)
      gathering->peers.push_back(At(peer, ground_->options.node_id));
  }
  EndIfOver(gathering);
}

void Everywhere::EndIfOver(const Shared& gathering, const Status& failed) {
  Left left;
  {
    const MutexLock lock(mu_);
    const bool over = gathering->here_over &&
                      std::all_of(gathering->parts.begin(), gathering->parts.end(),
                                  [](const auto& id_and_part) { return id_and_part.second.over; });
    if (failed.ok() && !over) return;
    if (std::erase(gatherings_, gathering) == 0) return;  // told already
    left.total = gathering->total;
    left.shown = std::move(gathering->nodes);
    for (std::string& peer : gathering->peers) left.shown.push_back(std::move(peer));
    if (left.shown.size() > kPeersShown) left.shown.resize(kPeersShown);
  }
  if (failed.ok())
    gathering->done(std::move(left));
  else
    gathering->done(failed);
}

void Everywhere::Look(const Shared& gathering, const std::string& id, BootTime now) {
  const auto alive = ReadAlive(ground_->view, id);
  bool ask = false;
  {
    const MutexLock lock(mu_);
    Part& part = gathering->parts.at(id);
    if (part.over) return;
    const bool gone = alive.ok() && !*alive;
    if (alive.ok() && *alive && (*alive)->incarnation != part.node.incarnation) {
      part.node = **alive;
      part.asked = false;
    }
    const bool late = now >= gathering->until + kReply || (now >= gathering->until && !part.asked);
    ask = !gone && !late && !part.asked && now >= part.again;
    if (gone || late) part.over = true;  // who is gone has no subscribers
    if (late && !gone) {
      ++gathering->total;
      gathering->nodes.push_back("node " + id + " (" +
                                 (part.why.empty() ? "it does not answer" : part.why) + ")");
    }
  }
  if (ask) return Ask(gathering, id);
  EndIfOver(gathering);
}

void Everywhere::Tick(BootTime now) {
  std::vector<std::pair<Shared, std::string>> open;
  {
    const MutexLock lock(mu_);
    for (const Shared& gathering : gatherings_)
      for (const auto& [id, part] : gathering->parts)
        if (!part.over) open.emplace_back(gathering, id);
  }
  for (const auto& [gathering, id] : open) Look(gathering, id, now);
}

void Everywhere::Stop() {
  std::list<Shared> ended;
  {
    const MutexLock lock(mu_);
    stopped_ = true;
    ended = gatherings_;
  }
  for (const Shared& gathering : ended)
    EndIfOver(gathering, Status(Code::kUnavailable, "this node stops"));
}

}  // namespace datawire::directory
