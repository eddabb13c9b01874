// A stage of a pipeline with several ends: what comes to one address goes to each of the others,
// and is accepted once all of them have accepted it. Whichever process is killed, nothing is lost.
//   DATAWIRE_DIRECTORY=127.0.0.1:7400 datawire-example-fanout //demo/all //demo/a //demo/b

#include <csignal>
#include <cstdio>

#include "datawire/stage.h"

int main(int argc, char** argv) {
  if (argc < 3) return std::fputs("usage: datawire-example-fanout ADDRESS NEXT...\n", stderr), 1;
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before there are threads: sigwait gets them

  datawire::Client client;
  std::vector<std::unique_ptr<datawire::Sender>> next;
  for (int i = 2; i < argc; ++i) {
    auto sender = client.OpenSender(argv[i]);
    if (!sender.ok()) return std::fprintf(stderr, "%s\n", sender.status().message().c_str()), 1;
    next.push_back(std::move(*sender));
  }
  auto service = client.Serve(argv[1], [&next](datawire::Exchange exchange) {
    std::vector<datawire::Output> outputs;
    for (const auto& sender : next) outputs.push_back({sender.get(), exchange.message()});
    datawire::Forward(std::move(exchange), std::move(outputs));
  });
  if (!service.ok()) return std::fprintf(stderr, "%s\n", service.status().message().c_str()), 1;
  std::fprintf(stderr, "serving %s at %s\n", argv[1], (*service)->url().c_str());
  int signal = 0;
  sigwait(&ends, &signal);
  for (const auto& sender : next) sender->Close(std::chrono::seconds(5));
}
