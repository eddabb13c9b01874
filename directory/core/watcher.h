#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "core/ground.h"
#include "core/watch_hub.h"
#include "datawire/mutex.h"

namespace datawire::directory {

/// One Watch stream: a snapshot, then history, then what is published, each revision once and in
/// order. Thread-safe; Next calls come one at a time.
class WatcherState {
 public:
  WatcherState(std::shared_ptr<Ground> ground, std::optional<Address> prefix, Stream& stream,
               Revision seen)
      : gate(stream), ground_(std::move(ground)), prefix_(std::move(prefix)), seen_(seen) {}

  void StartAfter(Revision after);
  void StartWithSnapshot() { phase_ = kBegin; }

  Result<std::optional<std::string>> Next();
  /// On the apply thread. `batch` is null when the revision has no events.
  void Publish(Revision at, const std::shared_ptr<const SharedBatch>& batch);
  void Tick(BootTime now);

  StreamGate gate;

 private:
  enum Phase { kResync, kBegin, kSnapshot, kEnd, kHistory, kLive };
  using Message = std::optional<std::string>;

  /// One step of the phase: fills ready_, or moves on.
  Status Advance();
  Status ReadSnapshot();
  Status ReadHistory();
  void NextLive();
  void Split(Revision at, const std::string& events);
  void Ready(const Changes& changes);
  Message TakeReady();

  std::shared_ptr<Ground> ground_;
  const std::optional<Address> prefix_;

  // Bound to Next.
  Phase phase_ = kHistory;
  Revision position_;              // all up to here was handed out
  std::deque<std::string> ready_;  // messages of one revision, or of one read of the history
  std::unique_ptr<View::Snapshot> snapshot_;
  BootTime snapshot_since_{};
  std::string snapshot_after_;
  bool first_ = true;

  Mutex mu_;
  Revision seen_ DW_GUARDED_BY(mu_);      // the latest published
  bool live_ DW_GUARDED_BY(mu_) = false;  // batches are queued
  std::deque<std::shared_ptr<const SharedBatch>> queue_ DW_GUARDED_BY(mu_);
  size_t queue_bytes_ DW_GUARDED_BY(mu_) = 0;
  bool overrun_ DW_GUARDED_BY(mu_) = false;
  bool progress_due_ DW_GUARDED_BY(mu_) = false;
  bool woken_ DW_GUARDED_BY(mu_) = false;
  BootTime spoke_at_ DW_GUARDED_BY(mu_){};
};

/// The events of a History, as WatchResponses of at most 64 KiB: KIND_CHANGES_PART and, last,
/// KIND_CHANGES. Only those within `prefix`, if there is one; none: no message.
Changes EncodeChanges(Revision at, const std::string& history,
                      const std::optional<Address>& prefix);

}  // namespace datawire::directory
