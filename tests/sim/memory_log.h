#pragma once

#include <deque>
#include <map>

#include "engine/log.h"
#include "scheduler.h"
#include "view/view.h"

namespace datawire::sim {

using directory::Batch;
using directory::Log;
using directory::Op;
using directory::Outcome;
using directory::View;

/// The embedded engine without its thread and its disc: the same groups and guards
/// (engine/group.h), written to the view when simulated time says so. A commit and its
/// acknowledgement are apart, so that a crash falls between them. Bound to its Scheduler.
class MemoryLog final : public Log {
 public:
  /// Every commit, in order, before anybody is told of it; and when each end of a session in it was
  /// decided, by its key.
  using Decided = std::map<std::string, Time>;
  using Observer = std::function<void(const Batch&, const Decided&)>;

  MemoryLog(Scheduler& scheduler, Process& process, View& view, Observer observer)
      : scheduler_(scheduler),
        process_(process),
        view_(view),
        observer_(std::move(observer)),
        last_ok_(process.clock.At(scheduler.now())) {}

  void Propose(Op op, BootTime deadline, Done done) override;
  void ReadBarrier(BootTime deadline, std::function<void(Result<Revision>)> done) override;
  Freshness Fresh() const override;
  std::string name() const override { return "memory"; }
  void Stop() override { stopped_ = true; }

  /// The disc does not answer for so long.
  void Stall(Time span) { stalled_until_ = std::max(stalled_until_, scheduler_.now() + span); }
  /// Every write fails for so long.
  void FailWrites(Time span) { failing_until_ = std::max(failing_until_, scheduler_.now() + span); }

  /// Of one commit.
  Time commit_most = 2ms;

 private:
  struct Item {
    Op op;
    BootTime deadline;
    Done done;
    Time proposed;
  };
  void Schedule();
  void Commit();
  bool Failing() const { return scheduler_.now() < failing_until_; }
  bool Write(const Batch& batch, const Decided& decided);

  Scheduler& scheduler_;
  Process& process_;
  View& view_;
  const Observer observer_;
  std::deque<Item> queue_;
  bool scheduled_ = false, stopped_ = false;
  BootTime last_ok_;
  BootTime waiting_since_{};
  Time stalled_until_{0}, failing_until_{0};
};

/// A replica's: it writes nothing; what it knows is as fresh as the last batch it was fed.
class FollowerLog final : public Log {
 public:
  explicit FollowerLog(View& view) : view_(view) {}
  void Propose(Op, BootTime, Done done) override;
  void ReadBarrier(BootTime, std::function<void(Result<Revision>)> done) override {
    done(Status(Code::kUnavailable, "a replica without a leader's barrier"));
  }
  Freshness Fresh() const override { return {fresh_as_of, false, "a replica"}; }
  std::string name() const override { return "follower"; }
  void Stop() override {}

  BootTime fresh_as_of{};

 private:
  View& view_;
};

/// Stages and publishes one batch as the embedded engine does.
Status Apply(View& view, const Batch& batch);

}  // namespace datawire::sim
