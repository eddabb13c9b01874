// One process in two networks: serves the same address in each, with the network's name as the
// reply, and asks each. Prints the two replies, a line each, then waits for SIGTERM.

#include <csignal>
#include <cstdio>

#include "datawire/client.h"
#include "flags.h"

int main(int argc, char** argv) {
  const datawire::harness::Flags flags(argc, argv, {{"--one", ""}, {"--two", ""}});
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  const auto options = [&flags](const char* directory) {
    datawire::ClientOptions out;
    out.resolver.directory = {flags[directory]};
    return out;
  };
  datawire::Client one(options("--one")), two(options("--two"));
  const auto serve = [&flags](datawire::Client& client, const char* name) {
    auto service = client.Serve("//d/x", [name](datawire::Exchange exchange) {
      (void)exchange.Reply(proton::message(std::string(name)));
    });
    if (!service.ok()) flags.Fail(service.status().ToString());
    const auto registered = (*service)->WaitRegistered(std::chrono::seconds(30));
    if (!registered.ok()) flags.Fail(registered.ToString());
    return std::move(service).value();
  };
  const auto first = serve(one, "one"), second = serve(two, "two");
  for (datawire::Client* client : {&one, &two}) {
    const auto reply = client->Request("//d/x", proton::message("?"), std::chrono::seconds(10));
    if (!reply.ok()) flags.Fail(reply.status().ToString());
    std::printf("%s\n", proton::get<std::string>(reply->body()).c_str());
  }
  std::fflush(stdout);
  int signal = 0;
  sigwait(&ends, &signal);
}
