#include <nlohmann/json.hpp>

#include "datawire/cache_snapshot.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

std::string AgeText(std::chrono::milliseconds age) {
  const int64_t ms = age.count();
  if (ms < 10'000) return std::to_string(ms) + "ms";
  if (ms < 600'000) return std::to_string(ms / 1000) + "s";
  if (ms < 36'000'000) return std::to_string(ms / 60'000) + "m";
  return std::to_string(ms / 3'600'000) + "h";
}

}  // namespace

Result<int> ShowCache(Session& session) {
  const auto& words = session.arguments.words;
  if (words[0] != "show")
    return Status(Code::kInvalid, "cache " + Shown(words[0]) + " is not show");
  DW_ASSIGN(const CacheSnapshot snapshot, ReadCacheSnapshot(words[1]));
  const Format format = session.arguments.format;
  if (format == Format::kShort || format == Format::kName || format == Format::kJsonLines) {
    session.console.Print(AnswersText(snapshot.answers, format));
  } else if (format == Format::kJson) {
    nlohmann::ordered_json answers = nlohmann::ordered_json::array();
    for (const Answer& answer : snapshot.answers) answers.push_back(ToJson(answer));
    session.console.Print(Pretty({{"cluster", snapshot.cluster},
                                  {"revision", ToJson(snapshot.revision)},
                                  {"saved_wall_ms", snapshot.saved_wall_ms},
                                  {"since_ms", snapshot.since.count()},
                                  {"answers", std::move(answers)}}));
  } else {
    session.console.Print("cluster " + Printable(snapshot.cluster) + "  revision " +
                          snapshot.revision.ToString() + "  saved " + AgeText(snapshot.since) +
                          " ago\n");
    Table table({"ADDRESS", "STATUS", "AGE", "REVISION", "ENDPOINTS"});
    for (const Answer& answer : snapshot.answers) {
      std::string endpoints;
      for (const Endpoint& endpoint : answer.endpoints) {
        if (format == Format::kTable && !endpoints.empty()) {
          endpoints += ", +" + std::to_string(answer.endpoints.size() - 1);
          break;
        }
        endpoints += (endpoints.empty() ? "" : ", ") + EndpointText(endpoint);
      }
      table.Add({answer.address.text(), std::string(AnswerStatusName(answer.status)),
                 AgeText(answer.age), answer.revision.ToString(),
                 endpoints.empty() ? "-" : endpoints});
    }
    session.console.Print(table.Text());
  }
  return 0;
}

}  // namespace datawire::cli
