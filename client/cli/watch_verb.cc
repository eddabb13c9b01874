#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "datawire/clock.h"
#include "datawire/wire.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr milliseconds kLook{100};
constexpr milliseconds kAgainLeast{250}, kAgainMost{5000};

// Prints what a Watch brings and knows where to go on. Bound to the watching thread.
class Follower {
 public:
  explicit Follower(Session& session) : session_(session) {}

  Status Open() {
    const Arguments& arguments = session_.arguments;
    if (!arguments.words.empty()) {
      DW_ASSIGN(const Address prefix, Address::Parse(arguments.words[0]));
      request_.set_prefix(prefix.text());
    }
    if (arguments.after) ToWire(*arguments.after, request_.mutable_after());
    return {};
  }

  const pb::WatchRequest& request() const { return request_; }
  bool heard() const { return heard_; }
  void ForgetParts() {
    parts_.clear();
    heard_ = false;
  }

  // False when nobody reads on.
  bool Take(const pb::WatchResponse& message) {
    heard_ = true;
    switch (message.kind()) {
      case pb::WatchResponse::KIND_CHANGES_PART:
        parts_.emplace_back(message.events().begin(), message.events().end());
        return true;
      case pb::WatchResponse::KIND_CHANGES: {
        bool open = true;
        for (const auto& part : parts_)
          for (const auto& event : part) open = open && Print(event, message.revision());
        parts_.clear();
        for (const auto& event : message.events()) open = open && Print(event, message.revision());
        *request_.mutable_after() = message.revision();
        return open;
      }
      case pb::WatchResponse::KIND_SNAPSHOT: {
        bool open = true;
        for (const auto& event : message.events()) open = open && Print(event, message.revision());
        return open;
      }
      case pb::WatchResponse::KIND_SNAPSHOT_END:
        *request_.mutable_after() = message.revision();
        return Mark("snapshot_end", "SNAPSHOT END", message.revision());
      case pb::WatchResponse::KIND_SNAPSHOT_BEGIN:
        return Mark("snapshot_begin", "SNAPSHOT", message.revision());
      case pb::WatchResponse::KIND_RESYNC:
        // Until the snapshot that follows is whole there is no place to go on from.
        request_.clear_after();
        return Mark("resync", "RESYNC history does not reach back: a snapshot follows",
                    message.revision());
      case pb::WatchResponse::KIND_PROGRESS:
        if (request_.has_after()) *request_.mutable_after() = message.revision();
        return true;
      default:
        return true;  // of a newer server
    }
  }

 private:
  bool json() const { return IsJson(session_.arguments.format); }

  bool Mark(const char* event, const char* text, const pb::Revision& at) {
    const Revision revision = FromWire(at);
    if (json())
      return session_.console.Print(Line(Json{{"revision", ToJson(revision)}, {"event", event}}) +
                                    "\n");
    if (session_.arguments.format == Format::kName || session_.arguments.format == Format::kShort)
      return true;
    return session_.console.Print(revision.ToString() + " " + text + "\n");
  }

  bool Print(const pb::Event& event, const pb::Revision& at) {
    if (event.kind() == pb::Event::KIND_POLICY) return PrintPolicy(event, at);
    const Revision revision = FromWire(at);
    const bool gone = event.kind() == pb::Event::KIND_GONE;
    const auto endpoint = FromWire(event.endpoint());
    if (json())
      return session_.console.Print(
          Line(Json{{"revision", ToJson(revision)},
                    {"event", gone ? "gone" : "put"},
                    {"address", event.address()},
                    {"instance", event.instance()},
                    {"endpoint", endpoint.ok() ? ToJson(*endpoint) : Json(nullptr)},
                    {"reason", event.reason() == pb::REASON_NONE ? "" : ReasonName(event.reason())},
                    {"by", event.by()},
                    {"at_wall_ms", event.at_wall_ms()}}) +
          "\n");
    if (session_.arguments.format == Format::kName)
      return session_.console.Print(event.address() + "\n");
    if (session_.arguments.format == Format::kShort)
      return session_.console.Print(event.endpoint().url() + "\n");
    std::string text = revision.ToString() + (gone ? " - " : " + ") + event.address() + " " +
                       event.endpoint().url();
    if (!gone && endpoint.ok()) text += " " + std::string(EndpointStateName(endpoint->state));
    if (event.reason() != pb::REASON_NONE) text += " " + ReasonName(event.reason());
    if (session_.arguments.format == Format::kWide)
      text += " instance " + event.instance() + " by " + Printable(event.by());
    return session_.console.Print(text + "\n");
  }

  bool PrintPolicy(const pb::Event& event, const pb::Revision& at) {
    const Revision revision = FromWire(at);
    const std::string policy(PolicyName(static_cast<Policy>(event.policy())));
    const Format format = session_.arguments.format;
    if (json())
      return session_.console.Print(
          Line(Json{{"revision", ToJson(revision)},
                    {"event", "policy"},
                    {"address", event.address()},
                    {"policy", event.has_policy() ? Json(policy) : Json(nullptr)},
                    {"by", event.by()},
                    {"at_wall_ms", event.at_wall_ms()}}) +
          "\n");
    if (format == Format::kShort) return true;  // it has no endpoint
    if (format == Format::kName) return session_.console.Print(event.address() + "\n");
    std::string text = revision.ToString() + " = " + event.address() +
                       (event.has_policy() ? " policy " + policy : " policy unset");
    if (format == Format::kWide) text += " by " + Printable(event.by());
    return session_.console.Print(text + "\n");
  }

  Session& session_;
  pb::WatchRequest request_;
  std::vector<std::vector<pb::Event>> parts_;  // of one revision that is not whole yet
  bool heard_ = false;
};

}  // namespace

Result<int> Watch(Session& session) {
  Follower follower(session);
  DW_RETURN_IF_ERROR(follower.Open());
  Console& console = session.console;
  console.CatchSignals();
  std::atomic<bool> ended{false};
  std::thread canceller([&] {
    while (!ended && console.signal() == 0 && !console.ReaderGone()) console.Wait(kLook);
    session.api.Cancel();
  });
  const BootTime until = BootClock::now() + session.arguments.wait;
  Status last;
  milliseconds pause = kAgainLeast;
  bool ever = false;
  for (size_t failed = 0;;) {
    follower.ForgetParts();
    last = session.api.Watch(follower.request(),
                             [&](const pb::WatchResponse& m) { return follower.Take(m); });
    if (last.code() == Code::kCancelled || last.code() == Code::kInvalid ||
        last.code() == Code::kDenied)
      break;
    failed = follower.heard() ? 0 : failed + 1;
    if (follower.heard()) pause = kAgainLeast;
    ever = ever || follower.heard();
    // Each server has its turn before the first connection is given up.
    if (!ever && failed >= session.servers.size() && BootClock::now() >= until) break;
    if (follower.heard()) console.Tell(last.message() + "; connecting again");
    if (!ever && failed < session.servers.size()) continue;
    if (console.Wait(pause) != 0) continue;  // the next Watch is refused: cancelled
    pause = std::min(pause * 2, kAgainMost);
  }
  ended = true;
  canceller.join();
  if (console.signal() != 0) return kExitInterrupted;
  if (last.code() == Code::kCancelled) return 0;  // nobody reads on
  return last;
}

}  // namespace datawire::cli
