#include "arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <iterator>

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

constexpr char kTimeout[] = "5s", kLongTimeout[] = "10m";

// What a verb is called with, and what its help shows.
struct VerbText {
  std::string_view name, words, what, example;
  size_t least, most;  // words
};
constexpr size_t kAny = SIZE_MAX;
constexpr VerbText kTexts[] = {
    {"resolve", "ADDRESS...", "Who answers for an address, now, from the directory",
     "dw resolve //demo/upper -o json", 1, kAny},
    {"list", "[PREFIX]", "The registered addresses at or below PREFIX, at one revision",
     "dw list //demo -o name", 0, 1},
    {"tree", "[PREFIX]", "The same as a tree; -o wide shows the endpoints, too", "dw tree //demo",
     0, 1},
    {"watch", "[PREFIX]", "Each change at or below PREFIX, one a line, until interrupted",
     "dw watch //demo -o jsonl", 0, 1},
    {"register", "ADDRESS ENDPOINT [-- COMMAND [ARGUMENT...]]",
     "Registers an endpoint until interrupted, or as long as COMMAND runs",
     "dw register //demo/web amqp://127.0.0.1:5672 --weight 50", 2, 2},
    {"withdraw", "ADDRESS [ENDPOINT]", "Takes static registrations away; without ENDPOINT all",
     "dw withdraw //demo/web amqp://127.0.0.1:5672", 1, 2},
    {"drain", "ADDRESS|SESSION", "No new links to what is registered there now; open ones live on",
     "dw drain //demo/web --acknowledged", 1, 1},
    {"policy", "set|get|unset ADDRESS [POLICY]",
     "How clients pick among the endpoints of ADDRESS: balanced, ordered or consistent",
     "dw policy set //demo/web ordered", 2, 3},
    {"session", "list|show ID|end ID|release-brake",
     "The sessions of processes; end: its holder is told and opens a new one",
     "dw session list -o wide", 1, 2},
    {"send", "ADDRESS|URL [MESSAGE...]", "Sends each MESSAGE, else each line of stdin",
     "dw send //demo/feed one 'and two'", 1, kAny},
    {"receive", "ADDRESS", "Listens, registers, prints one message a line",
     "dw receive //demo/feed --count 10", 1, 1},
    {"request", "ADDRESS|URL MESSAGE", "Sends a message and prints the reply",
     "dw request //demo/upper 'make me loud'", 2, 2},
    {"explain", "ADDRESS", "Why an address has the answer it has", "dw explain //demo/upper", 1, 1},
    {"history", "ADDRESS", "What happened to an address lately: when, why, by whom",
     "dw history //demo/upper", 1, 1},
    {"status", "", "The directory's state", "dw status -o json", 0, 0},
    {"cluster", "compare|forget NODE",
     "Whether all nodes hold the same, at one revision, exit 4 if not; a node that stopped for "
     "good is not listed any more",
     "dw cluster compare", 1, 2},
    {"export", "", "Static registrations and policies at one revision, as lines of JSON",
     "dw export", 0, 0},
    {"import", "FILE", "Registers what an export holds; cut off, it goes on with --merge",
     "dw import directory.jsonl", 1, 1},
    {"snapshot", "save|verify DIR", "A copy of the whole store, in DIR on the server's disc",
     "dw snapshot save /var/backups/datawire-1", 2, 2},
    {"audit", "tail|verify",
     "Every accepted change: who, from where, what, why; verify: that none was altered since",
     "dw audit tail --address //demo --follow", 1, 1},
    {"cache", "show FILE", "The answers in the snapshot file of a process, with their age now",
     "dw cache show /var/lib/shop/datawire-cache", 2, 2},
    {"doctor", "", "What may be wrong with servers and machines, and what to do about it",
     "dw doctor", 0, 0},
    {"bench", "fill|link",
     "fill: loads the directory with endpoints that nobody serves, and measures it; link: messages "
     "over a direct link, and through a broker",
     "dw bench fill --endpoints 100000 --sessions 1000", 1, 1},
    {"completion", "bash|zsh|fish", "A script by which the shell completes what is typed",
     "dw completion bash", 1, 1},
    {"version", "", "The version of dw", "dw version", 0, 0},
};

const VerbText* TextOf(std::string_view verb) {
  const auto* text = std::find_if(std::begin(kTexts), std::end(kTexts),
                                  [&](const VerbText& t) { return t.name == verb; });
  return text == std::end(kTexts) ? nullptr : text;
}

// CLI11's page with our usage line; the positional arguments are in it.
class HelpPage : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string) const override {
    const VerbText* text = TextOf(app->get_name());
    if (text == nullptr) return "Usage: dw VERB [ARGUMENT...] [FLAG...]\n";
    return "Usage: " + Synopsis(*text) + " [FLAG...]\nExample: " + std::string(text->example) +
           "\n";
  }
  std::string make_positionals(const CLI::App*) const override { return ""; }

  static std::string Synopsis(const VerbText& text) {
    return "dw " + std::string(text.name) + (text.words.empty() ? "" : " ") +
           std::string(text.words);
  }
};

// The texts as they were typed; checked and turned into Arguments after the parse, so that each
// refusal is a line of ours.
struct Typed {
  std::optional<std::string> directory, max_stale, min_revision, after, timeout;
  std::optional<std::string> check, check_interval, check_timeout, check_down, check_up;
  std::optional<std::string> lines, since;
  std::string wait = "0s", format = "table", ttl = "15s", priority = "0",
              weight = std::to_string(limits::kWeightDefault), count = "0";
  std::string endpoints = "1000000", sessions = "10000", messages = "50000", bytes = "100";
  std::optional<std::string> connections, addresses, keep;
  std::vector<std::string> words, labels;
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

Result<Revision> NamedRevision(std::string_view what, std::string_view text) {
  auto value = ParseRevision(text);
  if (value.ok()) return value;
  return Status(Code::kInvalid, std::string(what) + ": " + value.status().message());
}

constexpr std::pair<std::string_view, Format> kFormats[] = {
    {"table", Format::kTable}, {"wide", Format::kWide},       {"short", Format::kShort},
    {"json", Format::kJson},   {"jsonl", Format::kJsonLines}, {"name", Format::kName}};

Result<Format> ParseFormat(std::string_view text) {
  for (const auto& [name, format] : kFormats)
    if (name == text) return format;
  return Status(Code::kInvalid,
                "-o " + Shown(text) + " is none of table, wide, short, json, jsonl, name");
}

void AddGlobals(CLI::App& app, Typed& typed, TlsFiles& tls) {
  app.formatter(std::make_shared<HelpPage>());
  app.require_subcommand(0, 1);
  app.footer("dw VERB --help shows a verb's flags and an example.\n\n" + std::string(kExitCodes));
  app.set_version_flag("--version", "dw " DATAWIRE_VERSION, "Prints the version");
  app.add_option("--directory", typed.directory,
                 "The directory's servers (else $DATAWIRE_DIRECTORY, the config files, DNS SRV of "
                 "$DATAWIRE_DOMAIN or the config files' domain, 127.0.0.1:7400)")
      ->type_name("HOST:PORT[,...]");
  app.add_option(
         "--tls-cert", tls.cert,
         "TLS, to the directory and to amqps:// endpoints: the own certificate in PEM (else "
         "$DATAWIRE_TLS_CERT, _KEY and _CA, the config files, plaintext)")
      ->type_name("FILE");
  app.add_option("--tls-key", tls.key, "Its key")->type_name("FILE");
  app.add_option("--tls-ca", tls.ca, "The CAs of servers")->type_name("FILE");
  app.add_option("--timeout", typed.timeout,
                 "Of a call or a message (default 5s; snapshot and audit verify 10m)")
      ->type_name("DURATION");
  app.add_option("--wait", typed.wait,
                 "Keeps trying so long when the directory or an endpoint is not there (default 0s: "
                 "fails at once)")
      ->type_name("DURATION");
  app.add_option("-o,--output", typed.format, "table, wide, short, json, jsonl or name")
      ->type_name("FORMAT");
}

void AddVerbs(CLI::App& app, Typed& typed) {
  for (const VerbText& text : kTexts) {
    CLI::App* verb = app.add_subcommand(std::string(text.name), std::string(text.what));
    verb->group("Verbs");
    verb->fallthrough();
    verb->footer(
        "Flags of every verb, before or after it: --directory, --tls-cert, --tls-key, --tls-ca, "
        "--timeout, --wait, -o; see dw --help\n\n" +
        std::string(kExitCodes));
    verb->add_option("WORD", typed.words)->expected(0, -1);
  }
}

void AddFlags(CLI::App& app, Typed& typed, Arguments& out) {
  const auto of = [&app](const char* verb) { return app.get_subcommand(verb); };
  const auto option = [](CLI::App* verb, const char* name, auto& value, const char* type,
                         const char* what) {
    verb->add_option(name, value, what)->type_name(type);
  };
  option(of("resolve"), "--max-stale", typed.max_stale, "DURATION", "Exit 7 if an answer is older");
  option(of("resolve"), "--min-revision", typed.min_revision, "EPOCH:NUMBER",
         "Waits up to 2 s for state at least so new");
  option(of("watch"), "--after", typed.after, "EPOCH:NUMBER",
         "Changes after it; without: what there is first");
  of("withdraw")->add_flag("--sessions", out.sessions, "Those that sessions hold, too");
  of("import")->add_flag("--merge", out.merge,
                         "Into a directory that holds registrations: those of the same address "
                         "and URL are replaced");
  of("send")->add_flag("--presettled", out.presettled,
                       "At most once: may be lost, nobody confirms it");
  of("send")->add_flag(
      "--trace", out.trace,
      "A W3C trace context for each message; says who took it, and after how long");
  of("receive")->add_flag("--pull", out.pull,
                          "Asks the address, a queue or topic, for messages; registers nothing");
  option(of("receive"), "--listen", out.listen, "HOST:PORT", "Default 127.0.0.1:0, any free port");
  for (const char* name : {"send", "request", "receive"}) {
    option(of(name), "--region", out.region, "NAME", "Where this process is: the near come first");
    option(of(name), "--zone", out.zone, "NAME", "Where in the region");
  }
  option(of("receive"), "--count", typed.count, "NUMBER", "Ends after so many messages");

  of("drain")->add_flag(
      "--acknowledged", out.acknowledged,
      "Returns when all subscribers know; exit 6 at --timeout, with who does not");
  of("status")->add_flag("--cluster", out.cluster,
                         "Of all nodes and etcd; exit 4 if one is unreachable or not well");
  of("drain")->add_flag("--undo", out.undo, "They take new links again");

  CLI::App* bench = of("bench");
  option(bench, "--endpoints", typed.endpoints, "NUMBER", "Default 1000000");
  option(bench, "--sessions", typed.sessions, "NUMBER",
         "That hold them, 1000 at most each (default 10000)");
  option(bench, "--connections", typed.connections, "NUMBER",
         "That all sessions share (default 8; with --hold one for 100 sessions)");
  option(bench, "--addresses", typed.addresses, "NUMBER",
         "That the endpoints are spread over (default: one an endpoint)");
  option(bench, "--prefix", out.bench.prefix, "ADDRESS", "Above them all (default //bench)");
  option(bench, "--weight", typed.weight, "NUMBER",
         "Of the endpoints: another one changes those that an earlier fill left (default 100)");
  option(bench, "--messages", typed.messages, "NUMBER", "Of link, at full rate (default 50000)");
  option(bench, "--bytes", typed.bytes, "NUMBER", "Of each message of link (default 100)");
  option(bench, "--broker", out.bench.broker, "URL",
         "Of link: a queue that the same messages go through, amqp://HOST:PORT/NODE");
  bench->add_flag("--hold", out.bench.hold,
                  "Keeps the sessions attached and heartbeats until interrupted");
  option(bench, "--keep", typed.keep, "DURATION",
         "Leaves the sessions, which expire after it, 3s to 1h; without, they end");
  option(bench, "--ttl", typed.ttl, "DURATION", "Of sessions that --hold keeps (default 15s)");
  option(of("audit"), "-n,--lines", typed.lines, "NUMBER",
         "The last so many (default 20, with --since all)");
  of("audit")->add_flag("--follow", out.follow, "Goes on with what comes, until interrupted");
  option(of("audit"), "--address", out.address, "PREFIX", "Of addresses at or below it");
  option(of("audit"), "--session", out.session, "ID", "Of a session and what it holds");
  option(of("audit"), "--since", typed.since, "DURATION", "Those not older");
  option(of("audit"), "--expect", out.expect, "EPOCH:NUMBER:HASH",
         "With verify: what it printed last once, kept elsewhere");

  CLI::App* verb = of("register");
  verb->add_flag("--static", out.is_static, "Writes a record that lives until withdrawn; returns");
  verb->add_flag("--subtree", out.subtree, "For all addresses below, too");
  option(verb, "--priority", typed.priority, "NUMBER", "Lower is preferred (default 0)");
  option(verb, "--weight", typed.weight, "NUMBER",
         "Share within a priority, 0-1000 (default 100), 0: last resort");
  option(verb, "--region", out.region, "NAME", "Where it is");
  option(verb, "--zone", out.zone, "NAME", "Where in the region");
  verb->add_option("--label", typed.labels, "May be given again")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  option(verb, "--identity", out.identity, "SPIFFE-ID",
         "That an amqps endpoint's certificate names: clients link to no other");
  option(verb, "--ttl", typed.ttl, "DURATION", "Of the session, 3s to 1h (default 15s)");
  option(
      verb, "--check", typed.check, "tcp|amqp|http=[:PORT]PATH",
      "Registered from the first probe that succeeds, withdrawn while probes fail: no new links; "
      "session, COMMAND and open links live on. tcp: the port takes a connection; amqp: and "
      "answers an open and a close; http: GET answers 2xx or 3xx, at PORT or the endpoint's");
  option(verb, "--check-interval", typed.check_interval, "DURATION",
         "From probe to probe, +-10 % (default 2s)");
  option(verb, "--check-timeout", typed.check_timeout, "DURATION",
         "A probe that takes longer failed (default 1s)");
  option(verb, "--check-down", typed.check_down, "NUMBER",
         "So many failures in a row withdraw (default 3)");
  option(verb, "--check-up", typed.check_up, "NUMBER",
         "So many successes in a row register again (default 2)");
}

Status ConvertCheck(const Typed& typed, Arguments& out) {
  constexpr milliseconds kLeast{100}, kMost = std::chrono::hours(1);
  CheckPolicy& policy = out.check_policy;
  const auto duration = [&](const char* what, const auto& text, milliseconds& value) -> Status {
    if (!text) return {};
    if (!typed.check)
      return {Code::kInvalid, std::string(what) + " is of --check, which is missing"};
    DW_ASSIGN(value, NamedDuration(what, *text));
    if (value >= kLeast && value <= kMost) return {};
    return {Code::kInvalid, std::string(what) + " " + Shown(*text) + " is not from 100ms to 1h"};
  };
  const auto number = [&](const char* what, const auto& text, uint32_t& value) -> Status {
    if (!text) return {};
    if (!typed.check)
      return {Code::kInvalid, std::string(what) + " is of --check, which is missing"};
    DW_ASSIGN(value, ParseNumber<uint32_t>(what, *text, 1, 1000));
    return {};
  };
  DW_RETURN_IF_ERROR(duration("--check-interval", typed.check_interval, policy.interval));
  DW_RETURN_IF_ERROR(duration("--check-timeout", typed.check_timeout, policy.timeout));
  DW_RETURN_IF_ERROR(number("--check-down", typed.check_down, policy.down));
  DW_RETURN_IF_ERROR(number("--check-up", typed.check_up, policy.up));
  if (policy.timeout > policy.interval)
    return {Code::kInvalid, "--check-timeout " + std::to_string(policy.timeout.count()) +
                                "ms is longer than --check-interval " +
                                std::to_string(policy.interval.count()) +
                                "ms, and probes do not overlap"};
  if (typed.check) {
    DW_ASSIGN(out.check, CheckSpec::Parse(*typed.check));
  }
  return {};
}

Status ConvertBench(const Typed& typed, Arguments::Bench& out) {
  const auto number = [](const char* flag, const std::string& text, uint64_t most) {
    return ParseNumber<uint64_t>(flag, text, 1, most);
  };
  DW_ASSIGN(out.endpoints, number("--endpoints", typed.endpoints, 1'000'000'000));
  DW_ASSIGN(out.sessions, number("--sessions", typed.sessions, 1'000'000));
  DW_ASSIGN(out.messages, number("--messages", typed.messages, 100'000'000));
  DW_ASSIGN(out.bytes, number("--bytes", typed.bytes, limits::kMessageBytes / 2));
  if (typed.connections) {
    DW_ASSIGN(out.connections, number("--connections", *typed.connections, 10'000));
  }
  if (typed.addresses) {
    DW_ASSIGN(out.addresses, number("--addresses", *typed.addresses, 1'000'000'000));
  }
  if (typed.keep) {
    DW_ASSIGN(out.keep, NamedDuration("--keep", *typed.keep));
    if (*out.keep < limits::kSessionTtlLeast || *out.keep > limits::kSessionTtlMost)
      return {Code::kInvalid, "--keep " + Shown(*typed.keep) + " is out of range, 3s to 1h"};
  }
  if (out.keep && out.hold)
    return {Code::kInvalid, "--hold ends its sessions when interrupted: it goes without --keep"};
  return {};
}

Status Convert(const Typed& typed, Arguments& out) {
  if (typed.directory) out.directory = {*typed.directory};
  const bool reads_all = out.verb == "snapshot" || (out.verb == "audit" && !out.words.empty() &&
                                                    out.words.front() == "verify");
  const std::string timeout = typed.timeout.value_or(reads_all ? kLongTimeout : kTimeout);
  DW_ASSIGN(out.timeout, NamedDuration("--timeout", timeout));
  if (out.timeout.count() == 0)
    return {Code::kInvalid, "--timeout " + Shown(timeout) + " must be more than 0"};
  DW_ASSIGN(out.wait, NamedDuration("--wait", typed.wait));
  DW_ASSIGN(out.format, ParseFormat(typed.format));
  DW_ASSIGN(out.ttl, NamedDuration("--ttl", typed.ttl));
  DW_ASSIGN(out.priority,
            ParseNumber<uint32_t>("--priority", typed.priority, 0, limits::kPriorityMost));
  DW_ASSIGN(out.weight, ParseNumber<uint32_t>("--weight", typed.weight, 0, limits::kWeightMost));
  DW_ASSIGN(out.count, ParseNumber<uint64_t>("--count", typed.count, 0, 1'000'000'000'000));
  DW_RETURN_IF_ERROR(ConvertBench(typed, out.bench));
  if (typed.lines) {
    DW_ASSIGN(out.lines, ParseNumber<uint64_t>("-n", *typed.lines, 0, 1'000'000));
  }
  if (typed.since) {
    DW_ASSIGN(out.since, NamedDuration("--since", *typed.since));
  }
  if (typed.max_stale) {
    DW_ASSIGN(out.max_stale, NamedDuration("--max-stale", *typed.max_stale));
  }
  if (typed.min_revision) {
    DW_ASSIGN(out.min_revision, NamedRevision("--min-revision", *typed.min_revision));
  }
  if (typed.after) {
    DW_ASSIGN(out.after, NamedRevision("--after", *typed.after));
  }
  DW_RETURN_IF_ERROR(ConvertCheck(typed, out));
  for (const std::string& label : typed.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0)
      return {Code::kInvalid, "--label " + Shown(label) + " is not KEY=VALUE"};
    if (!out.labels.emplace(label.substr(0, equals), label.substr(equals + 1)).second)
      return {Code::kInvalid, "--label " + Shown(label) + " gives its key a second value"};
  }
  return {};
}

Status CheckWords(const VerbText& text, const Arguments& out) {
  const std::string usage = "; usage: " + HelpPage::Synopsis(text);
  const size_t given = out.words.size();
  if (given > text.most)
    return {Code::kInvalid, Shown(out.words[text.most]) + " is one argument too many" + usage};
  if (given < text.least)
    return {Code::kInvalid, std::to_string(text.least) +
                                (text.least == 1 ? " argument" : " arguments") +
                                (text.most > text.least ? " at least" : "") + ", not " +
                                std::to_string(given) + usage};
  if (out.is_static && (out.check || !out.command.empty()))
    return {Code::kInvalid, "--static returns at once: it goes with neither --check nor a COMMAND"};
  return {};
}

// The flags of a page, without --help and --version.
std::vector<FlagShape> FlagsOf(const CLI::App& app) {
  std::vector<FlagShape> flags;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional() || option == app.get_help_ptr() || option->check_name("--version"))
      continue;
    FlagShape flag;
    for (const std::string& name : option->get_snames()) flag.spellings.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) flag.spellings.push_back("--" + name);
    flag.what = option->get_description();
    flag.takes_value = option->get_items_expected_max() > 0;
    if (option->check_name("--output"))
      for (const auto& [name, format] : kFormats) flag.values.emplace_back(name);
    if (option->check_name("--check")) flag.values = {"tcp", "amqp", "http="};
    flags.push_back(std::move(flag));
  }
  return flags;
}

std::string Verbs() {
  std::string names;
  for (const VerbText& text : kTexts) names += (names.empty() ? "" : ", ") + std::string(text.name);
  return names;
}

// What CLI11 did not take is a verb that does not exist, or a flag.
Status Unexpected(const CLI::App& app) {
  const std::vector<std::string> left = app.remaining(true);
  const std::string& first = left.empty() ? app.get_name() : left.front();
  if (!first.starts_with("-"))
    return {Code::kInvalid, Shown(first) + " is no verb; there are " + Verbs()};
  const auto verbs = app.get_subcommands();
  const std::string verb = verbs.empty() ? "" : " " + verbs.front()->get_name();
  return {Code::kInvalid, Shown(first) + " is no flag of dw" + verb + "; see dw" + verb +
                              " --help (after -- all is taken as it is)"};
}

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

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

CommandShape ShapeOfDw() {
  Arguments unused;
  Typed typed;
  CLI::App app;
  AddGlobals(app, typed, unused.tls);
  AddVerbs(app, typed);
  AddFlags(app, typed, unused);
  CommandShape command{{}, FlagsOf(app)};
  for (const VerbText& text : kTexts) {
    VerbShape verb{std::string(text.name),
                   std::string(text.what),
                   FlagsOf(*app.get_subcommand(std::string(text.name))),
                   {}};
    if (verb.name == "completion") verb.choices.assign(std::begin(kShells), std::end(kShells));
    if (verb.name == "snapshot") verb.choices = {"save", "verify"};
    if (verb.name == "cluster") verb.choices = {"compare", "forget"};
    if (verb.name == "bench") verb.choices = {"fill", "link"};
    if (verb.name == "cache") verb.choices = {"show"};
    if (verb.name == "audit") verb.choices = {"tail", "verify"};
    verb.takes_file = verb.name == "import" || verb.name == "cache";
    command.verbs.push_back(std::move(verb));
  }
  return command;
}

Result<Arguments> ParseArguments(int argc, const char* const* argv, std::string* help) {
  Arguments out;
  Typed typed;
  CLI::App app{"Datawire: sends messages to names, and shows who answers for them.", "dw"};
  AddGlobals(app, typed, out.tls);
  AddVerbs(app, typed);
  AddFlags(app, typed, out);
  // What follows a bare -- is nobody's flag.
  const auto* const end = argv + argc;
  const auto* const dashes = std::find(argv, end, std::string_view("--"));
  try {
    app.parse(static_cast<int>(dashes - argv), argv);
  } catch (const CLI::CallForVersion& version) {
    *help = std::string(version.what()) + "\n";
    return out;
  } catch (const CLI::CallForHelp&) {
    const auto verbs = app.get_subcommands();
    *help = verbs.empty() ? app.help() : verbs.front()->help();
    return out;
  } catch (const CLI::ExtrasError&) {
    return Unexpected(app);
  } catch (const CLI::ParseError& error) {
    return Status(Code::kInvalid, OneLine(error.what()) + " (see dw --help)");
  }
  if (app.get_subcommands().empty())
    return Status(Code::kInvalid, "a verb is missing; there are " + Verbs() + "; see dw --help");
  out.verb = app.get_subcommands().front()->get_name();
  out.words = std::move(typed.words);
  if (dashes != end) {
    auto& rest = out.verb == "register" ? out.command : out.words;
    rest.insert(rest.end(), dashes + 1, end);
  }
  DW_RETURN_IF_ERROR(Convert(typed, out));
  DW_RETURN_IF_ERROR(CheckWords(*TextOf(out.verb), out));
  return out;
}

}  // namespace datawire::cli
