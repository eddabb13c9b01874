#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "datawire/clock.h"
#include "doctor.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;

Examined Examine(Session& session, const std::string& server) {
  Api api({.servers = {server},
           .timeout = session.arguments.timeout,
           .wait = session.arguments.wait,
           .tls = session.tls});
  session.console.Progress("asking " + server + " ...");
  const int64_t wall = WallMillis();
  const BootTime begun = BootClock::now();
  auto status = api.GetStatus();
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(BootClock::now() - begun);
  session.console.Progress("");
  return {server, std::move(status), took, wall + took.count() / 2};
}

uint64_t FileLimit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

std::string TextOf(const std::vector<Finding>& findings, Format format) {
  std::string text;
  if (IsJson(format)) {
    Json all = Json::array();
    for (const Finding& finding : findings) {
      const Json one = {{"result", VerdictName(finding.verdict)},
                        {"check", finding.check},
                        {"server", finding.server},
                        {"what", finding.what},
                        {"remedy", finding.remedy}};
      if (format == Format::kJsonLines)
        text += Line(one) + "\n";
      else
        all.push_back(one);
    }
    return format == Format::kJson ? Pretty(all) : text;
  }
  if (format == Format::kShort || format == Format::kName) {
    for (const Finding& finding : findings)
      if (finding.verdict != Verdict::kOk)
        text += std::string(VerdictName(finding.verdict)) + " " + finding.check + "\n";
    return text;
  }
  Table table({"RESULT", "CHECK", "SERVER", "WHAT"});
  for (const Finding& finding : findings)
    table.Add(
        {std::string(VerdictName(finding.verdict)), finding.check, finding.server,
         Printable(finding.what) + (finding.remedy.empty() ? "" : "; to do: " + finding.remedy)});
  return table.Text();
}

}  // namespace

Result<int> Doctor(Session& session) {
  std::vector<Examined> examined;
  for (const std::string& server : session.servers) examined.push_back(Examine(session, server));
  auto findings = Diagnose(examined, DATAWIRE_VERSION, FileLimit());
  const auto node = std::find_if(examined.begin(), examined.end(), [](const Examined& one) {
    return one.status.ok() && one.status->engine() == "etcd";
  });
  if (node != examined.end()) {
    const auto members = session.api.Members();
    if (members.ok())
      for (Finding& finding : DiagnoseCluster(*members)) findings.push_back(std::move(finding));
    else
      findings.push_back(
          {Verdict::kFail, "node", node->server, members.status().message(), "see its log"});
  }
  session.console.Print(TextOf(findings, session.arguments.format));
  const auto failed = std::count_if(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.verdict == Verdict::kFail;
  });
  if (failed == 0) return 0;
  session.console.Tell(std::to_string(failed) + " of " + std::to_string(findings.size()) +
                       (failed == 1 ? " checks fails" : " checks fail"));
  return MappingOf(Code::kUnavailable).exit_code;
}

}  // namespace datawire::cli
