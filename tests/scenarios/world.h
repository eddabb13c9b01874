#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "clock.h"
#include "core.h"

namespace datawire::scenarios {

using resolver::pb::SubscribeRequest;
using resolver::pb::SubscribeResponse;
using std::chrono::milliseconds;

/// The directory, which does what a scenario tells it, one resolver core and its clock. Nothing
/// happens but by Advance and Settle. Bound to one thread.
class World {
 public:
  enum class Mode { kUp, kDown, kMute, kHang };
  enum class Unary { kOk, kBehind, kFail, kSilent };

  World(const ResolverPolicy& policy, std::vector<std::string> servers);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  sim::Time now() const { return now_; }
  void Advance(sim::Time to);  ///< all that is due until then happens
  void Sleep(sim::Time span);  ///< time goes on and nothing happens: a suspended machine
  void Settle();               ///< all that is due now happens
  void StepWall(int64_t ms) { clock_.wall_step_ms += ms; }

  // The servers. `words`: URLs, `~` before one that is suspect, `matched=//a`; none: NOT_FOUND.
  void SetMode(const std::string& server, Mode mode);  ///< empty: all
  void Set(const std::string& address, std::vector<std::string> words, bool push);
  void Push(const std::string& address, Revision at, const std::vector<std::string>& words);
  void Confirm(const std::string& address, Revision at);
  void Refuse(const std::string& address, const Status& why);
  void SendMark(Revision at, milliseconds age);
  void Send(const SubscribeResponse& response);
  void EndStream(const Status& why);
  void Hold(bool held) { writes_held_ = held; }  ///< the stream takes no more requests

  std::string cluster = "c1";
  Revision revision{1, 10};
  bool marks = true, answers = true, confirms = true;
  Unary unary = Unary::kOk;
  Status refusal;  ///< of new streams; OK: they are taken

  // What they saw.
  std::map<std::string, std::vector<SubscribeRequest::Held>> adds;
  std::map<std::string, uint64_t> drops;
  uint64_t opens = 0, unary_calls = 0;
  uint64_t asked = 0;  ///< addresses added and unary calls together

  resolver::Core& core() { return *core_; }
  /// Runs `call` with the machine's clock.
  template <typename Call>
  auto With(Call call) {
    const sim::ClockScope scope(clock_, now_);
    return call();
  }

 private:
  class Wire;
  bool live() const { return stream_ != 0 && taken_; }
  resolver::pb::Answer Make(const std::string& address, Revision at,
                            const std::vector<std::string>* words) const;
  void Deliver();
  void MarkNow(bool first);

  sim::MachineClock clock_{1.0, BootTime(std::chrono::hours(1000))};
  sim::Time now_{0}, next_mark_{0};
  std::map<std::string, Mode> modes_;
  std::map<std::string, std::vector<std::string>> rows_;
  std::set<std::string> subscribed_;
  uint64_t stream_ = 0;
  bool taken_ = false, connected_ = false, reading_ = false, busy_ = false, writes_held_ = false;
  std::deque<SubscribeResponse> queue_;
  std::shared_ptr<resolver::TransportSink> sink_;
  std::shared_ptr<resolver::Core> core_;
};

}  // namespace datawire::scenarios
