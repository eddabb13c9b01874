// A stage of a pipeline: what comes to one address goes on in capitals to the next. A message is
// accepted only after the next stage has accepted it, so whichever process is killed, nothing is
// lost. Without a next stage the capitals are the reply to a request.
//   DATAWIRE_DIRECTORY=127.0.0.1:7400 datawire-example-upper //demo/upper [//demo/printer]

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "datawire/stage.h"

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3)
    return std::fputs("usage: datawire-example-upper ADDRESS [NEXT]\n", stderr), 1;
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before there are threads: sigwait gets them

  datawire::Client client;
  std::unique_ptr<datawire::Sender> next;
  if (argc == 3) {
    auto sender = client.OpenSender(argv[2]);
    if (!sender.ok()) return std::fprintf(stderr, "%s\n", sender.status().message().c_str()), 1;
    next = std::move(*sender);
  }
  auto service = client.Serve(argv[1], [&next](datawire::Exchange exchange) {
    proton::message message = exchange.message();
    if (message.body().type() != proton::STRING) return exchange.Reject("the body is no string");
    auto text = proton::get<std::string>(message.body());
    std::transform(text.begin(), text.end(), text.begin(), ::toupper);
    message.body(text);
    if (!next) return (void)exchange.Reply(message);  // accepts; who wants no reply gets none
    datawire::Forward(std::move(exchange), {{next.get(), std::move(message)}});
  });
  if (!service.ok()) return std::fprintf(stderr, "%s\n", service.status().message().c_str()), 1;
  std::fprintf(stderr, "serving %s at %s\n", argv[1], (*service)->url().c_str());
  int signal = 0;
  sigwait(&ends, &signal);
  if (next) next->Close(std::chrono::seconds(5));  // else a handler may wait there for room
  // Then `service` drains, by its destructor.
}
