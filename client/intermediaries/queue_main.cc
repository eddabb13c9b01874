// datawire-queue ADDRESS --data DIR: a durable queue with competing consumers. What it accepts is
// on disc; consumers pull by a receiving link (Receiver, or any AMQP 1.0 client), or it pushes to
// the endpoints of another address (--to).

#include "program.h"
#include "queue.h"

namespace datawire::intermediaries {
namespace {

int Main(int argc, char** argv) {
  Program program("datawire-queue", "A durable queue with competing consumers.");
  std::string address, data, to, dead_letter, when_full = "block";
  Queue::Options options;
  program.flags().add_option("ADDRESS", address, "where it is registered")->required();
  program.flags().add_option("--data", data, "folder of its store; made if missing")->required();
  program.flags()
      .add_option("--depth", options.depth, "messages it holds")
      ->capture_default_str()
      ->check(CLI::Range(size_t{1}, size_t{100'000'000}));
  program.flags()
      .add_option("--when-full", when_full, "block: gives no more credit; reject")
      ->capture_default_str()
      ->check(CLI::IsMember({"block", "reject"}));
  program.flags().add_option("--tries", options.tries, "failed deliveries of a message; 0: any");
  program.flags().add_option("--dead-letter", dead_letter,
                             "address for what was rejected, failed too often or expired; without "
                             "it that is discarded");
  program.flags().add_option("--to", to, "address to push to; else consumers pull");
  program.flags()
      .add_option("--window", options.window, "pushed at a time")
      ->capture_default_str()
      ->check(CLI::Range(size_t{1}, size_t{100'000}));
  if (const auto code = program.Parse(argc, argv)) return *code;
  options.address = address;
  options.reject = when_full == "reject";

  auto store = QueueStore::Open(data);
  if (!store.ok()) return program.Fail(store.status());
  Client client(program.client_options());
  std::unique_ptr<Sender> push, dead_letters;
  const auto open = [&](const std::string& where, size_t buffer, std::unique_ptr<Sender>* out) {
    if (where.empty()) return Status::Ok();
    DW_ASSIGN(*out, client.OpenSender(where, {.when_full = WhenFull::kFail, .buffer = buffer}));
    return Status::Ok();
  };
  if (Status status = open(to, options.window, &push); !status.ok()) return program.Fail(status);
  if (Status status = open(dead_letter, limits::kSenderBuffer, &dead_letters); !status.ok())
    return program.Fail(status);

  auto queue = Queue::Open(std::move(store).value(), options, push.get(), dead_letters.get(),
                           [&program](const std::string& line) { program.Tell(line); });
  if (!queue.ok()) return program.Fail(queue.status());
  ServiceOptions service_options = program.service_options();
  service_options.feed = (*queue)->feed();
  auto service = client.Serve(address, (*queue)->handler(), service_options);
  if (!service.ok()) return program.Fail(service.status());

  const Queue::Figures& figures = (*queue)->figures();
  const auto show = [&program](const char* name, const char* help,
                               const std::atomic<uint64_t>& value) {
    program.Show(name, help, [&value] { return static_cast<double>(value); });
  };
  show("datawire_queue_depth", "Messages stored.", figures.depth);
  show("datawire_queue_out", "Of these, with a consumer.", figures.out);
  show("datawire_queue_held", "Messages that wait for room, unaccepted.", figures.held);
  show("datawire_queue_consumers", "Links that pull.", figures.consumers);
  show("datawire_queue_stored_total", "Messages accepted.", figures.stored);
  show("datawire_queue_refused_total", "Messages rejected because it was full.", figures.refused);
  show("datawire_queue_given_total", "Deliveries to consumers.", figures.given);
  show("datawire_queue_accepted_total", "Messages that a consumer accepted.", figures.accepted);
  show("datawire_queue_again_total", "Deliveries after which a message waits again.",
       figures.again);
  show("datawire_queue_dead_total", "Messages at the dead-letter address.", figures.dead);
  show("datawire_queue_discarded_total", "Messages thrown away, for want of such an address.",
       figures.discarded);
  const int code = program.Run((*service)->url());

  (*queue)->TakeNoMore();
  (*service)->Stop(program.stop_most());
  if (push) push->Close(program.stop_most());
  if (dead_letters) dead_letters->Close(program.stop_most());
  (*queue)->Stop();
  return code;
}

}  // namespace
}  // namespace datawire::intermediaries

int main(int argc, char** argv) {
  return datawire::intermediaries::Main(argc, argv);
}
