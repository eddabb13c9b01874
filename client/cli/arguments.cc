#include "arguments.h"

#include <CLI/CLI.hpp>
#include <charconv>

#include "datawire/limits.h"

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;

constexpr char kExitCodes[] =
    "Exit codes:\n"
    "  0    found or done\n"
    "  1    usage or invalid input\n"
    "  2    not found\n"
    "  3    found, none up\n"
    "  4    directory unreachable or unavailable\n"
    "  5    denied\n"
    "  6    timeout\n"
    "  7    staler than --max-stale\n"
    "  8    not accepted, or outcome unknown\n"
    "  130  interrupted\n";

constexpr milliseconds kDurationMost = std::chrono::hours(24 * 365);

// The texts as they were typed; checked and turned into Arguments after the parse, so that each
// refusal is a line of ours.
struct Typed {
  std::string directory, timeout = "5s", wait = "0s", format = "table";
  std::vector<std::string> words, labels;
  std::string max_stale, min_revision, after,
      ttl = "15s", priority = "0", weight = std::to_string(limits::kWeightDefault), count = "0";
};

template <typename Number>
Result<Number> ParseNumber(std::string_view what, std::string_view text, Number least,
                           Number most) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < least ||
      value > most)
    return Status(Code::kInvalid, std::string(what) + " " + Shown(text) + " is not a number from " +
                                      std::to_string(least) + " to " + std::to_string(most));
  return value;
}

Result<milliseconds> NamedDuration(std::string_view what, std::string_view text) {
  auto value = ParseDuration(text);
  if (value.ok()) return value;
  return Status(Code::kInvalid, std::string(what) + ": " + value.status().message());
}

Result<Format> ParseFormat(std::string_view text) {
  constexpr std::pair<std::string_view, Format> kFormats[] = {
      {"table", Format::kTable}, {"wide", Format::kWide},       {"short", Format::kShort},
      {"json", Format::kJson},   {"jsonl", Format::kJsonLines}, {"name", Format::kName}};
  for (const auto& [name, format] : kFormats)
    if (name == text) return format;
  return Status(Code::kInvalid,
                "-o " + Shown(text) + " is none of table, wide, short, json, jsonl, name");
}

CLI::App* AddVerb(CLI::App& app, const char* name, const char* what) {
  CLI::App* verb = app.add_subcommand(name, what);
  verb->fallthrough();
  verb->footer(kExitCodes);
  return verb;
}

void AddDirectoryVerbs(CLI::App& app, Typed& typed, Arguments& out) {
  auto* resolve = AddVerb(app, "resolve", "Who answers for an address, now, from the directory");
  resolve->add_option("ADDRESS", typed.words, "//domain/path, one or several")->required();
  resolve->add_option("--max-stale", typed.max_stale, "Exit 7 if the answer is older");
  resolve->add_option("--min-revision", typed.min_revision, "E:N, wait for state at least so new");
  auto* list = AddVerb(app, "list", "The registered addresses, at one revision");
  list->add_option("PREFIX", typed.words, "Only this address and those below it")->expected(0, 1);
  auto* tree = AddVerb(app, "tree", "The registered addresses as a tree");
  tree->add_option("PREFIX", typed.words, "Only this address and those below it")->expected(0, 1);
  auto* explain = AddVerb(app, "explain", "Why an address has the answer it has");
  explain->add_option("ADDRESS", typed.words, "//domain/path")->required()->expected(1);
  AddVerb(app, "status", "The directory's state");
  AddVerb(app, "version", "The version of dw");
  auto* watch = AddVerb(app, "watch", "Each change, one a line, until interrupted");
  watch->add_option("PREFIX", typed.words, "Only this address and those below it")->expected(0, 1);
  watch->add_option("--after", typed.after, "E:N, changes after it; without: what there is first");
  auto* withdraw = AddVerb(app, "withdraw", "Takes static registrations away");
  withdraw->add_option("ADDRESS [ENDPOINT]", typed.words, "Without ENDPOINT: all of the address")
      ->required()
      ->expected(1, 2);
  withdraw->add_flag("--sessions", out.sessions, "Those that sessions hold, too");
}

void AddRegister(CLI::App& app, Typed& typed, Arguments& out) {
  auto* verb = AddVerb(app, "register", "Registers an endpoint until interrupted");
  verb->add_option("ADDRESS ENDPOINT", typed.words, "//domain/path amqp://host:port[/node]")
      ->required()
      ->expected(2);
  verb->add_flag("--static", out.is_static, "Writes a record that lives until withdrawn; returns");
  verb->add_flag("--subtree", out.subtree, "For all addresses below, too");
  verb->add_option("--priority", typed.priority, "Lower is preferred (default 0)");
  verb->add_option("--weight", typed.weight, "Share within a priority, 0-1000 (default 100)");
  verb->add_option("--region", out.region);
  verb->add_option("--zone", out.zone);
  verb->add_option("--label", typed.labels, "KEY=VALUE, may be given again")
      ->allow_extra_args(false);
  verb->add_option("--ttl", typed.ttl, "Of the session, 3s to 1h (default 15s)");
}

void AddMessageVerbs(CLI::App& app, Typed& typed, Arguments& out) {
  auto* send = AddVerb(app, "send", "Sends each MESSAGE, else each line of stdin");
  send->add_option("ADDRESS|URL [MESSAGE...]", typed.words,
                   "//domain/path or amqp://host:port/node")
      ->required();
  send->add_flag("--presettled", out.presettled, "At most once: may be lost, waits for nothing");
  auto* receive = AddVerb(app, "receive", "Listens, registers, prints one message a line");
  receive->add_option("ADDRESS", typed.words, "//domain/path")->required()->expected(1);
  receive->add_option("--listen", out.listen, "HOST:PORT (default 127.0.0.1:0)");
  receive->add_option("--count", typed.count, "Ends after so many messages");
  auto* request = AddVerb(app, "request", "Sends a message and prints the reply");
  request->add_option("ADDRESS|URL MESSAGE", typed.words)->required()->expected(2);
}

Status Convert(const Typed& typed, Arguments& out) {
  if (!typed.directory.empty()) out.directory = {typed.directory};
  DW_ASSIGN(out.timeout, NamedDuration("--timeout", typed.timeout));
  if (out.timeout.count() == 0)
    return {Code::kInvalid, "--timeout " + Shown(typed.timeout) + " must be more than 0"};
  DW_ASSIGN(out.wait, NamedDuration("--wait", typed.wait));
  DW_ASSIGN(out.format, ParseFormat(typed.format));
  DW_ASSIGN(out.ttl, NamedDuration("--ttl", typed.ttl));
  DW_ASSIGN(out.priority,
            ParseNumber<uint32_t>("--priority", typed.priority, 0, limits::kPriorityMost));
  DW_ASSIGN(out.weight, ParseNumber<uint32_t>("--weight", typed.weight, 0, limits::kWeightMost));
  DW_ASSIGN(out.count, ParseNumber<uint64_t>("--count", typed.count, 0, 1'000'000'000'000));
  if (!typed.max_stale.empty()) {
    DW_ASSIGN(out.max_stale, NamedDuration("--max-stale", typed.max_stale));
  }
  if (!typed.min_revision.empty()) {
    DW_ASSIGN(out.min_revision, ParseRevision(typed.min_revision));
  }
  if (!typed.after.empty()) {
    DW_ASSIGN(out.after, ParseRevision(typed.after));
  }
  for (const std::string& label : typed.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0)
      return {Code::kInvalid, "--label " + Shown(label) + " is not KEY=VALUE"};
    out.labels[label.substr(0, equals)] = label.substr(equals + 1);
  }
  out.words = typed.words;
  return {};
}

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

Result<milliseconds> ParseDuration(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = text.substr(end - text.data());
  const uint64_t factor = unit == "ms"  ? 1
                          : unit == "s" ? 1000
                          : unit == "m" ? 60'000
                          : unit == "h" ? 3'600'000
                                        : 0;
  if (error != std::errc() || text.empty() || factor == 0)
    return Status(Code::kInvalid, "duration " + Shown(text) +
                                      " is not a whole number with a unit: 500ms, 5s, 2m, 1h");
  if (number > static_cast<uint64_t>(kDurationMost.count()) / factor)
    return Status(Code::kInvalid, "duration " + Shown(text) + " is more than 8760h");
  return milliseconds(number * factor);
}

Result<Revision> ParseRevision(std::string_view text) {
  const size_t colon = text.find(':');
  const auto half = [](std::string_view digits) {
    return ParseNumber<uint64_t>("", digits, 0, UINT64_MAX);
  };
  if (colon != std::string_view::npos) {
    const auto epoch = half(text.substr(0, colon)), number = half(text.substr(colon + 1));
    if (epoch.ok() && number.ok()) return Revision{*epoch, *number};
  }
  return Status(Code::kInvalid, "revision " + Shown(text) + " is not EPOCH:NUMBER, such as 1:42");
}

Result<Arguments> ParseArguments(int argc, const char* const* argv, std::string* help) {
  Arguments out;
  Typed typed;
  CLI::App app{"Datawire: sends messages to names, and shows who answers for them.", "dw"};
  app.require_subcommand(1);
  app.footer(kExitCodes);
  app.set_version_flag("--version", "dw " DATAWIRE_VERSION, "Prints the version");
  app.add_option("--directory", typed.directory,
                 "HOST:PORT[,...] of the directory's servers (else $DATAWIRE_DIRECTORY, the config "
                 "files, 127.0.0.1:7400)");
  app.add_option("--timeout", typed.timeout, "Of a call or a message (default 5s)");
  app.add_option("--wait", typed.wait,
                 "Keeps trying so long when the directory or an endpoint is not there (default 0s: "
                 "fails at once)");
  app.add_option("-o,--output", typed.format, "table, wide, short, json, jsonl or name");
  AddDirectoryVerbs(app, typed, out);
  AddRegister(app, typed, out);
  AddMessageVerbs(app, typed, out);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForVersion& version) {
    *help = std::string(version.what()) + "\n";
    return out;
  } catch (const CLI::CallForHelp&) {
    const auto verbs = app.get_subcommands();
    *help = verbs.empty() ? app.help() : verbs.front()->help("dw");
    return out;
  } catch (const CLI::ParseError& error) {
    return Status(Code::kInvalid, OneLine(error.what()) + " (see dw --help)");
  }
  out.verb = app.get_subcommands().front()->get_name();
  DW_RETURN_IF_ERROR(Convert(typed, out));
  return out;
}

}  // namespace datawire::cli
