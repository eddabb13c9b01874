#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>

#include "datawire/wire.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using Entry = pb::HistoryResponse::Entry;

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return text;
}

// What happened, in a word; it depends on what was before.
class Teller {
 public:
  std::string What(const pb::Event& event) {
    if (event.kind() == pb::Event::KIND_POLICY)
      return event.has_policy()
                 ? "policy " + Lower(pb::Policy_Name(event.policy()).substr(sizeof "POLICY"))
                 : "policy unset";
    if (event.kind() == pb::Event::KIND_GONE) {
      states_.erase(event.instance());
      return event.reason() == pb::REASON_NONE ? "gone" : Lower(ReasonName(event.reason()));
    }
    const auto before = states_.find(event.instance());
    const bool known = before != states_.end();
    const auto former = known ? before->second : pb::ENDPOINT_STATE_UP;
    const auto state = event.endpoint().state();
    states_[event.instance()] = state;
    if (state == pb::ENDPOINT_STATE_SUSPECT) return "suspect";
    if (state == pb::ENDPOINT_STATE_DRAINING) return "draining";
    return known && former != state ? "up" : "registered";
  }

 private:
  std::map<std::string, pb::EndpointState> states_;
};

Json EntryJson(const Entry& entry, const std::string& what) {
  const pb::Event& event = entry.event();
  const auto endpoint = FromWire(event.endpoint());
  const bool policy = event.kind() == pb::Event::KIND_POLICY;
  return {{"revision", ToJson(FromWire(entry.revision()))},
          {"at_wall_ms", event.at_wall_ms()},
          {"what", what},
          {"instance", event.instance()},
          {"endpoint", !policy && endpoint.ok() ? ToJson(*endpoint) : Json(nullptr)},
          {"reason", event.reason() == pb::REASON_NONE ? "" : ReasonName(event.reason())},
          {"by", event.by()}};
}

void ShowTable(Session& session, const pb::HistoryResponse& response) {
  const bool wide = session.arguments.format == Format::kWide;
  std::vector<std::string> heading{"TIME", "REVISION", "WHAT", "ENDPOINT", "REASON", "BY"};
  if (wide) heading.emplace_back("INSTANCE");
  Table table(heading);
  Teller teller;
  const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : Printable(text); };
  for (const Entry& entry : response.entries()) {
    const pb::Event& event = entry.event();
    std::vector<std::string> row{
        TimeText(event.at_wall_ms()),
        FromWire(entry.revision()).ToString(),
        teller.What(event),
        or_dash(event.endpoint().url()),
        event.reason() == pb::REASON_NONE ? "-" : ReasonName(event.reason()),
        or_dash(event.by())};
    if (wide) row.push_back(or_dash(event.instance()));
    table.Add(std::move(row));
  }
  session.console.Print(table.Text());
}

}  // namespace

Result<int> History(Session& session) {
  DW_ASSIGN(const Address address, Address::Parse(session.arguments.words[0]));
  pb::HistoryRequest request;
  request.set_address(address.text());
  DW_ASSIGN(const auto response, session.api.History(request));
  const Format format = session.arguments.format;
  if (IsJson(format)) {
    Teller teller;
    Json entries = Json::array();
    std::string lines;
    for (const Entry& entry : response.entries()) {
      Json value = EntryJson(entry, teller.What(entry.event()));
      if (format == Format::kJsonLines)
        lines += Line(value) + "\n";
      else
        entries.push_back(std::move(value));
    }
    session.console.Print(format == Format::kJsonLines
                              ? lines
                              : Pretty({{"address", address.text()},
                                        {"complete_after", ToJson(FromWire(response.after()))},
                                        {"entries", std::move(entries)}}));
  } else if (format == Format::kName) {
    session.console.Print(address.text() + "\n");
  } else if (format == Format::kShort) {
    Teller teller;
    for (const Entry& entry : response.entries())
      session.console.Print(teller.What(entry.event()) + "\n");
  } else if (response.entries_size() > 0) {
    ShowTable(session, response);
  }
  if (response.entries_size() > 0) return 0;
  session.console.Tell(address.text() + ": nothing is known to have happened there lately");
  return MappingOf(Code::kNotFound).exit_code;
}

}  // namespace datawire::cli
