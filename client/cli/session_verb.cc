#include <algorithm>
#include <nlohmann/json.hpp>

#include "datawire/wire.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using Shown = pb::ListSessionsResponse::Session;

constexpr size_t kIdDigits = 32;

std::string StateText(const Shown& session) {
  if (session.ended()) return "ended";
  if (!pb::EndpointState_IsValid(session.state())) return "unknown";
  return std::string(EndpointStateName(static_cast<EndpointState>(session.state())));
}

/// Whether its node answers: others do not know when it was seen.
bool Here(const Shown& s, const pb::Source& source) {
  return s.node().empty() || s.node() == source.node_id();
}

Json SessionJson(const Shown& s, const pb::Source& source) {
  const bool here = Here(s, source);
  if (s.ended())
    return {{"id", Hex(s.id())},
            {"state", "ended"},
            {"reason", ReasonName(s.reason())},
            {"by", s.ended_by()},
            {"at_wall_ms", s.ended_wall_ms()}};
  return {{"id", Hex(s.id())},
          {"state", StateText(s)},
          {"host", s.host()},
          {"pid", s.pid()},
          {"program", s.program()},
          {"identity", s.identity()},
          {"peer", s.peer()},
          {"node", s.node()},
          {"attached", here ? Json(s.attached()) : Json()},
          {"attach_number", s.attach_number()},
          {"ttl_ms", s.ttl_ms()},
          {"seen_ms", here ? Json(s.seen_ms()) : Json()},
          {"remaining_ms", here ? Json(s.remaining_ms()) : Json()},
          {"opened_wall_ms", s.opened_wall_ms()},
          {"registrations", s.registrations()}};
}

Result<int> ListThem(Session& session) {
  pb::ListSessionsRequest request;
  const Format format = session.arguments.format;
  const bool wide = format == Format::kWide;
  std::vector<std::string> heading{"ID",  "STATE",         "PROGRAM", "HOST",
                                   "PID", "REGISTRATIONS", "SEEN"};
  if (wide) heading.insert(heading.end(), {"NODE", "PEER", "ATTACHED", "TTL", "REMAINING"});
  Table table(heading);
  Json array = Json::array();
  std::string text;
  for (bool more = true; more;) {
    DW_ASSIGN(const auto page, session.api.ListSessions(request));
    for (const Shown& s : page.sessions()) {
      const bool here = Here(s, page.source());
      const auto ms = [here](uint64_t span) {
        return here ? std::to_string(span) + " ms" : std::string("-");
      };
      std::vector<std::string> row{Hex(s.id()),
                                   StateText(s),
                                   Printable(s.program()),
                                   Printable(s.host()),
                                   std::to_string(s.pid()),
                                   std::to_string(s.registrations()),
                                   ms(s.seen_ms())};
      if (wide)
        row.insert(row.end(), {Printable(s.node()), Printable(s.peer()),
                               !here          ? "-"
                               : s.attached() ? "yes"
                                              : "no",
                               std::to_string(s.ttl_ms()) + " ms", ms(s.remaining_ms())});
      if (format == Format::kJson)
        array.push_back(SessionJson(s, page.source()));
      else if (format == Format::kJsonLines)
        text += Line(SessionJson(s, page.source())) + "\n";
      else if (format == Format::kName || format == Format::kShort)
        text += Hex(s.id()) + "\n";
      else
        table.Add(std::move(row));
      request.set_after(s.id());
    }
    more = page.more() && page.sessions_size() > 0;
  }
  if (format == Format::kJson) text = Pretty(array);
  if (format == Format::kTable || wide) text = table.Text();
  session.console.Print(text);
  return 0;
}

Result<int> ShowIt(Session& session, const std::string& id) {
  pb::ListSessionsRequest request;
  request.set_id(id);
  DW_ASSIGN(const auto response, session.api.ListSessions(request));
  if (response.sessions_size() != 1)
    return Status(Code::kCorrupt, "the directory showed " +
                                      std::to_string(response.sessions_size()) +
                                      " sessions, asked for one");
  Json value = SessionJson(response.sessions(0), response.source());
  const Format format = session.arguments.format;
  if (format == Format::kName || format == Format::kShort) {
    session.console.Print(Hex(id) + "\n");
    return 0;
  }
  if (IsJson(format)) {
    Json registered = Json::array();
    for (const auto& one : response.registrations())
      registered.push_back({{"address", one.address()}, {"url", one.url()}});
    value["registered"] = std::move(registered);
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
    return 0;
  }
  Table table({"WHAT", "VALUE"});
  for (const auto& [key, item] : value.items())
    table.Add({key, item.is_string() ? Printable(item.get<std::string>()) : item.dump()});
  for (const auto& one : response.registrations())
    table.Add({"registered", Printable(one.address()) + " " + Printable(one.url())});
  session.console.Print(table.Text());
  return 0;
}

Result<int> EndIt(Session& session, const std::string& id) {
  pb::EndSessionRequest request;
  request.set_id(id);
  DW_ASSIGN(const auto response, session.api.EndSession(request));
  const Revision revision = FromWire(response.revision());
  const Format format = session.arguments.format;
  if (IsJson(format)) {
    const Json value{{"id", Hex(id)}, {"state", "ended"}, {"revision", ToJson(revision)}};
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else if (format == Format::kName || format == Format::kShort) {
    session.console.Print(Hex(id) + "\n");
  } else {
    session.console.Print("ended " + Hex(id) + "  revision " + revision.ToString() + "\n");
  }
  return 0;
}

Result<int> Release(Session& session) {
  DW_ASSIGN(const auto response, session.api.ReleaseBrake());
  const Format format = session.arguments.format;
  if (IsJson(format)) {
    const Json value{{"sessions_suspect", response.sessions_suspect()}};
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else {
    session.console.Print("released: " + std::to_string(response.sessions_suspect()) +
                          " suspect sessions end unless they are seen again\n");
  }
  return 0;
}

}  // namespace

Result<std::string> ParseSessionId(const std::string& text) {
  std::string bytes;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  bool good = text.size() == kIdDigits;
  for (size_t i = 0; good && i < text.size(); i += 2) {
    good = digit(text[i]) >= 0 && digit(text[i + 1]) >= 0;
    bytes += static_cast<char>(digit(text[i]) << 4 | digit(text[i + 1]));
  }
  if (good) return bytes;
  return Status(Code::kInvalid, "session id " + datawire::Shown(text) +
                                    " is not 32 digits of 0-9 a-f, as session list shows them");
}

Result<int> Sessions(Session& session) {
  const auto& words = session.arguments.words;
  const std::string& what = words[0];
  const bool one = what == "show" || what == "end";
  if (!one && what != "list" && what != "release-brake")
    return Status(Code::kInvalid, "session " + datawire::Shown(what) +
                                      " is none of list, show, end, release-brake");
  if (words.size() != (one ? 2u : 1u))
    return Status(Code::kInvalid,
                  "session " + what + (one ? " takes the ID of a session" : " takes no argument"));
  if (what == "list") return ListThem(session);
  if (what == "release-brake") return Release(session);
  DW_ASSIGN(const std::string id, ParseSessionId(words[1]));
  return what == "show" ? ShowIt(session, id) : EndIt(session, id);
}

}  // namespace datawire::cli
