#include <atomic>
#include <nlohmann/json.hpp>
#include <sstream>

#include "datawire/clock.h"
#include "datawire/stage.h"
#include "datawire/utf8.h"
#include "messages.h"
#include "render.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr milliseconds kLook{20};  // between looks for a signal or an end
constexpr milliseconds kStopMost{2000};

// An amqp-value string as it is; every other body as Proton prints it.
std::string BodyText(const proton::message& message) {
  const proton::value& body = message.body();
  if (body.empty()) return "";
  if (body.type() == proton::STRING) return proton::get<std::string>(body);
  std::ostringstream text;
  text << body;
  return text.str();
}

std::string MessageText(std::string_view address, const proton::message& message, Format format) {
  const std::string body = BodyText(message);
  if (!IsJson(format)) return PrintableBody(body) + "\n";
  Json json{{"address", address}, {"body", body}};
  if (const std::string trace = TraceparentOf(message); !trace.empty()) json["traceparent"] = trace;
  return Line(json) + "\n";
}

// Suspects are tried, too.
bool MayTake(const Answer& answer) {
  return answer.status == AnswerStatus::kFound ||
         std::any_of(answer.endpoints.begin(), answer.endpoints.end(),
                     [](const Endpoint& e) { return e.state == EndpointState::kSuspect; });
}

// What a receiver does with each message, and how far it is. The handler runs on the service's
// thread, one message at a time.
struct Receiving {
  const Arguments& arguments;
  Console& console;
  std::atomic<uint64_t> printed{0};
  std::atomic<bool> output_open{true};

  bool full() const { return arguments.count > 0 && printed >= arguments.count; }

  void Handle(Exchange exchange) {
    // What is too much goes to somebody else.
    if (!output_open || full() || console.signal() != 0) return exchange.Release();
    if (!console.Print(MessageText(exchange.address(), exchange.message(), arguments.format))) {
      output_open = false;
      return exchange.Release();
    }
    exchange.Accept();
    ++printed;
  }
};

Status WaitRegistered(Session& session, Service& service) {
  const milliseconds most = session.arguments.timeout + session.arguments.wait;
  const BootTime give_up = BootClock::now() + most;
  Status registered(Code::kTimeout, "");
  while (registered.code() == Code::kTimeout && session.console.signal() == 0) {
    if (BootClock::now() >= give_up)
      return {Code::kTimeout, "the registration was not acknowledged within " +
                                  std::to_string(most.count()) + " ms"};
    registered = service.WaitRegistered(kLook);
  }
  return session.console.signal() == 0 ? registered : Status(Code::kCancelled, "interrupted");
}

}  // namespace

ClientOptions ClientOptionsOf(const Session& session) {
  ClientOptions options;
  options.resolver.directory = session.arguments.directory;  // found again: DNS may change it
  options.resolver.tls = session.tls;
  options.program = "dw";
  options.locality = {session.arguments.region, session.arguments.zone};
  return options;
}

Status CheckBody(std::string_view text) {
  if (text.size() > limits::kMessageBytes)
    return {Code::kInvalid,
            "the message is more than " + std::to_string(limits::kMessageBytes) + " bytes"};
  const size_t good = Utf8Prefix(text);
  if (good == text.size()) return {};
  return {Code::kInvalid, "the message is not UTF-8, which AMQP strings are: byte " +
                              std::to_string(good + 1) + " begins " + Shown(text.substr(good, 4))};
}

bool IsPhysical(std::string_view target) {
  return !target.starts_with("//") && target.find("://") != std::string_view::npos;
}

Result<int> FindPeer(Session& session) {
  const std::string& target = session.arguments.words.front();
  if (IsPhysical(target)) {
    DW_RETURN_IF_ERROR(EndpointUrl::Parse(target).status());
    return 0;
  }
  DW_ASSIGN(Address address, Address::Parse(target));
  DW_ASSIGN(const auto answers, ResolveNow(session, {std::move(address)}, MayTake));
  return MayTake(answers.front()) ? 0 : Judge(session, answers.front());
}

namespace {

// Asks a peer for messages until a signal, the count, or the end of the output.
Result<int> Pull(Session& session) {
  const Arguments& arguments = session.arguments;
  Console& console = session.console;
  DW_ASSIGN(const int none, FindPeer(session));
  if (none != 0) return none;
  console.CatchSignals();
  Client client(ClientOptionsOf(session));
  const auto credit = static_cast<uint32_t>(  // what is too much would go back
      std::min<uint64_t>(arguments.count > 0 ? arguments.count : UINT64_MAX,
                         limits::kServiceCredit));
  DW_ASSIGN(const auto receiver, client.OpenReceiver(arguments.words.front(), {.credit = credit}));
  Receiving receiving{arguments, console};
  std::string why;
  while (console.signal() == 0 && receiving.output_open && !receiving.full() &&
         !console.ReaderGone()) {
    auto exchange = receiver->Receive(kLook);
    if (exchange.ok()) {
      receiving.Handle(std::move(exchange).value());
      continue;
    }
    // Why no message comes, once: it may be the wrong address.
    const std::string& text = exchange.status().message();
    const size_t last = text.find("; last: ");
    if (last != std::string::npos && text.substr(last) != why)
      console.Tell((why = text.substr(last)).substr(sizeof("; last: ") - 1));
  }
  receiver->Close();
  return console.signal() == 0 ? 0 : kExitInterrupted;
}

}  // namespace

Result<int> Receive(Session& session) {
  const Arguments& arguments = session.arguments;
  Console& console = session.console;
  if (arguments.pull) return Pull(session);
  DW_ASSIGN(const Address address, Address::Parse(arguments.words.front()));
  DW_RETURN_IF_ERROR(session.api.GetStatus().status());
  console.CatchSignals();
  Client client(ClientOptionsOf(session));
  Receiving receiving{arguments, console};
  ServiceOptions options;
  if (!arguments.listen.empty()) options.listen = arguments.listen;
  DW_ASSIGN(
      const auto service,
      client.Serve(
          address.text(),
          [&receiving](Exchange exchange) { receiving.Handle(std::move(exchange)); }, options));
  DW_RETURN_IF_ERROR(WaitRegistered(session, *service));
  console.Tell("listening on " + service->url() + " as " + address.text());
  while (console.signal() == 0 && receiving.output_open && !receiving.full() &&
         !console.ReaderGone())
    console.Wait(kLook);
  service->Stop(kStopMost);
  return console.signal() == 0 ? 0 : kExitInterrupted;
}

Result<int> Request(Session& session) {
  const Arguments& arguments = session.arguments;
  const std::string &target = arguments.words[0], &text = arguments.words[1];
  DW_RETURN_IF_ERROR(CheckBody(text));
  DW_ASSIGN(const int none, FindPeer(session));
  if (none != 0) return none;
  Client client(ClientOptionsOf(session));
  const auto reply =
      client.Request(target, proton::message(text), arguments.timeout + arguments.wait);
  if (reply.ok()) {
    session.console.Print(MessageText(target, *reply, arguments.format));
    return 0;
  }
  // The peer's refusal is an outcome of the message, not a missing right of ours.
  if (reply.status().code() != Code::kDenied) return reply.status();
  session.console.Tell(reply.status().message());
  return kExitNotAccepted;
}

}  // namespace datawire::cli
