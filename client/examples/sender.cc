// The begin of a pipeline: COUNT messages, RATE a second; appends the id of each accepted one to a
// file. Exit code 8 if any was not accepted. Pre-settled ones count as accepted when they are
// written: they may be lost.
//   DATAWIRE_DIRECTORY=127.0.0.1:7400 datawire-example-sender //demo/upper 1000 200 accepted.txt
//   [--presettled]

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <proton/message_id.hpp>
#include <thread>

#include "datawire/client.h"

int main(int argc, char** argv) {
  const bool presettled = argc == 6 && std::string(argv[5]) == "--presettled";
  const long count = argc < 5 ? 0 : std::atol(argv[2]), rate = argc < 5 ? 0 : std::atol(argv[3]);
  if (count < 1 || rate < 1 || (argc != 5 && !presettled)) {
    return std::fputs("usage: datawire-example-sender ADDRESS COUNT RATE FILE [--presettled]\n",
                      stderr),
           1;
  }
  std::ofstream accepted(argv[4], std::ios::app);
  if (!accepted) return std::fprintf(stderr, "cannot append to %s\n", argv[4]), 1;

  datawire::Client client;
  datawire::SenderOptions options;
  if (presettled) options.settlement = datawire::Settlement::kAtMostOnce;
  auto sender = client.OpenSender(argv[1], options);
  if (!sender.ok()) return std::fprintf(stderr, "%s\n", sender.status().message().c_str()), 1;

  for (long i = 1; i <= count; ++i) {
    const std::string id = "m" + std::to_string(i);
    proton::message message("message " + std::to_string(i));
    message.id(proton::message_id(id));
    (*sender)->Send(std::move(message),
                    {.done = [&accepted, id](const datawire::DeliveryOutcome& outcome) {
                      if (outcome.end == datawire::DeliveryEnd::kAccepted)
                        accepted << id << std::endl;
                    }});
    std::this_thread::sleep_for(std::chrono::microseconds(1'000'000 / rate));
  }
  (*sender)->Close(std::chrono::seconds(30));
  const datawire::Sender::Counters sum = (*sender)->counters();
  std::printf("sent %lu, accepted %lu, sent again %lu, links lost %lu\n", sum.sent, sum.accepted,
              sum.redelivered, sum.links_lost);
  return sum.accepted == static_cast<uint64_t>(count) ? 0 : 8;
}
