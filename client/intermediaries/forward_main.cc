// datawire-forward FROM TO: a bridge. Takes messages at one address and sends them to another; one
// is settled where it came from once it is settled where it went, so nothing is lost whichever
// process dies. Either end may be a physical URL: that of a broker's queue, for example.

#include <atomic>
#include <thread>

#include "datawire/stage.h"
#include "program.h"

namespace datawire::intermediaries {
namespace {

constexpr std::chrono::milliseconds kPatience{500};  // between looks at whether it is to end

int Main(int argc, char** argv) {
  Program program("datawire-forward", "Takes messages at one address and sends them to another.");
  std::string from, to;
  bool serve = false;
  program.flags().add_option("FROM", from, "address or amqp URL to pull from")->required();
  program.flags().add_option("TO", to, "address or amqp URL to send to")->required();
  program.flags().add_flag("--serve", serve, "registers FROM and takes what is sent there");
  if (const auto code = program.Parse(argc, argv)) return *code;

  Client client(program.client_options());
  auto sender = client.OpenSender(to);
  if (!sender.ok()) return program.Fail(sender.status());
  std::atomic<uint64_t> came = 0;
  const auto pass = [&came, out = sender->get()](Exchange exchange) {
    ++came;
    proton::message message = exchange.message();
    Forward(std::move(exchange), {{out, std::move(message)}});
  };
  program.Show("datawire_forward_taken_total", "Messages that came.",
               [&] { return static_cast<double>(came); });
  program.Show("datawire_forward_accepted_total", "Messages that the other end has accepted.",
               [&] { return static_cast<double>((*sender)->counters().accepted); });
  program.Show("datawire_forward_rejected_total", "Messages that the other end has rejected.",
               [&] { return static_cast<double>((*sender)->counters().rejected); });

  if (serve) {
    auto service = client.Serve(from, pass, program.service_options());
    if (!service.ok()) return program.Fail(service.status());
    const int code = program.Run((*service)->url());
    (*sender)->Close(program.stop_most());  // a handler may wait there for room
    (*service)->Stop(program.stop_most());
    return code;
  }
  auto receiver = client.OpenReceiver(from, {.credit = program.service_options().credit});
  if (!receiver.ok()) return program.Fail(receiver.status());
  std::atomic<bool> ending = false;
  std::thread pull([&] {
    while (!ending) {
      auto exchange = (*receiver)->Receive(kPatience);
      if (exchange.ok()) pass(std::move(exchange).value());
    }
  });
  const int code = program.Run(from);
  ending = true;
  (*sender)->Close(program.stop_most());  // settles what came before its link is closed
  pull.join();
  (*receiver)->Close();
  return code;
}

}  // namespace
}  // namespace datawire::intermediaries

int main(int argc, char** argv) {
  return datawire::intermediaries::Main(argc, argv);
}
