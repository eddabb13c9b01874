// Sends messages at a steady rate and marks in a file how each ended: `accepted ID ATTEMPTS PEER`,
// or the word of another end with its condition. On stdout: `ejected URL ...`. The last line on
// stdout is the sum, as JSON.

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <proton/message_id.hpp>
#include <thread>

#include "datawire/client.h"
#include "datawire/clock.h"
#include "flags.h"
#include "marks.h"

namespace {

using datawire::BootClock;
using datawire::DeliveryEnd;
using std::chrono::milliseconds;

std::string MarkOf(const std::string& id, const datawire::DeliveryOutcome& outcome) {
  if (outcome.end == DeliveryEnd::kAccepted) {
    return "accepted " + id + ' ' + std::to_string(outcome.attempts) + ' ' + outcome.peer;
  }
  return std::string(datawire::DeliveryEndName(outcome.end)) + ' ' + id + ' ' + outcome.condition +
         ' ' + outcome.description;
}

void PrintSum(const datawire::Sender::Counters& counters, std::vector<int>& in_flight) {
  std::sort(in_flight.begin(), in_flight.end());
  const auto at = [&in_flight](double share) {
    return in_flight.empty() ? 0 : in_flight[static_cast<size_t>(share * (in_flight.size() - 1))];
  };
  std::printf(
      "{\"sent\": %lu, \"accepted\": %lu, \"rejected\": %lu, \"not_sent\": %lu, \"unknown\": %lu, "
      "\"redelivered\": %lu, \"links_opened\": %lu, \"links_lost\": %lu, \"ejections\": %lu, "
      "\"in_flight_p10\": %d, \"in_flight_p50\": %d}\n",
      counters.sent, counters.accepted, counters.rejected, counters.not_sent, counters.unknown,
      counters.redelivered, counters.links_opened, counters.links_lost, counters.ejections, at(0.1),
      at(0.5));
}

}  // namespace

int main(int argc, char** argv) {
  const datawire::harness::Flags flags(argc, argv,
                                       {{"--directory", ""},
                                        {"--address", ""},
                                        {"--marks", ""},
                                        {"--zone", ""},
                                        {"--ejection-ms", ""},
                                        {"--rate", "200"},
                                        {"--bytes", "0"},
                                        {"--seconds", "0"},
                                        {"--count", ""}});
  datawire::harness::Marks marks(flags["--marks"]);
  std::atomic<int> unsettled{0};
  datawire::ClientOptions options;
  options.resolver.directory = datawire::harness::Split(flags["--directory"]);
  options.resolver.observer = [](const datawire::ResolverEvent& event) {
    if (event.kind != datawire::ResolverEvent::Kind::kEjected) return;
    std::printf("ejected %s %s\n", event.server.c_str(), event.status.message().c_str());
    std::fflush(stdout);
  };
  if (flags.Has("--zone")) options.locality.zone = flags["--zone"];
  if (flags.Has("--ejection-ms"))
    options.selection.ejection = milliseconds(flags.Number("--ejection-ms"));
  datawire::Client client(options);
  auto sender = client.OpenSender(flags["--address"]);
  if (!sender.ok()) flags.Fail(sender.status().ToString());

  const long count = flags.Number("--count");
  const std::chrono::nanoseconds pause(1'000'000'000 / flags.Number("--rate"));
  const datawire::BootTime start = BootClock::now();
  std::vector<int> in_flight;
  const std::chrono::seconds most(flags.Number("--seconds"));
  for (long i = 0; i < count; ++i) {
    if (most.count() > 0 && BootClock::now() - start > most) break;  // it was held up
    // Paced by the schedule, not by the call before: what was held up is caught up.
    std::this_thread::sleep_for(start + i * pause - BootClock::now());
    const std::string id = "m" + std::to_string(i);
    proton::message message(id + std::string(static_cast<size_t>(flags.Number("--bytes")), '.'));
    message.id(id);
    datawire::SendOptions how;
    how.done = [id, &marks, &unsettled](const datawire::DeliveryOutcome& outcome) {
      marks.Line(MarkOf(id, outcome));
      --unsettled;
    };
    ++unsettled;
    (*sender)->Send(std::move(message), std::move(how));
    in_flight.push_back(unsettled);
    if (i == 0) std::printf("sending\n"), std::fflush(stdout);
  }
  const size_t left = (*sender)->Close(std::chrono::seconds(35)).size();
  const datawire::Sender::Counters counters = (*sender)->counters();
  PrintSum(counters, in_flight);
  return left == 0 && counters.accepted == static_cast<uint64_t>(count) ? 0 : 8;
}
