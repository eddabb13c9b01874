// datawire-topic ADDRESS: what is sent there goes to every subscriber: to each receiving link
// (Receiver, or any AMQP 1.0 client), and to one endpoint of each address of --to.

#include "program.h"
#include "topic.h"

namespace datawire::intermediaries {
namespace {

int Main(int argc, char** argv) {
  Program program("datawire-topic", "Gives each message to every subscriber.");
  std::string address;
  std::vector<std::string> to;
  Topic::Options options;
  program.flags().add_option("ADDRESS", address, "where it is registered")->required();
  program.flags().add_option("--to", to, "address to push to, also several times");
  program.Duration("--slow", options.slow, "who settles a message later is cut off");
  if (const auto code = program.Parse(argc, argv)) return *code;
  if (options.slow.count() == 0) return program.Fail({Code::kInvalid, "--slow is 0, at least 1ms"});

  Client client(program.client_options());
  std::vector<std::unique_ptr<Sender>> senders;
  std::vector<Sender*> targets;
  for (const std::string& where : to) {
    auto sender = client.OpenSender(where, {.when_full = WhenFull::kFail});
    if (!sender.ok()) return program.Fail(sender.status());
    senders.push_back(std::move(sender).value());
    targets.push_back(senders.back().get());
  }
  Topic topic(options, targets);
  ServiceOptions service_options = program.service_options();
  service_options.feed = topic.feed();
  auto service = client.Serve(address, topic.handler(), service_options);
  if (!service.ok()) return program.Fail(service.status());

  const Topic::Figures& figures = topic.figures();
  const auto show = [&program](const char* name, const char* help,
                               const std::atomic<uint64_t>& value) {
    program.Show(name, help, [&value] { return static_cast<double>(value); });
  };
  show("datawire_topic_subscribers", "Links and addresses that get each message.",
       figures.subscribers);
  show("datawire_topic_waiting", "Messages that the slowest of them has not settled.",
       figures.waiting);
  show("datawire_topic_published_total", "Messages that came.", figures.published);
  show("datawire_topic_unheard_total", "Of these, while there was no subscriber.", figures.unheard);
  show("datawire_topic_given_total", "Deliveries to subscribers.", figures.given);
  show("datawire_topic_accepted_total", "Deliveries that were accepted or rejected.",
       figures.accepted);
  show("datawire_topic_missed_total",
       "Deliveries that a subscriber which went away, was cut off or "
       "was too slow did not settle.",
       figures.missed);
  show("datawire_topic_cut_off_total", "Subscribers cut off for being slow.", figures.cut_off);
  const int code = program.Run((*service)->url());

  topic.TakeNoMore();
  (*service)->Stop(program.stop_most());
  for (const auto& sender : senders) sender->Close(program.stop_most());
  topic.Stop();
  return code;
}

}  // namespace
}  // namespace datawire::intermediaries

int main(int argc, char** argv) {
  return datawire::intermediaries::Main(argc, argv);
}
