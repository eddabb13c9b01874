// A service for peers that have never heard of us: replies in capitals to what asks for a reply and
// accepts the rest, but for the bodies `reject`, `release` and `throw`.

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <stdexcept>

#include "datawire/client.h"

namespace {

void Answer(datawire::Exchange exchange) {
  auto text = proton::get<std::string>(exchange.message().body());
  if (text == "reject") return exchange.Reject("told to");
  if (text == "release") return exchange.Release();
  if (text == "throw") throw std::runtime_error("told to");
  if (exchange.message().reply_to().empty()) return exchange.Accept();
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::toupper(c); });
  (void)exchange.Reply(proton::message(text));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fputs("usage: datawire-test-answerer DIRECTORY ADDRESS\n", stderr), 1;
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before there are threads: sigwait gets it

  datawire::ClientOptions options;
  options.resolver.directory = {argv[1]};
  datawire::Client client(options);
  auto service = client.Serve(argv[2], Answer);
  if (!service.ok()) return std::fprintf(stderr, "%s\n", service.status().message().c_str()), 1;
  std::printf("listening %s\n", (*service)->url().c_str());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&ends, &signal);
  (*service)->Stop(std::chrono::seconds(5));
  std::printf("stopped\n");
}
