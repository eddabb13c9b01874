#include <algorithm>
#include <cctype>
#include <charconv>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>

#include "datawire/clock.h"
#include "datawire/limits.h"
#include "datawire/wire.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using Entry = pb::AuditEntry;

constexpr uint64_t kLast = 20;                    // entries that are shown unless -n says otherwise
constexpr std::chrono::milliseconds kLook{1000};  // --follow looks so often
constexpr size_t kHashDigits = 64;

// `open-session`
std::string VerbName(pb::AuditVerb verb) {
  if (!pb::AuditVerb_IsValid(verb)) return std::to_string(verb);
  std::string name = pb::AuditVerb_Name(verb).substr(sizeof "AUDIT_VERB");
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return c == '_' ? '-' : std::tolower(c); });
  return name;
}

// What it is about: an address, a node or a session.
std::string SubjectOf(const Entry& entry) {
  if (!entry.address().empty()) return Printable(entry.address());
  return entry.node().empty() ? Hex(entry.session_id()) : Printable(entry.node());
}

std::string PolicyText(pb::Policy policy) {
  return std::string(PolicyName(static_cast<Policy>(policy)));
}

std::string StateText(pb::EndpointState state) {
  if (!pb::EndpointState_IsValid(state)) return "unknown";
  return std::string(EndpointStateName(static_cast<EndpointState>(state)));
}

std::string FactsText(const Entry::Facts& facts) {
  if (facts.has_endpoint()) {
    const auto& spec = facts.endpoint();
    std::string text = spec.url();
    if (facts.draining()) text += " draining";
    if (spec.match() == pb::MATCH_SUBTREE) text += " subtree";
    if (spec.priority() != 0) text += " priority=" + std::to_string(spec.priority());
    if (spec.has_weight()) text += " weight=" + std::to_string(spec.weight());
    if (!spec.region().empty()) text += " region=" + spec.region();
    if (!spec.zone().empty()) text += " zone=" + spec.zone();
    for (const auto& [key, value] : spec.labels()) text += " " + key + "=" + value;
    return text;
  }
  if (facts.has_policy()) return PolicyText(facts.policy());
  if (facts.has_mark()) return StateText(facts.mark());
  return facts.program() + "@" + facts.host() + " " + std::to_string(facts.pid()) +
         " attach=" + std::to_string(facts.attach_number());
}

// What is not in force reads as `-`.
std::string SideText(bool there, const Entry::Facts& facts) {
  return there && !facts.ended() ? FactsText(facts) : "-";
}

Json FactsJson(bool there, const Entry::Facts& facts) {
  if (!there) return nullptr;
  Json out = {{"ended", facts.ended()}};
  if (facts.has_endpoint()) {
    const auto& spec = facts.endpoint();
    Json labels = Json::object();
    for (const auto& [key, value] :
         std::map<std::string, std::string>(spec.labels().begin(), spec.labels().end()))
      labels[key] = value;
    out.update({{"url", spec.url()},
                {"draining", facts.draining()},
                {"subtree", spec.match() == pb::MATCH_SUBTREE},
                {"priority", spec.priority()},
                {"weight", spec.has_weight() ? spec.weight() : limits::kWeightDefault},
                {"region", spec.region()},
                {"zone", spec.zone()},
                {"labels", std::move(labels)}});
  } else if (facts.has_policy()) {
    out["policy"] = PolicyText(facts.policy());
  } else if (facts.has_mark()) {
    out["state"] = StateText(facts.mark());
  } else if (!facts.ended()) {
    out.update({{"program", facts.program()},
                {"host", facts.host()},
                {"pid", facts.pid()},
                {"attach_number", facts.attach_number()},
                {"ttl_ms", facts.ttl_ms()},
                {"node", facts.node()}});
  }
  return out;
}

Json EntryJson(const Entry& entry) {
  return {{"revision", ToJson(FromWire(entry.revision()))},
          {"at_wall_ms", entry.at_wall_ms()},
          {"verb", VerbName(entry.verb())},
          {"address", entry.address().empty() ? Json(nullptr) : Json(entry.address())},
          {"node", entry.node().empty() ? Json(nullptr) : Json(entry.node())},
          {"session", entry.session_id().empty() ? Json(nullptr) : Json(Hex(entry.session_id()))},
          {"by", entry.by()},
          {"identity", entry.identity()},
          {"peer", entry.peer()},
          {"op", Hex(entry.op_id())},
          {"reason", entry.reason() == pb::REASON_NONE ? "" : ReasonName(entry.reason())},
          {"before", FactsJson(entry.has_before(), entry.before())},
          {"after", FactsJson(entry.has_after(), entry.after())}};
}

std::vector<std::string> Row(const Entry& entry, bool wide) {
  const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : Printable(text); };
  std::vector<std::string> row{TimeText(entry.at_wall_ms()),
                               FromWire(entry.revision()).ToString(),
                               VerbName(entry.verb()),
                               SubjectOf(entry),
                               Printable(SideText(entry.has_before(), entry.before())),
                               Printable(SideText(entry.has_after(), entry.after())),
                               entry.reason() == pb::REASON_NONE ? "-" : ReasonName(entry.reason()),
                               or_dash(entry.by())};
  if (wide)
    row.insert(row.end(), {or_dash(entry.peer()), or_dash(Hex(entry.session_id())),
                           or_dash(Hex(entry.op_id()))});
  return row;
}

// Entries as they come; the heading of a table is there once.
class Shown {
 public:
  explicit Shown(Session& session)
      : session_(session), format_(session.arguments.format), wide_(format_ == Format::kWide) {}

  bool Print(const std::deque<Entry>& entries) {
    const bool first = std::exchange(first_, false);
    if (format_ == Format::kJson && !session_.arguments.follow) {
      Json all = Json::array();
      for (const Entry& entry : entries) all.push_back(EntryJson(entry));
      return session_.console.Print(Pretty(all));
    }
    std::string text;
    std::vector<std::string> heading{"TIME",   "REVISION", "VERB",   "OF",
                                     "BEFORE", "AFTER",    "REASON", "BY"};
    if (wide_) heading.insert(heading.end(), {"PEER", "SESSION", "OP"});
    Table table(heading);
    for (const Entry& entry : entries) {
      if (IsJson(format_)) {
        text += Line(EntryJson(entry)) + "\n";
      } else if (format_ == Format::kName || format_ == Format::kShort) {
        text += SubjectOf(entry) + "\n";
      } else if (first) {
        table.Add(Row(entry, wide_));
      } else {
        for (const std::string& cell : Row(entry, wide_))
          text += (text.empty() || text.back() == '\n' ? "" : "  ") + cell;
        text += "\n";
      }
    }
    const bool as_table = format_ == Format::kTable || wide_;
    if (as_table && first) text = entries.empty() && !session_.arguments.follow ? "" : table.Text();
    return text.empty() || session_.console.Print(text);
  }

 private:
  Session& session_;
  const Format format_;
  const bool wide_;
  bool first_ = true;
};

// The last entries from a time on, or of all.
Result<std::string> Last(Session& session, pb::AuditTailRequest request, uint64_t most,
                         std::deque<Entry>* out) {
  const bool newest_first = request.since_wall_ms() == 0;
  request.set_newest_first(newest_first);
  request.set_page_size(newest_first ? std::min<uint64_t>(std::max<uint64_t>(most, 1), 1000)
                                     : 1000);
  std::string end;
  for (bool more = true; more;) {
    DW_ASSIGN(auto page, session.api.AuditTail(request));
    if (end.empty() || !newest_first)
      end = newest_first ? page.end_token() : page.next_page_token();
    for (auto& entry : *page.mutable_entries()) {
      if (newest_first && out->size() >= most) break;
      newest_first ? out->push_front(std::move(entry)) : out->push_back(std::move(entry));
      if (out->size() > most) out->pop_front();
    }
    request.set_page_token(page.next_page_token());
    more = page.more() && !(newest_first && out->size() >= most);
  }
  return end;
}

Result<int> Follow(Session& session, pb::AuditTailRequest request, Shown& shown) {
  request.set_newest_first(false);
  request.clear_since_wall_ms();
  session.console.CatchSignals();
  while (session.console.Wait(kLook) == 0 && !session.console.ReaderGone()) {
    for (bool more = true; more;) {
      DW_ASSIGN(const auto page, session.api.AuditTail(request));
      const std::deque<Entry> entries(page.entries().begin(), page.entries().end());
      if (!shown.Print(entries)) return 0;
      request.set_page_token(page.next_page_token());
      more = page.more() && session.console.signal() == 0;
    }
  }
  return session.console.signal() != 0 ? kExitInterrupted : 0;
}

Result<int> Tail(Session& session) {
  const Arguments& arguments = session.arguments;
  pb::AuditTailRequest request;
  if (!arguments.address.empty()) {
    DW_ASSIGN(const Address address, Address::Parse(arguments.address));
    request.set_address(address.text());
  }
  if (!arguments.session.empty()) {
    DW_ASSIGN(*request.mutable_session_id(), ParseSessionId(arguments.session));
  }
  if (arguments.since) request.set_since_wall_ms(WallMillis() - arguments.since->count());
  const uint64_t most = arguments.lines.value_or(arguments.since ? UINT64_MAX : kLast);
  std::deque<Entry> entries;
  DW_ASSIGN(const std::string end, Last(session, request, most, &entries));
  Shown shown(session);
  if (!shown.Print(entries)) return 0;
  if (arguments.follow) {
    request.set_page_token(end);
    return Follow(session, request, shown);
  }
  return 0;
}

// `1:42:HEX`, as verify prints it.
Status ParseSeen(const std::string& text, pb::AuditVerifyRequest* out) {
  const size_t colon = text.rfind(':');
  if (colon != std::string::npos && text.size() - colon - 1 == kHashDigits) {
    const auto revision = ParseRevision(std::string_view(text).substr(0, colon));
    std::string hash;
    for (size_t i = colon + 1; i < text.size(); i += 2) {
      unsigned byte = 0;
      const auto [end, error] = std::from_chars(&text[i], &text[i] + 2, byte, 16);
      if (error != std::errc() || end != &text[i] + 2) break;
      hash += static_cast<char>(byte);
    }
    if (revision.ok() && hash.size() == kHashDigits / 2) {
      ToWire(*revision, out->mutable_expect());
      out->set_expect_hash(hash);
      return {};
    }
  }
  return {Code::kInvalid, "--expect " + datawire::Shown(text) +
                              " is not EPOCH:NUMBER:HASH with 64 hex digits, as verify prints it"};
}

Result<int> Verify(Session& session) {
  pb::AuditVerifyRequest request;
  if (!session.arguments.expect.empty())
    DW_RETURN_IF_ERROR(ParseSeen(session.arguments.expect, &request));
  session.console.Progress("verifying the audit log ...");
  DW_ASSIGN(const auto done, session.api.AuditVerify(request));
  session.console.Progress("");
  const Format format = session.arguments.format;
  const std::string last = FromWire(done.last()).ToString() + ":" + Hex(done.last_hash());
  if (IsJson(format)) {
    const Json value = {
        {"whole", !done.broken()},
        {"complete_after", ToJson(FromWire(done.after()))},
        {"last", ToJson(FromWire(done.last()))},
        {"last_hash", Hex(done.last_hash())},
        {"revisions", done.revisions()},
        {"entries", done.entries()},
        {"broken_at", done.broken() ? ToJson(FromWire(done.broken_at())) : Json(nullptr)},
        {"why", done.why()}};
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else if (!done.broken() && (format == Format::kName || format == Format::kShort)) {
    session.console.Print(last + "\n");
  } else if (!done.broken()) {
    session.console.Print("whole after revision " + FromWire(done.after()).ToString() + ": " +
                          std::to_string(done.entries()) + " entries in " +
                          std::to_string(done.revisions()) + " revisions\nlast " + last + "\n");
  }
  if (!done.broken()) return 0;
  return Status(Code::kCorrupt, "the audit log is broken at revision " +
                                    FromWire(done.broken_at()).ToString() + ": " + done.why());
}

}  // namespace

Result<int> Audit(Session& session) {
  const std::string& what = session.arguments.words.front();
  if (what == "tail") return Tail(session);
  if (what == "verify") return Verify(session);
  return Status(Code::kInvalid, datawire::Shown(what) + " is neither tail nor verify");
}

}  // namespace datawire::cli
