#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "datawire/client.h"
#include "datawire/clock.h"
#include "messages.h"
#include "render.h"
#include "verbs.h"

// dw bench link: messages over a direct link between two clients of this process, one at a time and
// as many as go; with --broker the same messages through a queue of a broker.

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;

constexpr int kOneByOne = 1000;
constexpr std::chrono::seconds kPatience{30};  // for one message
constexpr milliseconds kIdle{500};             // a queue that gives nothing for so long is empty
constexpr std::string_view kNode = "//dw-bench/link";

double Micros(BootClock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

// How many messages have come. Thread-safe.
class Arrivals {
 public:
  void Note() {
    const std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  // The moment, if `count` came in time.
  std::optional<BootTime> Await(uint64_t count) {
    std::unique_lock lock(mutex_);
    const auto there = [&] { return count_ >= count; };
    if (!changed_.wait_for(lock, kPatience, there)) return std::nullopt;
    return BootClock::now();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t count_ = 0;  // guarded by mutex_
};

struct Figures {
  std::string path;
  double first_ms = 0, p50_us = 0, p99_us = 0, rate = 0;
};

// `open` makes the sender; its link is made by the first message.
Result<Figures> Measure(std::string path, const Arguments& arguments, Arrivals& arrivals,
                        const std::function<Result<std::unique_ptr<Sender>>()>& open) {
  Figures figures{.path = std::move(path)};
  const proton::message message(std::string(arguments.bench.bytes, 'x'));
  const Status late(Code::kTimeout, "a message over " + figures.path + " did not arrive within " +
                                        std::to_string(kPatience.count()) + " s");
  const BootTime begun = BootClock::now();
  DW_ASSIGN(const auto sender, open());
  const DeliveryOutcome first =
      sender->Send(message, {.deadline = arguments.timeout + arguments.wait}).Wait();
  if (first.end != DeliveryEnd::kAccepted)
    return Status(Code::kUnavailable, figures.path + ": " + first.description);
  figures.first_ms = Micros(BootClock::now() - begun) / 1000;

  uint64_t came = 1;
  std::vector<double> took;
  for (int i = 0; i < kOneByOne; ++i) {
    const BootTime start = BootClock::now();
    Delivery delivery = sender->Send(message);
    const auto there = arrivals.Await(++came);
    if (!there) return late;
    took.push_back(Micros(*there - start));
    delivery.Wait();
  }
  std::sort(took.begin(), took.end());
  figures.p50_us = took[took.size() / 2];
  figures.p99_us = took[took.size() * 99 / 100];

  const BootTime start = BootClock::now();
  for (uint64_t i = 0; i < arguments.bench.messages; ++i) sender->Send(message);
  const auto there = arrivals.Await(came + arguments.bench.messages);
  if (!there) return late;
  figures.rate = static_cast<double>(arguments.bench.messages) * 1e6 / Micros(*there - start);
  sender->Close(milliseconds(1000));
  return figures;
}

Result<Figures> Direct(const ClientOptions& options, const Arguments& arguments) {
  ClientOptions alone = options;
  alone.resolver.directory = {"127.0.0.1:1"};  // it is registered nowhere
  Client here(alone), there(alone);
  Arrivals arrivals;
  DW_ASSIGN(const auto service, there.Serve(kNode,
                                            [&arrivals](Exchange exchange) {
                                              arrivals.Note();
                                              exchange.Accept();
                                            },
                                            {.credit = 1000}));
  return Measure("direct", arguments, arrivals,
                 [&] { return here.OpenSender(service->url() + "/" + std::string(kNode), {}); });
}

Result<Figures> Broker(const ClientOptions& options, const Arguments& arguments) {
  Client client(options);
  DW_ASSIGN(const auto receiver, client.OpenReceiver(arguments.bench.broker, {.credit = 1000}));
  while (true) {  // what others left there
    auto left = receiver->Receive(kIdle);
    if (!left.ok()) break;
    left->Accept();
  }
  Arrivals arrivals;
  std::atomic<bool> over = false;
  std::thread pull([&] {
    while (!over) {
      auto exchange = receiver->Receive(milliseconds(50));
      if (!exchange.ok()) continue;
      arrivals.Note();
      exchange->Accept();
    }
  });
  auto figures = Measure("broker", arguments, arrivals,
                         [&] { return client.OpenSender(arguments.bench.broker, {}); });
  over = true;
  pull.join();
  return figures;
}

void Print(Session& session, const std::vector<Figures>& all) {
  const auto text = [](double number, const char* form) {
    char out[32];
    std::snprintf(out, sizeof out, form, number);
    return std::string(out);
  };
  if (IsJson(session.arguments.format)) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Figures& one : all) {
      list.push_back({{"path", one.path},
                      {"messages_per_second", std::round(one.rate)},
                      {"p50_us", std::round(one.p50_us)},
                      {"p99_us", std::round(one.p99_us)},
                      {"first_ms", one.first_ms}});
      if (session.arguments.format == Format::kJsonLines)
        session.console.Print(Line(list.back()) + "\n");
    }
    if (session.arguments.format == Format::kJson) session.console.Print(Pretty(list));
    return;
  }
  Table table({"PATH", "MESSAGES/S", "P50_US", "P99_US", "FIRST_MS"});
  for (const Figures& one : all)
    table.Add({one.path, text(one.rate, "%.0f"), text(one.p50_us, "%.0f"), text(one.p99_us, "%.0f"),
               text(one.first_ms, "%.1f")});
  session.console.Print(table.Text());
}

}  // namespace

Result<int> BenchLink(Session& session) {
  const Arguments& arguments = session.arguments;
  if (!arguments.bench.broker.empty()) {
    DW_RETURN_IF_ERROR(EndpointUrl::Parse(arguments.bench.broker).status());
  }
  std::vector<Figures> all;
  DW_ASSIGN(all.emplace_back(), Direct(ClientOptionsOf(session), arguments));
  if (!arguments.bench.broker.empty()) {
    session.console.Progress("broker ...");
    DW_ASSIGN(all.emplace_back(), Broker(ClientOptionsOf(session), arguments));
    session.console.Progress("");
  }
  Print(session, all);
  return 0;
}

}  // namespace datawire::cli
