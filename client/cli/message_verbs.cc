#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>

#include "datawire/client.h"
#include "datawire/clock.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;

ClientOptions ClientOptionsOf(const Arguments& arguments) {
  ClientOptions options;
  options.resolver.directory = arguments.directory;
  options.program = "dw";
  return options;
}

// An amqp-value string as it is; every other body as Proton prints it.
std::string BodyText(const proton::message& message) {
  const proton::value& body = message.body();
  if (body.empty()) return "";
  if (body.type() == proton::STRING) return Printable(proton::get<std::string>(body));
  std::ostringstream text;
  text << body;
  return Printable(text.str());
}

Json OutcomeJson(uint64_t number, const DeliveryOutcome& outcome) {
  return Json{{"message", number},
              {"outcome", DeliveryEndName(outcome.end)},
              {"peer", outcome.peer},
              {"condition", outcome.condition},
              {"description", outcome.description},
              {"attempts", outcome.attempts}};
}

// A physical URL passes; an address is parsed here so that a mistake is told before anything else.
Status CheckTarget(const std::string& target) {
  if (target.find("://") != std::string::npos) return EndpointUrl::Parse(target).status();
  return Address::Parse(target).status();
}

// Counts outcomes as they come; the callbacks run on the client's thread.
class Tally {
 public:
  Tally(const Arguments& arguments, Console& console) : arguments_(arguments), console_(console) {}

  void Given() {
    std::lock_guard lock(mutex_);
    ++given_;
  }

  void Ended(uint64_t number, const DeliveryOutcome& outcome) {
    const bool json = arguments_.format == Format::kJson || arguments_.format == Format::kJsonLines;
    if (json) console_.Print(Line(OutcomeJson(number, outcome)) + "\n");
    std::lock_guard lock(mutex_);
    ++ended_;
    if (outcome.end == DeliveryEnd::kAccepted) {
      ++accepted_;
    } else if (failure_.empty()) {
      failure_ =
          "message " + std::to_string(number) + ": " + std::string(DeliveryEndName(outcome.end));
      if (!outcome.condition.empty()) failure_ += ", " + outcome.condition;
      if (!outcome.description.empty()) failure_ += ": " + outcome.description;
      if (!outcome.peer.empty()) failure_ += " (" + outcome.peer + ")";
    }
    if (ended_ % 100 == 0) console_.Progress(std::to_string(ended_) + " messages ...");
    changed_.notify_all();
  }

  bool Wait(milliseconds most) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, most, [this] { return ended_ == given_; });
  }

  int Finish(bool interrupted) {
    std::lock_guard lock(mutex_);
    std::string line = std::to_string(accepted_) + " of " + std::to_string(given_) + " accepted";
    if (!failure_.empty()) line += "; " + failure_;
    console_.Tell(line);
    if (interrupted) return kExitInterrupted;
    return accepted_ == given_ ? 0 : kExitNotAccepted;
  }

 private:
  const Arguments& arguments_;
  Console& console_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t given_ = 0, ended_ = 0, accepted_ = 0;
  std::string failure_;
};

// The next line of stdin, without its end; nothing at the end of input or when a signal came.
std::optional<std::string> ReadLine(Console& console, std::string& buffer) {
  for (;;) {
    if (const size_t end = buffer.find('\n'); end != std::string::npos) {
      std::string line = buffer.substr(0, end);
      buffer.erase(0, end + 1);
      return line;
    }
    if (!console.WaitForInput()) return std::nullopt;
    char bytes[65536];
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n <= 0) {
      if (buffer.empty()) return std::nullopt;
      return std::exchange(buffer, "");
    }
    buffer.append(bytes, static_cast<size_t>(n));
  }
}

int ExitOf(Code code) {
  return MappingOf(code).exit_code;
}

}  // namespace

Result<int> Send(Session& session) {
  const Arguments& arguments = session.arguments;
  Console& console = session.console;
  const std::string& target = arguments.words.front();
  DW_RETURN_IF_ERROR(CheckTarget(target));
  Client client(ClientOptionsOf(arguments));
  const milliseconds deadline = arguments.timeout + arguments.wait;
  auto sender = client.OpenSender(
      target,
      {.settlement = arguments.presettled ? Settlement::kAtMostOnce : Settlement::kAtLeastOnce,
       .deadline = deadline});
  if (!sender.ok()) return sender.status();
  console.CatchSignals();
  Tally tally(arguments, console);
  uint64_t number = 0;
  const auto send = [&](std::string text) {
    tally.Given();
    (*sender)->Send(proton::message(std::move(text)),
                    {.done = [&tally, at = ++number](const DeliveryOutcome& outcome) {
                      tally.Ended(at, outcome);
                    }});
  };
  if (arguments.words.size() > 1) {
    for (size_t i = 1; i < arguments.words.size() && console.signal() == 0; ++i)
      send(arguments.words[i]);
  } else {
    std::string buffer;
    while (auto line = ReadLine(console, buffer)) send(std::move(*line));
  }
  while (console.signal() == 0 && !tally.Wait(milliseconds(50))) {
  }
  (*sender)->Close(milliseconds(0));
  tally.Wait(std::chrono::seconds(1));
  return tally.Finish(console.signal() != 0);
}

Result<int> Receive(Session& session) {
  const Arguments& arguments = session.arguments;
  Console& console = session.console;
  const auto address = Address::Parse(arguments.words.front());
  if (!address.ok()) return address.status();
  console.CatchSignals();
  Client client(ClientOptionsOf(arguments));
  std::atomic<uint64_t> printed{0};
  std::atomic<bool> output_open{true};
  const auto handle = [&](Exchange exchange) {
    // One handler runs at a time, so the count is exact; what is too much goes to somebody else.
    if (!output_open || (arguments.count > 0 && printed >= arguments.count))
      return exchange.Release();
    const bool json = arguments.format == Format::kJson || arguments.format == Format::kJsonLines;
    const std::string body = BodyText(exchange.message());
    const std::string text =
        json ? Line(Json{{"address", exchange.address()}, {"body", body}}) : body;
    if (!console.Print(text + "\n")) {
      output_open = false;
      return exchange.Release();
    }
    exchange.Accept();
    ++printed;
  };
  ServiceOptions options;
  if (!arguments.listen.empty()) options.listen = arguments.listen;
  auto service = client.Serve(address->text(), handle, options);
  if (!service.ok()) return service.status();
  const BootTime give_up = BootClock::now() + arguments.timeout + arguments.wait;
  Status registered(Code::kTimeout, "");
  while (console.signal() == 0 && registered.code() == Code::kTimeout && BootClock::now() < give_up)
    registered = (*service)->WaitRegistered(milliseconds(50));
  if (console.signal() == 0) {
    if (registered.code() == Code::kTimeout)
      registered = {Code::kUnavailable, "not registered: no directory answered in time"};
    if (!registered.ok()) return registered;
    console.Tell("listening on " + (*service)->url() + " as " + address->text());
  }
  while (console.signal() == 0 && output_open &&
         (arguments.count == 0 || printed < arguments.count))
    console.Wait(milliseconds(20));
  (*service)->Stop(std::chrono::seconds(2));
  if (console.signal() == 0) return 0;
  return console.signal() == SIGTERM ? 0 : kExitInterrupted;
}

Result<int> Request(Session& session) {
  const Arguments& arguments = session.arguments;
  Console& console = session.console;
  const std::string& target = arguments.words.front();
  DW_RETURN_IF_ERROR(CheckTarget(target));
  Client client(ClientOptionsOf(arguments));
  const auto reply = client.Request(target, proton::message(arguments.words[1]),
                                    arguments.timeout + arguments.wait);
  if (!reply.ok()) {
    console.Tell(reply.status().message());
    // The peer's refusal is an outcome of the message, not a missing right of ours.
    return reply.status().code() == Code::kDenied ? kExitNotAccepted
                                                  : ExitOf(reply.status().code());
  }
  const std::string body = BodyText(*reply);
  const bool json = arguments.format == Format::kJson || arguments.format == Format::kJsonLines;
  console.Print((json ? Line(Json{{"address", target}, {"body", body}}) : body) + "\n");
  return 0;
}

}  // namespace datawire::cli
