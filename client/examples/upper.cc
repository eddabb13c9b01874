// A stage of a pipeline: what comes to one address goes on in capitals to the next. A message is
// accepted only after the next stage has accepted it, so whichever process is killed, nothing is
// lost. Without a next stage the capitals are the reply to a request.
//   DATAWIRE_DIRECTORY=127.0.0.1:7400 datawire-example-upper //demo/upper [//demo/printer]

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "datawire/client.h"

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
    // A handler must not block: when the buffer is full the message goes back, to another instance.
    auto sender = client.OpenSender(argv[2], {.when_full = datawire::WhenFull::kFail});
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
    auto input = std::make_shared<datawire::Exchange>(std::move(exchange));
    auto settle = [input](const datawire::DeliveryOutcome& outcome) {
      if (outcome.end == datawire::DeliveryEnd::kAccepted) return input->Accept();
      if (outcome.end == datawire::DeliveryEnd::kRejected)
        return input->Reject(outcome.description);
      input->Release();
    };
    next->Send(std::move(message), {.done = settle});
  });
  if (!service.ok()) return std::fprintf(stderr, "%s\n", service.status().message().c_str()), 1;
  std::fprintf(stderr, "serving %s at %s\n", argv[1], (*service)->url().c_str());
  int signal = 0;
  sigwait(&ends, &signal);  // then `service` drains, by its destructor
}
