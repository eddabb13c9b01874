#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "datawire/clock.h"
#include "datawire/limits.h"
#include "datawire/wire.h"
#include "random_bytes.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr milliseconds kAskAgain{100};

std::string JsonText(const Json& value, Format format) {
  return format == Format::kJson ? Pretty(value) : Line(value) + "\n";
}

Result<std::vector<Listed>> ReadAll(Session& session) {
  pb::ListRequest request;
  if (!session.arguments.words.empty()) {
    DW_ASSIGN(const Address prefix, Address::Parse(session.arguments.words[0]));
    request.set_prefix(prefix.text());
  }
  std::vector<Listed> items;
  do {
    DW_ASSIGN(const auto page, session.api.List(request));
    for (const auto& item : page.items()) {
      pb::Answer as_answer;
      as_answer.set_address(item.address());
      as_answer.set_matched(item.address());
      *as_answer.mutable_row() = item.row();
      DW_ASSIGN(Answer answer, FromWire(as_answer));
      items.push_back({.address = std::move(answer.address),
                       .status = answer.status,
                       .policy = answer.policy,
                       .modified = answer.modified,
                       .subtree = item.subtree(),
                       .total = answer.total,
                       .endpoints = std::move(answer.endpoints)});
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return items;
}

Result<std::vector<Answer>> ResolveOnce(Session& session, const pb::ResolveRequest& request) {
  DW_ASSIGN(const auto response, session.api.Resolve(request));
  std::vector<Answer> answers;
  for (const pb::Answer& item : response.answers()) {
    if (item.row().status() == pb::ANSWER_STATUS_UNAVAILABLE) {
      const Status why = FromWire(item.refusal());
      return why.ok() ? Status(Code::kUnavailable, item.address() + ": UNAVAILABLE") : why;
    }
    DW_ASSIGN(Answer answer, FromWire(item));
    answers.push_back(std::move(answer));
  }
  if (answers.size() != static_cast<size_t>(request.addresses_size()))
    return Status(Code::kCorrupt, "the directory gave " + std::to_string(answers.size()) +
                                      " answers for " + std::to_string(request.addresses_size()) +
                                      " addresses");
  return answers;
}

// What to do about registrations that are there, but not for a plain withdraw; empty if none are.
std::string HeldBySessions(Session& session, const Address& address,
                           const std::optional<EndpointUrl>& url) {
  if (session.arguments.sessions) return "";
  pb::ResolveRequest request;
  request.add_addresses(address.text());
  const auto answers = ResolveOnce(session, request);
  if (!answers.ok() || answers->front().matched != address) return "";
  const auto& endpoints = answers->front().endpoints;
  const bool held = std::any_of(endpoints.begin(), endpoints.end(), [&](const Endpoint& e) {
    return !e.is_static && (!url || e.url == *url);
  });
  return held ? "; a session holds it: end that, or withdraw --sessions" : "";
}

Json CandidateJson(const pb::ExplainResponse::Candidate& candidate) {
  const auto endpoint = FromWire(candidate.endpoint());
  return {{"at", candidate.at()},
          {"instance", candidate.instance()},
          {"endpoint", endpoint.ok() ? ToJson(*endpoint) : Json(nullptr)},
          {"kept", candidate.kept()},
          {"why", candidate.why()},
          {"session", candidate.session()}};
}

}  // namespace

Result<std::vector<Answer>> ResolveNow(Session& session, const std::vector<Address>& addresses,
                                       const std::function<bool(const Answer&)>& enough) {
  pb::ResolveRequest request;
  for (const Address& address : addresses) request.add_addresses(address.text());
  if (session.arguments.min_revision)
    ToWire(*session.arguments.min_revision, request.mutable_min_revision());
  const BootTime until = BootClock::now() + session.arguments.wait;
  for (;;) {
    DW_ASSIGN(auto answers, ResolveOnce(session, request));
    if (std::all_of(answers.begin(), answers.end(), enough) || BootClock::now() + kAskAgain > until)
      return answers;
    if (session.console.Wait(kAskAgain) != 0) return Status(Code::kCancelled, "interrupted");
  }
}

int Judge(Session& session, const Answer& answer) {
  Console& console = session.console;
  const auto& max_stale = session.arguments.max_stale;
  if (answer.status == AnswerStatus::kNotFound) {
    console.Tell(answer.address.text() + ": NOT_FOUND, nothing is registered there");
    return MappingOf(Code::kNotFound).exit_code;
  }
  if (answer.status == AnswerStatus::kNoEndpoint) {
    console.Tell(answer.address.text() + ": NO_ENDPOINT, " + std::to_string(answer.total) +
                 " registered, none is up");
    return kExitNoneUp;
  }
  if (max_stale && answer.age > *max_stale) {
    console.Tell(answer.address.text() + ": the answer is " + std::to_string(answer.age.count()) +
                 " ms old, --max-stale allows " + std::to_string(max_stale->count()) + " ms");
    return kExitStale;
  }
  return 0;
}

Result<int> Resolve(Session& session) {
  std::vector<Address> addresses;
  for (const std::string& word : session.arguments.words) {
    DW_ASSIGN(Address address, Address::Parse(word));
    addresses.push_back(std::move(address));
  }
  if (addresses.size() > limits::kResolveBatch)
    return Status(Code::kInvalid, std::to_string(addresses.size()) + " addresses, at most " +
                                      std::to_string(limits::kResolveBatch));
  const auto found = [](const Answer& answer) { return answer.status == AnswerStatus::kFound; };
  DW_ASSIGN(const auto answers, ResolveNow(session, addresses, found));
  session.console.Print(AnswersText(answers, session.arguments.format));
  int code = 0;
  for (const Answer& answer : answers) code = std::max(code, Judge(session, answer));
  return code;
}

Result<int> List(Session& session) {
  DW_ASSIGN(const auto items, ReadAll(session));
  session.console.Print(ListText(items, session.arguments.format));
  return 0;
}

Result<int> Tree(Session& session) {
  DW_ASSIGN(const auto items, ReadAll(session));
  const Format format = session.arguments.format;
  const bool drawn = format == Format::kTable || format == Format::kWide;
  session.console.Print(drawn ? TreeText(items, format == Format::kWide) : ListText(items, format));
  return 0;
}

Result<int> Withdraw(Session& session) {
  const auto& words = session.arguments.words;
  DW_ASSIGN(const Address address, Address::Parse(words[0]));
  std::optional<EndpointUrl> url;
  if (words.size() > 1) {
    DW_ASSIGN(url, EndpointUrl::Parse(words[1]));
  }
  pb::WithdrawRequest request;
  request.set_op_id(RandomBytes(16));
  auto* withdrawal = request.add_withdrawals();
  withdrawal->set_address(address.text());
  if (url) withdrawal->set_url(url->text());
  request.set_sessions_too(session.arguments.sessions);
  const auto response = session.api.Withdraw(request);
  if (!response.ok() && response.status().code() != Code::kNotFound) return response.status();
  const Revision revision = response.ok() ? FromWire(response->revision()) : Revision{};
  const Format format = session.arguments.format;
  if (IsJson(format))
    session.console.Print(JsonText({{"address", address.text()},
                                    {"url", url ? Json(url->text()) : Json()},
                                    {"withdrawn", response.ok() ? response->withdrawn() : 0},
                                    {"revision", response.ok() ? ToJson(revision) : Json()}},
                                   format));
  if (!response.ok()) {
    session.console.Tell(response.status().message() + HeldBySessions(session, address, url));
    return MappingOf(Code::kNotFound).exit_code;
  }
  if (format == Format::kName) session.console.Print(address.text() + "\n");
  if (format == Format::kShort && url) session.console.Print(url->text() + "\n");
  if (format == Format::kTable || format == Format::kWide)
    session.console.Print("withdrawn " + address.text() + (url ? " " + url->text() : "") + "  " +
                          std::to_string(response->withdrawn()) + "  revision " +
                          revision.ToString() + "\n");
  return 0;
}

Result<int> Explain(Session& session) {
  DW_ASSIGN(const Address address, Address::Parse(session.arguments.words[0]));
  pb::ExplainRequest request;
  request.set_address(address.text());
  DW_ASSIGN(const auto response, session.api.Explain(request));
  DW_ASSIGN(const Answer answer, FromWire(response.answer()));
  const Format format = session.arguments.format;
  if (IsJson(format)) {
    Json candidates = Json::array(), steps = Json::array();
    for (const auto& candidate : response.candidates())
      candidates.push_back(CandidateJson(candidate));
    for (const std::string& step : response.steps()) steps.push_back(step);
    session.console.Print(JsonText({{"answer", ToJson(answer)},
                                    {"node", response.source().node_id()},
                                    {"steps", std::move(steps)},
                                    {"candidates", std::move(candidates)}},
                                   format));
    return Judge(session, answer);
  }
  if (format == Format::kShort || format == Format::kName) {
    session.console.Print(AnswersText({answer}, format));
    return Judge(session, answer);
  }
  std::string text = AnswersText({answer}, format);
  text += "from node " + response.source().node_id() + "\n";
  for (const std::string& step : response.steps()) text += "  " + Printable(step) + "\n";
  if (response.candidates_size() > 0) {
    Table table({"CANDIDATE", "AT", "WHY", "SESSION"});
    for (const auto& candidate : response.candidates())
      table.Add({candidate.endpoint().url(), candidate.at(), Printable(candidate.why()),
                 Printable(candidate.session())});
    text += table.Text();
  }
  session.console.Print(text);
  return Judge(session, answer);
}

Result<int> ShowStatus(Session& session) {
  if (session.arguments.cluster) return ShowCluster(session);
  DW_ASSIGN(const auto s, session.api.GetStatus());
  const Json value = {{"cluster", s.source().cluster_id()},
                      {"node", s.source().node_id()},
                      {"version", s.version()},
                      {"engine", s.engine()},
                      {"revision", ToJson(FromWire(s.revision()))},
                      {"healthy", s.healthy()},
                      {"reason", s.reason()},
                      {"alarm", s.alarm()},
                      {"age_ms", s.age_ms()},
                      {"uptime_ms", s.uptime_ms()},
                      {"sessions", s.sessions()},
                      {"sessions_held", s.sessions_held()},
                      {"sessions_suspect", s.sessions_suspect()},
                      {"registrations", s.registrations()},
                      {"addresses", s.addresses()},
                      {"subscribers", s.subscribers()},
                      {"subscriptions", s.subscriptions()},
                      {"watchers", s.watchers()},
                      {"brake_on", s.brake_on()},
                      {"brake_remaining_ms", s.brake_remaining_ms()}};
  const Format format = session.arguments.format;
  if (IsJson(format)) {
    session.console.Print(JsonText(value, format));
    return 0;
  }
  if (format == Format::kName || format == Format::kShort) {
    session.console.Print(s.source().node_id() + "\n");
    return 0;
  }
  Table table({"WHAT", "VALUE"});
  for (const auto& [key, item] : value.items()) {
    if (key == "revision")
      table.Add({key, FromWire(s.revision()).ToString()});
    else
      table.Add({key, item.is_string() ? Printable(item.get<std::string>()) : item.dump()});
  }
  session.console.Print(table.Text());
  return 0;
}

Result<int> ShowCompletion(Session& session) {
  DW_ASSIGN(const std::string script,
            CompletionScript(session.arguments.words.front(), ShapeOfDw()));
  session.console.Print(script);
  return 0;
}

Result<int> ShowVersion(Session& session) {
  const Format format = session.arguments.format;
  if (IsJson(format))
    session.console.Print(JsonText({{"version", DATAWIRE_VERSION}}, format));
  else
    session.console.Print("dw " DATAWIRE_VERSION "\n");
  return 0;
}

}  // namespace datawire::cli
