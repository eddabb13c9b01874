#include <algorithm>
#include <nlohmann/json.hpp>

#include "datawire/wire.h"
#include "render.h"
#include "verbs.h"

// dw status --cluster: every node and who keeps their log. dw cluster: what they hold; one that
// stopped for good.

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using Node = pb::MembersResponse::Node;
using Member = pb::MembersResponse::Etcd;

bool Well(const Node& node) {
  return node.has_status() && node.status().healthy() && !node.status().quarantined();
}

bool Well(const Member& member) {
  return member.reachable() && member.reason().empty();
}

std::string StateOf(const Node& node) {
  if (!node.has_status()) return "unreachable";
  if (node.status().quarantined()) return "quarantined";
  return node.status().healthy() ? "healthy" : "unhealthy";
}

std::string ReasonOf(const Node& node) {
  if (!node.has_status()) return node.unreachable();
  return node.status().reason().empty() ? node.status().alarm() : node.status().reason();
}

std::string RolesOf(const Node& node) {
  std::string text;
  for (const std::string& role : node.roles()) text += (text.empty() ? "" : ",") + role;
  return text;
}

// Of a node that does not answer only what it told all is known: the rest is null.
Json NodeJson(const Node& node) {
  const bool known = node.has_status();
  const pb::StatusResponse& s = node.status();
  Json roles = Json::array();
  for (const std::string& role : node.roles()) roles.push_back(role);
  return {{"id", node.id()},
          {"address", node.address()},
          {"version", node.version()},
          {"incarnation", node.incarnation()},
          {"roles", std::move(roles)},
          {"state", StateOf(node)},
          {"reason", ReasonOf(node)},
          {"revision", known ? ToJson(FromWire(s.revision())) : Json()},
          {"applied_on_disc", node.applied() == 0 ? Json() : Json(node.applied())},
          {"lag", known ? Json(node.lag()) : Json()},
          {"age_ms", known ? Json(s.age_ms()) : Json()},
          {"sessions_held", known ? Json(s.sessions_held()) : Json()},
          {"brake_on", known ? Json(s.brake_on()) : Json()},
          {"quarantined", known ? Json(s.quarantined()) : Json()}};
}

Json MemberJson(const Member& member) {
  const bool known = member.reachable();
  return {{"endpoint", member.endpoint()},
          {"state", !known         ? "unreachable"
                    : Well(member) ? "healthy"
                                   : "unhealthy"},
          {"reason", member.reason()},
          {"leader", known ? Json(member.leader()) : Json()},
          {"version", member.version()},
          {"revision", known ? Json(member.revision()) : Json()},
          {"db_bytes", known ? Json(member.db_bytes()) : Json()},
          {"in_use_bytes", known ? Json(member.in_use_bytes()) : Json()},
          {"no_space", known ? Json(member.no_space()) : Json()}};
}

std::string SizeText(uint64_t bytes) {
  if (bytes < 10ull << 20) return std::to_string(bytes >> 10) + " KiB";
  return std::to_string(bytes >> 20) + " MiB";
}

std::string OrDash(const std::string& text) {
  return text.empty() ? "-" : Printable(text);
}

std::string NodesText(const pb::MembersResponse& response, bool wide) {
  std::vector<std::string> heading{"NODE", "ADDRESS", "STATE",    "REVISION",
                                   "LAG",  "AGE",     "SESSIONS", "ROLES"};
  if (wide)
    heading.insert(heading.end(), {"VERSION", "INCARNATION", "BRAKE", "QUARANTINE", "REASON"});
  Table table(heading);
  for (const Node& node : response.nodes()) {
    const bool known = node.has_status();
    const pb::StatusResponse& s = node.status();
    std::vector<std::string> row{Printable(node.id()),
                                 OrDash(node.address()),
                                 StateOf(node),
                                 known ? FromWire(s.revision()).ToString() : "-",
                                 known ? std::to_string(node.lag()) : "-",
                                 known ? std::to_string(s.age_ms()) + " ms" : "-",
                                 known ? std::to_string(s.sessions_held()) : "-",
                                 OrDash(RolesOf(node))};
    if (wide)
      row.insert(row.end(), {OrDash(node.version()), OrDash(node.incarnation()),
                             !known         ? "-"
                             : s.brake_on() ? "on"
                                            : "off",
                             !known            ? "-"
                             : s.quarantined() ? "yes"
                                               : "no",
                             OrDash(ReasonOf(node))});
    table.Add(std::move(row));
  }
  return table.Text();
}

std::string MembersText(const pb::MembersResponse& response, bool wide) {
  std::vector<std::string> heading{"ETCD", "STATE", "LEADER", "VERSION", "DB", "IN USE", "QUOTA"};
  if (wide) heading.insert(heading.end(), {"REVISION", "REASON"});
  Table table(heading);
  for (const Member& member : response.etcd()) {
    const bool known = member.reachable();
    std::vector<std::string> row{Printable(member.endpoint()),
                                 !known         ? "unreachable"
                                 : Well(member) ? "healthy"
                                                : "unhealthy",
                                 !known            ? "-"
                                 : member.leader() ? "yes"
                                                   : "no",
                                 OrDash(member.version()),
                                 known ? SizeText(member.db_bytes()) : "-",
                                 known ? SizeText(member.in_use_bytes()) : "-",
                                 !known              ? "-"
                                 : member.no_space() ? "reached"
                                                     : "ok"};
    if (wide)
      row.insert(row.end(),
                 {known ? std::to_string(member.revision()) : "-", OrDash(member.reason())});
    table.Add(std::move(row));
  }
  return table.Text();
}

std::string TextOf(const pb::MembersResponse& response, Format format) {
  std::string text;
  if (format == Format::kJson) {
    Json nodes = Json::array(), etcd = Json::array();
    for (const Node& node : response.nodes()) nodes.push_back(NodeJson(node));
    for (const Member& member : response.etcd()) etcd.push_back(MemberJson(member));
    return Pretty({{"cluster", response.source().cluster_id()},
                   {"asked", response.source().node_id()},
                   {"nodes", std::move(nodes)},
                   {"etcd", std::move(etcd)}});
  }
  if (format == Format::kJsonLines) {
    for (const Node& node : response.nodes()) text += Line({{"node", NodeJson(node)}}) + "\n";
    for (const Member& member : response.etcd())
      text += Line({{"etcd", MemberJson(member)}}) + "\n";
    return text;
  }
  if (format == Format::kName || format == Format::kShort) {
    for (const Node& node : response.nodes())
      text += Printable(node.id()) + (format == Format::kShort ? " " + StateOf(node) : "") + "\n";
    return text;
  }
  const bool wide = format == Format::kWide;
  text = NodesText(response, wide);
  return response.etcd().empty() ? text : text + "\n" + MembersText(response, wide);
}

std::string TextOf(const pb::CompareResponse& response, bool equal, Format format) {
  std::string text;
  if (IsJson(format)) {
    Json replicas = Json::object(), missing = Json::array();
    for (const auto& replica : response.replicas()) replicas[replica.node()] = replica.hash();
    for (const std::string& node : response.missing()) missing.push_back(node);
    const Json value{{"revision", ToJson(FromWire(response.revision()))},
                     {"equal", equal},
                     {"replicas", std::move(replicas)},
                     {"missing", std::move(missing)}};
    return format == Format::kJson ? Pretty(value) : Line(value) + "\n";
  }
  if (format == Format::kName || format == Format::kShort) {
    for (const auto& replica : response.replicas())
      text += Printable(replica.node()) +
              (format == Format::kShort ? " " + Printable(replica.hash()) : "") + "\n";
    return text;
  }
  Table table({"NODE", "REVISION", "HASH"});
  const std::string at = FromWire(response.revision()).ToString();
  for (const auto& replica : response.replicas())
    table.Add({Printable(replica.node()), at, Printable(replica.hash())});
  for (const std::string& node : response.missing()) table.Add({Printable(node), at, "-"});
  return table.Text();
}

Result<int> CompareAll(Session& session) {
  DW_ASSIGN(const auto response, session.api.Compare());
  const auto& replicas = response.replicas();
  const bool same = std::all_of(replicas.begin(), replicas.end(), [&](const auto& replica) {
    return replica.hash() == replicas[0].hash();
  });
  const bool equal = same && response.missing().empty();
  session.console.Print(TextOf(response, equal, session.arguments.format));
  if (equal) return 0;
  std::string missing;
  for (const std::string& node : response.missing())
    missing += (missing.empty() ? "" : ", ") + Printable(node);
  session.console.Tell(same ? "not compared in time: " + missing
                            : "replicas differ; who is wrong finds it out and begins anew");
  return MappingOf(Code::kUnavailable).exit_code;
}

Result<int> ForgetIt(Session& session, const std::string& node) {
  pb::ForgetNodeRequest request;
  request.set_node(node);
  DW_ASSIGN(const auto response, session.api.ForgetNode(request));
  const Revision revision = FromWire(response.revision());
  const Format format = session.arguments.format;
  if (IsJson(format)) {
    const Json value{{"node", node}, {"state", "forgotten"}, {"revision", ToJson(revision)}};
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else if (format == Format::kName || format == Format::kShort) {
    session.console.Print(Printable(node) + "\n");
  } else {
    session.console.Print("forgotten " + Printable(node) + "  revision " + revision.ToString() +
                          "\n");
  }
  return 0;
}

}  // namespace

Result<int> Cluster(Session& session) {
  const auto& words = session.arguments.words;
  const bool forget = words[0] == "forget";
  if (!forget && words[0] != "compare")
    return Status(Code::kInvalid,
                  "cluster " + datawire::Shown(words[0]) + " is none of compare, forget");
  if (words.size() != (forget ? 2u : 1u))
    return Status(Code::kInvalid, "cluster " + words[0] +
                                      (forget ? " takes the id of a NODE" : " takes no argument"));
  return forget ? ForgetIt(session, words[1]) : CompareAll(session);
}

Result<int> ShowCluster(Session& session) {
  DW_ASSIGN(const auto response, session.api.Members());
  session.console.Print(TextOf(response, session.arguments.format));
  std::string bad;
  const auto add = [&bad](const std::string& who, const std::string& why) {
    bad += (bad.empty() ? "" : "; ") + who + ": " + Printable(why);
  };
  for (const Node& node : response.nodes())
    if (!Well(node)) add("node " + node.id() + " is " + StateOf(node), ReasonOf(node));
  for (const Member& member : response.etcd())
    if (!Well(member)) add("etcd " + member.endpoint(), member.reason());
  if (bad.empty()) return 0;
  session.console.Tell(bad);
  return MappingOf(Code::kUnavailable).exit_code;
}

}  // namespace datawire::cli
