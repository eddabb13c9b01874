#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "datawire/clock.h"
#include "datawire/limits.h"
#include "datawire/wire.h"
#include "fill_plan.h"
#include "render.h"
#include "session_stream.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;

constexpr size_t kWorkers = 32;  // sessions worked on at a time: enough for whole group commits
constexpr size_t kWindow = 2;    // calls of a session in flight
constexpr size_t kBeaters = 4;   // threads that heartbeat
constexpr size_t kConnections = 8;
constexpr milliseconds kLook{200};
constexpr int kBeatsPerTtl = 3;

/// Fills the directory: workers that take session after session, threads that heartbeat those that
/// are held, and the verb's own thread, which shows progress and cuts what hangs.
class Filling {
 public:
  Filling(Session& session, FillPlan plan)
      : arguments_(session.arguments),
        console_(session.console),
        plan_(std::move(plan)),
        connections_(session.servers, arguments_.bench.connections, session.tls),
        opened_(plan_.sessions),
        beaters_(kBeaters) {}

  Result<int> Run() {
    DW_RETURN_IF_ERROR(connections_.Connect(arguments_.timeout));
    const BootTime begun = BootClock::now();
    console_.CatchSignals();
    std::vector<std::thread> beating;
    if (arguments_.bench.hold)
      for (Beater& beater : beaters_) beating.emplace_back([this, &beater] { Beat(beater); });
    Work(true, begun);
    const double seconds = std::chrono::duration<double>(BootClock::now() - begun).count();
    Print(seconds);
    if (arguments_.bench.hold)
      while (!Over()) Look();
    {
      const std::lock_guard lock(mutex_);
      beating_over_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : beating) thread.join();
    const Status failure = Failure();
    if (!arguments_.bench.keep) End();
    console_.Progress("");
    if (!failure.ok()) return failure;
    return console_.signal() != 0 ? kExitInterrupted : 0;
  }

 private:
  struct Opened {
    std::string id, secret;
    uint64_t attach_number = 0;
    std::shared_ptr<SessionStream> stream;  // while it is held
  };
  struct Held {
    BootTime due;
    SessionStream* stream = nullptr;
    bool beaten = false;  // the reply is read in the next turn: it takes its time
  };
  struct Beater {
    std::deque<Held> held;  // soonest first; guarded by mutex_
  };

  // ---- threads

  // All sessions, by kWorkers threads: filled, or ended.
  void Work(bool fill, BootTime begun) {
    next_ = 0;
    working_ = std::min<size_t>(kWorkers, plan_.sessions);
    std::vector<std::thread> workers;
    for (size_t i = 0, count = working_; i < count; ++i)
      workers.emplace_back([this, fill] {
        for (uint64_t number; (!fill || !Over()) && (number = next_++) < plan_.sessions;)
          fill ? FillOne(number) : EndOne(number);
        --working_;
      });
    while (working_ > 0) {
      if (fill) {
        const auto took = std::chrono::duration<double>(BootClock::now() - begun);
        console_.Progress(FillProgress(endpoints_, plan_.endpoints, took.count()));
        Look();
      } else {
        console_.Progress("ending sessions: " + std::to_string(ended_) + " of " +
                          std::to_string(sessions_) + " ...");
        std::unique_lock lock(mutex_);  // signals have been heard
        wake_.wait_for(lock, kLook, [this] { return working_ == 0; });
        lock.unlock();
        CutSilent();
      }
    }
    for (std::thread& worker : workers) worker.join();
  }

  void Look() {
    console_.Wait(kLook);
    if (console_.signal() != 0) wake_.notify_all();
    CutSilent();
  }

  bool Over() {
    if (console_.signal() != 0) return true;
    const std::lock_guard lock(mutex_);
    return !failure_.ok();
  }

  Status Failure() {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

  void Fail(const Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (failure_.ok()) failure_ = status;
    }
    wake_.notify_all();
  }

  // ---- streams

  std::shared_ptr<SessionStream> Open(uint64_t number) {
    auto stream = std::make_shared<SessionStream>(connections_, number);
    const std::lock_guard lock(mutex_);
    std::erase_if(streams_, [](const auto& each) { return each.expired(); });
    streams_.push_back(stream);
    return stream;
  }

  // Heartbeats and calls are answered at once, whatever the TTL.
  void CutSilent() {
    const BootTime since = BootClock::now() - arguments_.timeout;
    std::vector<std::shared_ptr<SessionStream>> streams;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& each : streams_)
        if (auto stream = each.lock()) streams.push_back(std::move(stream));
    }
    for (const auto& stream : streams) stream->CancelIfSilent(since);
  }

  Result<pb::TetherResponse::Welcome> Hello(SessionStream& stream, const Opened* resumed) {
    pb::TetherRequest request;
    auto* hello = request.mutable_hello();
    if (resumed != nullptr) {
      hello->set_session_id(resumed->id);
      hello->set_secret(resumed->secret);
      hello->set_attach_number(resumed->attach_number + 1);
    } else {
      hello->set_ttl_ms(arguments_.ttl.count());
      hello->set_program("dw bench");
    }
    DW_RETURN_IF_ERROR(stream.Write(request));
    DW_ASSIGN(pb::TetherResponse response, stream.Read());
    if (!response.has_welcome()) return Status(Code::kCorrupt, "the directory did not welcome");
    return std::move(*response.mutable_welcome());
  }

  // ---- one session

  void FillOne(uint64_t number) {
    std::shared_ptr<SessionStream> stream;
    Status status = Patiently([&]() -> Status {
      stream = Open(number);
      DW_ASSIGN(const auto welcome, Hello(*stream, nullptr));
      opened_[number] = {welcome.session_id(), welcome.secret(), welcome.attach_number(), nullptr};
      ++sessions_;
      return {};
    });
    if (status.ok()) status = RegisterAll(*stream, number);
    if (!status.ok() && status.code() != Code::kCancelled) Fail(status);
    if (!arguments_.bench.hold || opened_[number].id.empty()) return;
    const std::lock_guard lock(mutex_);
    beaters_[number % kBeaters].held.push_back(
        {BootClock::now() + BeatEvery(), stream.get(), false});
    opened_[number].stream = std::move(stream);
    wake_.notify_all();
  }

  Status RegisterAll(SessionStream& stream, uint64_t number) {
    const uint64_t calls = plan_.Calls(number);
    uint64_t sent = 0, done = 0;
    std::optional<BootTime> refused_since;
    while (done < calls) {
      if (Over()) return {Code::kCancelled, "interrupted"};
      for (; sent < calls && sent - done < kWindow; ++sent)
        DW_RETURN_IF_ERROR(stream.Write(plan_.Call(number, sent)));
      DW_ASSIGN(const pb::TetherResponse response, stream.Read());
      if (!response.has_done()) continue;
      const uint64_t call = response.done().op_id() - 1;
      if (call >= calls) return {Code::kCorrupt, "the directory answered a call never made"};
      if (!response.done().has_refusal()) {
        endpoints_ += plan_.Call(number, call).register_().registrations_size();
        ++done;
        refused_since.reset();
        continue;
      }
      const Status why = FromWire(response.done().refusal());
      if (!refused_since) refused_since = BootClock::now();
      DW_RETURN_IF_ERROR(WaitAfter(why, *refused_since));
      DW_RETURN_IF_ERROR(stream.Write(plan_.Call(number, call)));
    }
    return {};
  }

  // Again as long as it is refused for want of room and told when to come back.
  template <typename Attempt>
  Status Patiently(const Attempt& attempt) {
    const BootTime begun = BootClock::now();
    for (;;) {
      const Status status = attempt();
      if (status.ok()) return status;
      DW_RETURN_IF_ERROR(WaitAfter(status, begun));
    }
  }

  // OK when it is time to try again what is refused since then; else why not.
  Status WaitAfter(const Status& why, BootTime since) {
    ++refused_;
    const auto pause = why.retry_after();
    const BootTime now = BootClock::now();
    if (!pause || now + *pause > since + std::max(arguments_.wait, arguments_.timeout)) return why;
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, *pause, [this] { return !failure_.ok() || console_.signal() != 0; });
    return failure_.ok() && console_.signal() == 0 ? Status() : Status(Code::kCancelled, "");
  }

  // ---- heartbeats

  milliseconds BeatEvery() const { return arguments_.ttl / kBeatsPerTtl; }

  void Beat(Beater& beater) {
    pb::TetherRequest request;
    for (uint64_t number = 1;; ++number) {
      Held next;
      {
        std::unique_lock lock(mutex_);
        while (!beating_over_ &&
               (beater.held.empty() || beater.held.front().due > BootClock::now()))
          beater.held.empty()
              ? wake_.wait(lock)
              : (void)wake_.wait_for(lock, beater.held.front().due - BootClock::now());
        if (beating_over_) return;
        next = beater.held.front();
        beater.held.pop_front();
        beater.held.push_back({next.due + BeatEvery(), next.stream, true});
      }
      Status status;
      for (bool heard = !next.beaten; status.ok() && !heard;) {
        const auto response = next.stream->Read();
        status = response.status();
        heard = response.ok() && response->has_heartbeat();
      }
      request.mutable_heartbeat()->set_number(number);
      if (status.ok()) status = next.stream->Write(request);
      if (!status.ok()) return Fail(status);
    }
  }

  // ---- the end

  void End() {
    if (sessions_ == 0) return;
    Work(false, {});
    if (ended_ < sessions_)
      console_.Tell(std::to_string(sessions_ - ended_) + " of " + std::to_string(sessions_) +
                    " sessions could not be ended: " + Unended().message() +
                    "; they expire in at most " + std::to_string(arguments_.ttl.count()) + " ms");
  }

  Status Unended() {
    const std::lock_guard lock(mutex_);
    return unended_;
  }

  void EndOne(uint64_t number) {
    Opened& opened = opened_[number];
    if (opened.id.empty() || !Unended().ok()) return;
    const Status status = Patiently([&]() -> Status {
      if (!opened.stream) {
        opened.stream = Open(number);
        DW_RETURN_IF_ERROR(Hello(*opened.stream, &opened).status());
      }
      pb::TetherRequest bye;
      bye.mutable_bye()->set_reason("the benchmark is over");
      DW_RETURN_IF_ERROR(opened.stream->Write(bye));
      for (;;) {
        const auto response = opened.stream->Read();
        if (!response.ok())
          return response.status().code() == Code::kSessionExpired ? Status() : response.status();
      }
    });
    opened.stream.reset();
    if (status.ok()) {
      ++ended_;
      return;
    }
    const std::lock_guard lock(mutex_);
    if (unended_.ok()) unended_ = status;
  }

  void Print(double seconds) {
    console_.Progress("");
    const uint64_t rate = seconds > 0 ? static_cast<uint64_t>(endpoints_ / seconds) : 0;
    const Format format = arguments_.format;
    if (IsJson(format)) {
      const nlohmann::ordered_json value = {
          {"endpoints", endpoints_.load()},
          {"sessions", sessions_.load()},
          {"addresses", std::min<uint64_t>(plan_.addresses, endpoints_)},
          {"connections", arguments_.bench.connections},
          {"seconds", seconds},
          {"endpoints_per_second", rate},
          {"refused", refused_.load()}};
      console_.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
      return;
    }
    char took[32];
    std::snprintf(took, sizeof took, "%.1f", seconds);
    Table table({"ENDPOINTS", "SESSIONS", "SECONDS", "RATE", "REFUSED"});
    table.Add({std::to_string(endpoints_), std::to_string(sessions_), took,
               std::to_string(rate) + "/s", std::to_string(refused_)});
    console_.Print(table.Text());
  }

  const Arguments& arguments_;
  Console& console_;
  const FillPlan plan_;
  Connections connections_;
  std::vector<Opened> opened_;  // each by the worker that has its number
  std::atomic<uint64_t> next_{0}, working_{0};
  std::atomic<uint64_t> endpoints_{0}, sessions_{0}, refused_{0}, ended_{0};

  std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_.
  Status failure_, unended_;
  std::vector<std::weak_ptr<SessionStream>> streams_;
  std::vector<Beater> beaters_;
  bool beating_over_ = false;
};

Status CheckConnections(Arguments::Bench& bench) {
  const uint64_t wanted =
      (bench.sessions + limits::kConnectionStreams - 1) / limits::kConnectionStreams;
  if (bench.connections == 0)
    bench.connections = std::max<uint64_t>(kConnections, bench.hold ? wanted : 0);
  if (bench.hold && bench.connections < wanted)
    return {Code::kInvalid, "--hold keeps " + std::to_string(bench.sessions) +
                                " streams open, a connection takes " +
                                std::to_string(limits::kConnectionStreams) +
                                ": --connections must be " + std::to_string(wanted) + " at least"};
  return {};
}

}  // namespace

Result<int> Bench(Session& session) {
  Arguments arguments = session.arguments;
  if (arguments.words[0] == "link") return BenchLink(session);
  if (arguments.words[0] != "fill")
    return Status(Code::kInvalid,
                  "bench " + Shown(arguments.words[0]) + " is neither `fill` nor `link`");
  Arguments::Bench& bench = arguments.bench;
  DW_ASSIGN(Address prefix, Address::Parse(bench.prefix));
  if (bench.addresses == 0) bench.addresses = bench.endpoints;
  FillPlan plan{std::move(prefix), bench.endpoints, bench.sessions, bench.addresses,
                arguments.weight};
  DW_RETURN_IF_ERROR(plan.Check());
  DW_RETURN_IF_ERROR(CheckConnections(bench));
  if (bench.keep) arguments.ttl = *bench.keep;
  if (!bench.keep && !bench.hold) arguments.ttl = limits::kSessionTtlMost;
  // Fails at once, or after --wait, when no directory is there.
  DW_RETURN_IF_ERROR(session.api.GetStatus().status());
  Session with{arguments, session.console, session.servers, session.tls, session.api};
  return Filling(with, std::move(plan)).Run();
}

}  // namespace datawire::cli
