#include <absl/synchronization/mutex.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <thread>

#include "datawire/clock.h"
#include "datawire/closed_streams.h"
#include "datawire/limits.h"
#include "datawire/resolver.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

struct Verb {
  std::string_view name;
  Result<int> (*run)(Session&);
};
constexpr Verb kVerbs[] = {
    {"resolve", Resolve},
    {"list", List},
    {"tree", Tree},
    {"watch", Watch},
    {"register", Register},
    {"withdraw", Withdraw},
    {"explain", Explain},
    {"status", ShowStatus},
    {"cluster", Cluster},
    {"policy", SetOrShowPolicy},
    {"history", History},
    {"drain", Drain},
    {"session", Sessions},
    {"version", ShowVersion},
    {"send", Send},
    {"receive", Receive},
    {"request", Request},
    {"export", Export},
    {"import", Import},
    {"snapshot", Snapshot},
    {"doctor", Doctor},
    {"bench", Bench},
    {"completion", ShowCompletion},
    {"audit", Audit},
    {"cache", ShowCache},
};

// Neither links nor calls: no certificates either.
bool IsLocal(const Arguments& arguments) {
  return arguments.verb == "version" || arguments.verb == "completion" || arguments.verb == "cache";
}

bool AsksDirectory(const Arguments& arguments) {
  if (arguments.verb == "send" || arguments.verb == "request")
    return !IsPhysical(arguments.words.front());
  return !IsLocal(arguments);
}

// A name that DNS does not know yet is asked for again, as a directory that is away.
Result<std::vector<std::string>> FindServers(const Arguments& arguments) {
  constexpr std::chrono::milliseconds kAgain{200};
  DW_ASSIGN(const DirectoryPlace place, FindDirectory({arguments.directory, {}, {}}));
  const BootTime until = BootClock::now() + arguments.wait;
  while (true) {
    auto servers = LookUpServers(
        place, std::min<std::chrono::milliseconds>(arguments.timeout, limits::kSrvDeadline));
    if (servers.ok() || BootClock::now() + kAgain > until) return servers;
    std::this_thread::sleep_for(kAgain);
  }
}

Result<int> Run(const Arguments& arguments, Console& console) {
  std::vector<std::string> servers;
  if (AsksDirectory(arguments)) {
    DW_ASSIGN(servers, FindServers(arguments));
  }
  TlsFiles tls;
  if (!IsLocal(arguments)) {
    DW_ASSIGN(tls, FindTlsFiles(arguments.tls));
  }
  Api api({.servers = servers, .timeout = arguments.timeout, .wait = arguments.wait, .tls = tls});
  Session session{arguments, console, std::move(servers), std::move(tls), api};
  const auto* verb = std::find_if(std::begin(kVerbs), std::end(kVerbs),
                                  [&](const Verb& v) { return v.name == arguments.verb; });
  DW_ASSERT(verb != std::end(kVerbs));
  return verb->run(session);
}

int Main(int argc, char** argv) {
  Console console;
  std::string help;
  const auto arguments = ParseArguments(argc, argv, &help);
  if (!help.empty()) {
    console.Print(help);
    return console.Finish(0);
  }
  const Result<int> code = arguments.ok() ? Run(*arguments, console) : arguments.status();
  if (code.ok()) return console.Finish(*code);
  if (console.signal() != 0) return kExitInterrupted;
  console.Tell(code.status().message());
  return MappingOf(code.status().code()).exit_code;
}

}  // namespace
}  // namespace datawire::cli

DW_FILL_CLOSED_STREAMS;

int main(int argc, char** argv) {
  try {
    // gRPC's locks: Debian builds Abseil so that it would look for cycles of them.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    return datawire::cli::Main(argc, argv);
  } catch (const std::exception& error) {
    datawire::cli::Console().Tell(std::string("internal error: ") + error.what());
    return 4;
  }
}
