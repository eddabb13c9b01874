#include "core/members.h"

#include <algorithm>

#include "datawire/mutex.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;

constexpr auto kMost = 1s;
constexpr auto kLate = 500ms;  // for what a deadline of kMost ends

constexpr auto kCompareMost = 1min;
constexpr auto kCompareEarly = 500ms;  // before the deadline of who asks

/// What comes in from several sides. Thread-safe.
struct Answers {
  Mutex mutex;
  Condition came;
  std::map<std::string, Result<pb::StatusResponse>> by_id DW_GUARDED_BY(mutex);
};

void Show(const KnownNode& node, pb::MembersResponse::Node* out) {
  out->set_id(node.id);
  out->set_address(node.address);
  out->set_version(node.version);
  out->set_incarnation(node.incarnation);
  out->set_started_wall_ms(node.started_wall_ms);
  for (const std::string& role : node.roles) out->add_roles(role);
  out->set_applied(node.applied);
}

void Show(const Log::Member& member, pb::MembersResponse::Etcd* out) {
  out->set_endpoint(member.endpoint);
  out->set_reachable(member.reached.ok());
  out->set_reason(member.reached.ok() ? member.reason : member.reached.message());
  out->set_leader(member.leader);
  out->set_version(member.version);
  out->set_revision(member.revision);
  out->set_db_bytes(member.db_bytes);
  out->set_in_use_bytes(member.in_use_bytes);
  out->set_no_space(member.no_space);
}

/// Empty: it is the status of that node.
std::string WhyNot(const KnownNode& node,
                   const std::map<std::string, Result<pb::StatusResponse>>& answers,
                   const pb::Source& source) {
  const auto answer = answers.find(node.id);
  if (answer == answers.end())
    return node.alive ? "it was not asked"
                      : "it holds no lease: it has stopped, or is cut off from etcd";
  if (!answer->second.ok()) return answer->second.status().message();
  const pb::Source& said = answer->second->source();
  if (said.node_id() == node.id && said.cluster_id() == source.cluster_id()) return "";
  return "node " + said.node_id() + " of cluster " + said.cluster_id() + " answers there";
}

}  // namespace

pb::MembersResponse ComposeMembers(const std::vector<KnownNode>& nodes,
                                   const std::map<std::string, Result<pb::StatusResponse>>& answers,
                                   const std::vector<Log::Member>& log, const pb::Source& source) {
  pb::MembersResponse out;
  *out.mutable_source() = source;
  uint64_t newest = 0;
  for (const KnownNode& node : nodes) {
    pb::MembersResponse::Node* const shown = out.add_nodes();
    Show(node, shown);
    shown->set_unreachable(WhyNot(node, answers, source));
    if (!shown->unreachable().empty()) continue;
    *shown->mutable_status() = *answers.at(node.id);
    newest = std::max<uint64_t>(newest, shown->status().revision().number());
  }
  for (const Log::Member& member : log) {
    Show(member, out.add_etcd());
    newest = std::max(newest, member.revision);
  }
  for (auto& node : *out.mutable_nodes())
    if (node.has_status()) node.set_lag(newest - node.status().revision().number());
  return out;
}

Result<pb::MembersResponse> AskMembers(const Ground& ground, const pb::StatusResponse& own) {
  DW_ASSIGN(std::vector<KnownNode> nodes, ReadNodes(ground.view));
  const std::string& self = ground.options.node_id;
  const auto place =
      std::lower_bound(nodes.begin(), nodes.end(), self,
                       [](const KnownNode& node, const std::string& id) { return node.id < id; });
  if (place == nodes.end() || place->id != self) nodes.insert(place, KnownNode{.id = self});
  const auto answers = std::make_shared<Answers>();
  {
    const MutexLock lock(answers->mutex);
    answers->by_id.emplace(self, own);
  }
  size_t asked = 1;
  const BootTime until = BootClock::now() + kMost;
  for (KnownNode& node : nodes) {
    if (node.id == self) {
      node.version = own.version();
      node.incarnation = ground.options.incarnation;
    } else if (node.alive && ground.options.nodes != nullptr) {
      ++asked;
      ground.options.nodes->GetStatus(node.address, until,
                                      [answers, id = node.id](Result<pb::StatusResponse> result) {
                                        const MutexLock lock(answers->mutex);
                                        answers->by_id.emplace(id, std::move(result));
                                        answers->came.notify_one();
                                      });
    }
  }
  const auto log = ground.log.Members(kMost);
  MutexLock lock(answers->mutex);
  const auto left = until + kLate - BootClock::now();
  if (!answers->came.wait_for(
          lock, left, [&]() DW_REQUIRES(answers->mutex) { return answers->by_id.size() == asked; }))
    for (const KnownNode& node : nodes)
      if (node.alive) answers->by_id.emplace(node.id, Status(Code::kTimeout, "it does not answer"));
  return ComposeMembers(nodes, answers->by_id, log, ground.source);
}

void CompareReplicas(Ground& ground, const Peer& peer,
                     std::function<void(Result<pb::CompareResponse>)> done) {
  const BootTime until = std::min(peer.deadline, BootClock::now() + kCompareMost) - kCompareEarly;
  ground.log.Compare(until, [source = ground.source,
                             done = std::move(done)](const Result<Log::Comparison>& found) {
    if (!found.ok()) return done(found.status());
    pb::CompareResponse out;
    ToWire(found->at, out.mutable_revision());
    for (const auto& [node, hash] : found->hashes) {
      auto* const replica = out.add_replicas();
      replica->set_node(node);
      replica->set_hash(hash);
    }
    out.mutable_missing()->Assign(found->missing.begin(), found->missing.end());
    *out.mutable_source() = source;
    done(std::move(out));
  });
}

Result<Plan> PlanForget(const Ground& ground, const Peer& peer, const std::string& node) {
  if (!ground.log.shared())
    return Status(Code::kUnsupported, "the embedded engine has one node: none to forget");
  DW_ASSIGN(const auto alive, ReadAlive(ground.view, node));
  if (alive || node == ground.options.node_id)
    return Status(Code::kConflict,
                  "node " + Shown(node) + " lives: stop it first, its lease ends within 10 s");
  const std::string applied_key = "a/" + node, key = "f/" + node;
  DW_ASSIGN(const auto applied, ground.view.Get(applied_key));
  DW_ASSIGN(const auto forgotten, ground.view.Get(key));
  Plan plan;
  if (!applied && !forgotten)
    return Status(Code::kNotFound, "node " + Shown(node) + " is none of this cluster");
  if (!applied) {
    plan.already = ground.At(forgotten->modified);
    return plan;
  }
  record::v1::NodeForgotten said;
  said.set_by(NameOf(peer));
  said.set_at_wall_ms(WallMillis());
  said.set_peer(peer.address);
  plan.op.guards = {{Guard::kAbsent, "alive/" + node, 0},
                    {Guard::kModEquals, applied_key, applied->modified}};
  plan.op.changes = {{true, applied_key, ""}, {false, key, said.SerializeAsString()}};
  return plan;
}

}  // namespace datawire::directory
