// The receiving end of link_bench: `raw CREDIT` is a plain proton::container, `service CREDIT` is
// ours, `inline CREDIT` too, its handler where the messages come in. All accept every message and
// answer those that ask for a reply.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <proton/connection.hpp>
#include <proton/connection_options.hpp>
#include <proton/container.hpp>
#include <proton/delivery.hpp>
#include <proton/listen_handler.hpp>
#include <proton/listener.hpp>
#include <proton/message_id.hpp>
#include <proton/messaging_handler.hpp>
#include <proton/receiver_options.hpp>
#include <proton/sender.hpp>
#include <proton/sender_options.hpp>
#include <proton/source.hpp>
#include <proton/source_options.hpp>
#include <string_view>

#include "datawire/client.h"

namespace {

void Ready(const std::string& address) {
  std::printf("ready grpc=%s\n", address.c_str());
  std::fflush(stdout);
}

class Raw final : public proton::messaging_handler, public proton::listen_handler {
 public:
  explicit Raw(int credit) : credit_(credit) {}
  void on_container_start(proton::container& container) override {
    container.listen("127.0.0.1:0", *this);
  }
  void on_open(proton::listener& listener) override {
    Ready("127.0.0.1:" + std::to_string(listener.port()));
  }
  proton::connection_options on_accept(proton::listener&) override {
    return proton::connection_options().handler(*this);
  }
  void on_receiver_open(proton::receiver& receiver) override {
    receiver.open(proton::receiver_options().credit_window(credit_));
  }
  void on_sender_open(proton::sender& sender) override {
    const std::string address = "reply-" + std::to_string(++replies_);
    sender.open(proton::sender_options().source(proton::source_options().address(address)));
    senders_[address] = sender;
  }
  void on_message(proton::delivery&, proton::message& message) override {
    if (message.reply_to().empty()) return;
    proton::message reply(message.body());
    reply.correlation_id(message.id());
    senders_[message.reply_to()].send(reply);
  }
  void on_error(const proton::error_condition&) override {}

 private:
  const int credit_;
  int replies_ = 0;
  std::map<std::string, proton::sender> senders_;
};

int Service(uint32_t credit, bool inline_handler) {
  sigset_t stop;
  ::sigemptyset(&stop);
  ::sigaddset(&stop, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &stop, nullptr);
  datawire::ClientOptions options;
  options.resolver.directory = {"127.0.0.1:1"};  // link_bench registers it as a static record
  datawire::Client client(options);
  auto service = client.Serve("//bench/peer",
                              [](datawire::Exchange exchange) {
                                if (exchange.message().reply_to().empty()) return exchange.Accept();
                                (void)exchange.Reply(proton::message(exchange.message().body()));
                              },
                              {.credit = credit, .inline_handler = inline_handler});
  if (!service.ok()) return 1;
  Ready((*service)->url().substr(std::string_view("amqp://").size()));
  int signal = 0;
  ::sigwait(&stop, &signal);
  ::_exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 1;
  const uint32_t credit = static_cast<uint32_t>(std::atoi(argv[2]));
  if (std::string_view(argv[1]) == "service") return Service(credit, false);
  if (std::string_view(argv[1]) == "inline") return Service(credit, true);
  Raw raw(std::atoi(argv[2]));
  proton::container(raw).run();
}
