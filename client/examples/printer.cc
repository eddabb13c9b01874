// The end of a pipeline: prints each message and, if a file is named, appends its id there before
// it is accepted.
//   DATAWIRE_DIRECTORY=127.0.0.1:7400 datawire-example-printer //demo/printer processed.txt

#include <csignal>
#include <cstdio>
#include <fstream>
#include <proton/message_id.hpp>

#include "datawire/client.h"

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3)
    return std::fputs("usage: datawire-example-printer ADDRESS [FILE]\n", stderr), 1;
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before there are threads: sigwait gets them

  std::ofstream processed;
  if (argc == 3) processed.open(argv[2], std::ios::app);
  if (!processed) return std::fprintf(stderr, "cannot append to %s\n", argv[2]), 1;

  datawire::Client client;  // one I/O thread, so one handler at a time
  auto service = client.Serve(argv[1], [&processed](datawire::Exchange exchange) {
    const proton::message& message = exchange.message();
    std::printf("%s\n", proton::to_string(message.body()).c_str());
    std::fflush(stdout);
    if (processed.is_open()) processed << message.id() << std::endl;
    if (!processed) return exchange.Release();
    exchange.Accept();
  });
  if (!service.ok()) return std::fprintf(stderr, "%s\n", service.status().message().c_str()), 1;
  std::fprintf(stderr, "serving %s at %s\n", argv[1], (*service)->url().c_str());

  int signal = 0;
  sigwait(&ends, &signal);
  (*service)->Stop(std::chrono::seconds(5));
}
