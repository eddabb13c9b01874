#include "doctor.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include "datawire/limits.h"

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;

// Nothing but what people read depends on wall clocks, so a difference is no failure.
constexpr milliseconds kClockMost{1000};
constexpr uint64_t kFilesHereLeast = 256;
constexpr uint64_t kDiscWarn = 1ull << 30;   // a day of a busy directory's log and compaction
constexpr uint64_t kDiscFail = 64ull << 20;  // near it the server takes only what frees space

std::string Size(uint64_t bytes) {
  if (bytes >= 10ull << 30) return std::to_string(bytes >> 30) + " GiB";
  return std::to_string(bytes >> 20) + " MiB";
}

/// The findings of one server.
class Examination {
 public:
  Examination(const Examined& examined, std::vector<Finding>* out)
      : server_(examined.server), examined_(examined), out_(out) {}

  void Run(const std::string& version) {
    if (!examined_.status.ok())
      return Add(Verdict::kFail, "server", examined_.status.status().message(),
                 "start it, or name the right one with --directory");
    const pb::StatusResponse& status = *examined_.status;
    Add(Verdict::kOk, "server",
        "node " + status.source().node_id() + " answers in " +
            std::to_string(examined_.took.count()) + " ms");
    Health(status);
    Clock(status);
    Version(status, version);
    Files(status);
    Disc(status);
  }

 private:
  void Health(const pb::StatusResponse& status) {
    if (!status.healthy())
      return Add(Verdict::kFail, "health", "it does not commit: " + status.reason(),
                 "see its log; after a disc failure it must be restarted");
    if (status.brake_on())
      return Add(Verdict::kWarn, "health",
                 "the brake on mass expiry is on: " + std::to_string(status.sessions_suspect()) +
                     " of " + std::to_string(status.sessions()) + " sessions are suspect",
                 "look for what cut so many off at once; it releases by itself");
    Add(Verdict::kOk, "health",
        "it commits; " + std::to_string(status.registrations()) + " registrations, " +
            std::to_string(status.sessions()) + " sessions");
  }

  void Clock(const pb::StatusResponse& status) {
    if (status.wall_ms() == 0) return Unknown("clock");
    const int64_t ahead = status.wall_ms() - examined_.here_wall_ms;
    const int64_t apart = ahead < 0 ? -ahead : ahead;
    const std::string what = "its clock is " + std::to_string(apart) + " ms " +
                             (ahead < 0 ? "behind" : "ahead of") + " this machine's";
    // What the call took may lie on one side of it only.
    if (milliseconds(apart) <= kClockMost + examined_.took) return Add(Verdict::kOk, "clock", what);
    Add(Verdict::kWarn, "clock", what,
        "synchronise both machines: nothing expires by it, but times in logs and histories "
        "mislead");
  }

  void Version(const pb::StatusResponse& status, const std::string& version) {
    if (status.version() == version)
      return Add(Verdict::kOk, "version", "it is " + version + ", as this dw");
    Add(Verdict::kWarn, "version", "it is " + status.version() + ", this dw is " + version,
        "install the same version on both");
  }

  void Files(const pb::StatusResponse& status) {
    const uint64_t open = status.open_files(), most = status.open_files_most();
    if (most == 0) return Unknown("files");
    const std::string what =
        std::to_string(open) + " of " + std::to_string(most) + " files are open";
    const std::string remedy =
        "raise its limit of open files (LimitNOFILE= of its unit, ulimit -Hn)";
    if (open >= most - most / 20) return Add(Verdict::kFail, "files", what, remedy);
    if (open >= most - most / 5 || most < limits::kFilesEnough)
      return Add(Verdict::kWarn, "files", what, remedy);
    Add(Verdict::kOk, "files", what);
  }

  void Disc(const pb::StatusResponse& status) {
    const uint64_t free = status.disc_free_bytes(), all = status.disc_bytes();
    if (all == 0) return Unknown("disc");
    const std::string what =
        Size(free) + " of " + Size(all) + " are free on the disc of its data directory";
    const std::string remedy = "free some, or give the data directory a larger disc";
    if (free < kDiscFail) return Add(Verdict::kFail, "disc", what, remedy);
    if (free < kDiscWarn || free < all / 20) return Add(Verdict::kWarn, "disc", what, remedy);
    Add(Verdict::kOk, "disc", what);
  }

  void Unknown(const char* check) {
    Add(Verdict::kWarn, check, "it does not say: it is older than this dw",
        "install the same version on both");
  }
  void Add(Verdict verdict, std::string check, std::string what, std::string remedy = "") {
    out_->push_back({verdict, std::move(check), server_, std::move(what), std::move(remedy)});
  }

  const std::string& server_;
  const Examined& examined_;
  std::vector<Finding>* out_;
};

Finding Cluster(const std::vector<Examined>& servers) {
  std::set<std::string> clusters;
  std::string each;
  for (const Examined& one : servers) {
    if (!one.status.ok()) continue;
    const pb::Source& source = one.status->source();
    clusters.insert(source.cluster_id() + " of epoch " + std::to_string(source.epoch()));
    each += (each.empty() ? "" : ", ") + one.server + " is of " + source.cluster_id() +
            " of epoch " + std::to_string(source.epoch());
  }
  if (clusters.size() == 1) return {Verdict::kOk, "cluster", "", "it is " + *clusters.begin(), ""};
  return {Verdict::kFail, "cluster", "", each,
          "name servers of one cluster: a resolver takes the answers of one only"};
}

/// The commands that make space: the past goes, up to where all live nodes are. A member stands
/// still while it is defragmented, so the leader comes last.
std::string SpaceRemedy(const pb::MembersResponse& members) {
  std::string followers, leader;
  for (const auto& member : members.etcd()) {
    std::string& list = member.leader() ? leader : followers;
    list += (list.empty() ? "" : ",") + member.endpoint();
  }
  uint64_t to = UINT64_MAX;
  for (const auto& node : members.nodes())
    if (node.has_status()) to = std::min<uint64_t>(to, node.status().revision().number());
  const std::string etcdctl = "etcdctl --command-timeout=60s --endpoints=" + followers +
                              (followers.empty() || leader.empty() ? "" : ",") + leader;
  return etcdctl + " compact " + std::to_string(to) + "; " + etcdctl + " defrag; " + etcdctl +
         " alarm disarm";
}

}  // namespace

std::string_view VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarn:
      return "warn";
    default:
      return "fail";
  }
}

std::vector<Finding> DiagnoseCluster(const pb::MembersResponse& members) {
  std::vector<Finding> out;
  std::set<std::string> versions;
  for (const auto& node : members.nodes()) {
    if (!node.version().empty()) versions.insert(node.version());
    if (!node.has_status())
      out.push_back({Verdict::kFail, "node", node.id(), "it is unreachable: " + node.unreachable(),
                     "start it, or see what is between it and the others"});
    else if (!node.status().healthy())
      out.push_back({Verdict::kFail, "node", node.id(), "it is not well: " + node.status().reason(),
                     "see its log, and etcd's"});
    else if (!node.status().alarm().empty())
      out.push_back({Verdict::kWarn, "node", node.id(), node.status().alarm(), "see its log"});
    else
      out.push_back({Verdict::kOk, "node", node.id(), "it serves", ""});
  }
  if (versions.size() > 1)
    out.push_back({Verdict::kWarn, "version", "",
                   "the nodes have " + std::to_string(versions.size()) + " versions, from " +
                       *versions.begin() + " to " + *versions.rbegin(),
                   "finish the upgrade"});
  int leaders = 0, reached = 0;
  for (const auto& member : members.etcd()) {
    leaders += member.leader();
    reached += member.reachable();
    if (member.reachable() && member.reason().empty())
      out.push_back({Verdict::kOk, "etcd", member.endpoint(), "it answers", ""});
    else
      out.push_back({Verdict::kFail, "etcd", member.endpoint(), member.reason(),
                     member.no_space() ? SpaceRemedy(members)
                                       : "start it, or see what is between it and the nodes"});
  }
  if (leaders == 1)
    out.push_back({Verdict::kOk, "etcd", "", "one member leads", ""});
  else if (reached > 0)
    out.push_back({Verdict::kFail, "etcd", "",
                   std::to_string(leaders) + " of " + std::to_string(reached) +
                       " members that answer say that they lead",
                   "more than half of the members must run and reach each other"});
  return out;
}

std::vector<Finding> Diagnose(const std::vector<Examined>& servers, const std::string& version,
                              uint64_t files_here) {
  std::vector<Finding> out;
  bool any = false;
  for (const Examined& one : servers) {
    Examination(one, &out).Run(version);
    any = any || one.status.ok();
  }
  if (any) out.push_back(Cluster(servers));
  const std::string what =
      "this shell's programs may open " + std::to_string(files_here) + " files";
  if (files_here < kFilesHereLeast)
    out.push_back({Verdict::kWarn, "files", "", what, "raise the limit: ulimit -n 1024"});
  else
    out.push_back({Verdict::kOk, "files", "", what, ""});
  return out;
}

}  // namespace datawire::cli
