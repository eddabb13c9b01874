#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "datawire/client.h"
#include "datawire/clock.h"
#include "datawire/stage.h"
#include "messages.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;

// Messages on their way at a time: the rate is long at its best, and a slow peer is waited for.
constexpr uint64_t kWindow = 256;
constexpr milliseconds kLook{50};  // between looks for a signal
// --timeout is kept here, not by the sender: a peer may be slow as long as something is settled.
constexpr milliseconds kForever = std::chrono::hours(3 * 24 * 365);

// The lines of bytes that come in pieces. Of a line that is too long the front is kept.
class Lines {
 public:
  explicit Lines(size_t most) : most_(most) {}

  void Feed(std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t end = std::min(bytes.find('\n'), bytes.size());
      open_.append(bytes.substr(0, std::min(end, most_ + 1 - open_.size())));
      begun_ = true;
      if (end == bytes.size()) return;
      Close();
      bytes.remove_prefix(end + 1);
    }
  }
  // What has no end of line is a line, too.
  void End() {
    if (begun_) Close();
  }
  bool empty() const { return whole_.empty(); }
  std::string Take() {
    std::string line = std::move(whole_.front());
    whole_.pop_front();
    return line;
  }

 private:
  void Close() {
    whole_.push_back(std::exchange(open_, ""));
    begun_ = false;
  }

  const size_t most_;
  std::string open_;
  bool begun_ = false;
  std::deque<std::string> whole_;
};

// Where messages come from: the arguments, else stdin.
class Input {
 public:
  Input(Console& console, const std::vector<std::string>& words)
      : console_(console), words_(words), from_stdin_(words.size() == 1) {
    if (from_stdin_ && ::isatty(STDIN_FILENO) == 1)
      console.Tell("each line is a message; the end of input (Ctrl-D) ends");
  }

  bool ended() const { return ended_; }
  const Status& status() const { return status_; }

  // Waits at most `wait` (negative: no end) for the next one.
  std::optional<std::string> Next(milliseconds wait) {
    if (!from_stdin_) {
      ended_ = next_word_ + 1 >= words_.size();
      return words_[next_word_++];
    }
    if (lines_.empty()) Read(wait);
    if (!lines_.empty()) return lines_.Take();
    ended_ = over_;
    return std::nullopt;
  }

 private:
  void Read(milliseconds wait) {
    if (over_ || !console_.WaitForInput(wait)) return;
    char bytes[65536];
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n > 0) return lines_.Feed({bytes, static_cast<size_t>(n)});
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n < 0)
      status_ = {Code::kInvalid, std::string("stdin cannot be read: ") + std::strerror(errno)};
    over_ = true;
    lines_.End();
  }

  Console& console_;
  const std::vector<std::string>& words_;
  const bool from_stdin_;
  size_t next_word_ = 1;
  Lines lines_{limits::kMessageBytes};
  bool over_ = false, ended_ = false;
  Status status_;
};

// Brings outcomes from the client's thread to the verb's.
class Outcomes {
 public:
  struct Item {
    uint64_t number;
    DeliveryOutcome outcome;
  };

  void Put(uint64_t number, const DeliveryOutcome& outcome) {
    std::lock_guard lock(mutex_);
    items_.push_back({number, outcome});
    came_.notify_all();
  }
  std::deque<Item> Take(milliseconds wait) {
    std::unique_lock lock(mutex_);
    if (wait.count() > 0) came_.wait_for(lock, wait, [this] { return !items_.empty(); });
    return std::exchange(items_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<Item> items_;
};

class Sending {
 public:
  Sending(Session& session, Sender& sender)
      : arguments_(session.arguments),
        console_(session.console),
        sender_(sender),
        patience_(arguments_.timeout + arguments_.wait),
        input_(session.console, arguments_.words) {}

  Result<int> Run() {
    while (console_.signal() == 0 && !(input_.ended() && given_ == ended_)) {
      const bool on_their_way = given_ > ended_;
      if (on_their_way && BootClock::now() - last_progress_ > patience_) {
        why_closed_ = "nothing was settled for " + std::to_string(patience_.count()) + " ms";
        break;
      }
      if (input_.ended() || given_ - ended_ >= kWindow) {
        Settle(outcomes_->Take(kLook));
        continue;
      }
      if (auto message = input_.Next(on_their_way ? kLook : milliseconds(-1)))
        Give(std::move(*message));
      Settle(outcomes_->Take(milliseconds(0)));
    }
    sender_.Close(milliseconds(0));  // which ends what is on its way
    for (int looks = 0; given_ > ended_ && looks < 20; ++looks) Settle(outcomes_->Take(kLook));
    return Finish();
  }

 private:
  void Give(std::string text) {
    const uint64_t number = ++given_;
    if (given_ - ended_ == 1) last_progress_ = BootClock::now();
    if (const Status fit = CheckBody(text); !fit.ok())
      return outcomes_->Put(number, {.end = DeliveryEnd::kNotSent,
                                     .condition = std::string(MappingOf(fit.code()).amqp_condition),
                                     .description = fit.message()});
    proton::message message(std::move(text));
    if (arguments_.trace) {
      const std::string trace = NewTraceparent();
      SetTraceparent(message, trace);
      traces_[number] = {trace, BootClock::now()};
    }
    sender_.Send(message, {.done = [to = outcomes_, number](const DeliveryOutcome& o) {
                   to->Put(number, o);
                 }});
  }

  void Settle(std::deque<Outcomes::Item> items) {
    for (auto& [number, outcome] : items) {
      Reword(outcome.description);
      const auto trace = traces_.extract(number);
      if (IsJson(arguments_.format)) {
        Json json{{"message", number},
                  {"outcome", DeliveryEndName(outcome.end)},
                  {"peer", outcome.peer},
                  {"condition", outcome.condition},
                  {"description", outcome.description},
                  {"attempts", outcome.attempts}};
        if (trace) {
          json["traceparent"] = trace.mapped().parent;
          json["ms"] = MillisSince(trace.mapped().since);
        }
        console_.Print(Line(json) + "\n");
      } else if (trace) {
        TellTrace(number, outcome, trace.mapped());
      }
      last_progress_ = BootClock::now();
      if (++ended_ % 100 == 0) console_.Progress(std::to_string(ended_) + " messages ...");
      if (outcome.end == DeliveryEnd::kAccepted)
        ++accepted_;
      else
        NoteFailure(number, outcome);
    }
  }

  struct Trace {
    std::string parent;
    BootTime since;
  };
  static double MillisSince(BootTime since) {
    return std::round(std::chrono::duration<double, std::milli>(BootClock::now() - since).count() *
                      1000) /
           1000;
  }
  void TellTrace(uint64_t number, const DeliveryOutcome& outcome, const Trace& trace) {
    char text[64];
    std::snprintf(text, sizeof text, " after %.3f ms", MillisSince(trace.since));
    console_.Tell("message " + std::to_string(number) + ": " + trace.parent + " " +
                  std::string(DeliveryEndName(outcome.end)) + text +
                  (outcome.peer.empty() ? "" : " by " + outcome.peer) + ", " +
                  std::to_string(outcome.attempts) + (outcome.attempts == 1 ? " try" : " tries"));
  }

  // The sender was closed by us, for a reason of ours.
  void Reword(std::string& description) const {
    constexpr std::string_view kClosed = "the sender was closed";
    if (description.starts_with(kClosed) && !why_closed_.empty())
      description.replace(0, kClosed.size(), why_closed_);
  }

  void NoteFailure(uint64_t number, const DeliveryOutcome& outcome) {
    const bool ours = outcome.end == DeliveryEnd::kNotSent && outcome.attempts == 0 &&
                      outcome.condition == MappingOf(Code::kInvalid).amqp_condition;
    if (ours) ++invalid_;
    if (!failure_.empty()) return;
    failure_ =
        "message " + std::to_string(number) + ": " + std::string(DeliveryEndName(outcome.end));
    if (!outcome.condition.empty()) failure_ += ", " + outcome.condition;
    if (!outcome.description.empty()) failure_ += ": " + outcome.description;
    if (!outcome.peer.empty()) failure_ += " (" + outcome.peer + ")";
  }

  Result<int> Finish() {
    console_.Tell(std::to_string(accepted_) + " of " + std::to_string(given_) +
                  (arguments_.presettled ? " sent, which nobody confirms" : " accepted") +
                  (failure_.empty() ? "" : "; " + failure_) +
                  (input_.status().ok() ? "" : "; " + input_.status().message()));
    if (console_.signal() != 0) return kExitInterrupted;
    if (accepted_ == given_) return MappingOf(input_.status().code()).exit_code;
    return accepted_ + invalid_ == given_ ? MappingOf(Code::kInvalid).exit_code : kExitNotAccepted;
  }

  const Arguments& arguments_;
  Console& console_;
  Sender& sender_;
  const milliseconds patience_;
  Input input_;
  // Shared with callbacks that may come late.
  const std::shared_ptr<Outcomes> outcomes_ = std::make_shared<Outcomes>();
  uint64_t given_ = 0, ended_ = 0, accepted_ = 0, invalid_ = 0;
  std::map<uint64_t, Trace> traces_;  // with --trace; of what is on its way
  BootTime last_progress_;
  std::string failure_, why_closed_;
};

}  // namespace

Result<int> Send(Session& session) {
  DW_ASSIGN(const int none, FindPeer(session));
  if (none != 0) return none;
  const Arguments& arguments = session.arguments;
  Client client(ClientOptionsOf(session));
  DW_ASSIGN(const auto sender,
            client.OpenSender(arguments.words.front(),
                              {.settlement = arguments.presettled ? Settlement::kAtMostOnce
                                                                  : Settlement::kAtLeastOnce,
                               .deadline = kForever}));
  session.console.CatchSignals();
  return Sending(session, *sender).Run();
}

}  // namespace datawire::cli
