// A service and its sender in one program: `talk ADDRESS COUNT`. Exit code 0: all were accepted and
// a request had its reply.

#include <datawire/client.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

using std::chrono::seconds;

namespace {

int Fail(const datawire::Status& status) {
  std::fprintf(stderr, "talk: %s\n", status.message().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fputs("usage: talk ADDRESS COUNT\n", stderr), 1;
  datawire::Client client;
  auto service = client.Serve(
      argv[1], [](datawire::Exchange exchange) { (void)exchange.Reply(exchange.message()); });
  if (!service.ok()) return Fail(service.status());
  if (const auto registered = (*service)->WaitRegistered(seconds(60)); !registered.ok()) {
    return Fail(registered);
  }
  auto sender = client.OpenSender(argv[1]);
  if (!sender.ok()) return Fail(sender.status());
  std::vector<datawire::Delivery> sent;
  for (int i = 0; i < std::atoi(argv[2]); ++i) {
    sent.push_back((*sender)->Send(proton::message("message " + std::to_string(i))));
  }
  size_t accepted = 0;
  for (auto& one : sent) accepted += one.Wait().end == datawire::DeliveryEnd::kAccepted;
  const auto reply = client.Request(argv[1], proton::message("echo"), seconds(60));
  if (!reply.ok()) return Fail(reply.status());
  std::printf("%zu of %zu accepted, reply %s\n", accepted, sent.size(),
              proton::to_string(reply->body()).c_str());
  return accepted == sent.size() ? 0 : 8;
}
