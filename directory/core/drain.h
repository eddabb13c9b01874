#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "core/ground.h"
#include "core/ops.h"
#include "core/static_records.h"
#include "core/subscriber.h"
#include "core/tethers.h"
#include "core/watch_hub.h"

namespace datawire::directory {

/// What is registered at an address and its state when it is drained. Reads the records as they are
/// now and guards on them; kNotFound where nothing is registered. Thread-safe.
Result<Plan> PlanDrain(const Ground& ground, const Actor& actor, const Address& address, bool undo);

/// Drain and its undo, and who has acknowledged it. Thread-safe.
class DrainVerb : public std::enable_shared_from_this<DrainVerb> {
 public:
  using Done = std::function<void(Result<pb::DrainResponse>)>;
  DrainVerb(std::shared_ptr<Ground> ground, std::shared_ptr<StaticRecords> records,
            std::shared_ptr<Tethers> tethers, std::shared_ptr<WatchHub> hub)
      : ground_(std::move(ground)),
        records_(std::move(records)),
        tethers_(std::move(tethers)),
        hub_(std::move(hub)) {}

  void Drain(const pb::DrainRequest& request, const Peer& peer, Done done);
  /// Answers those whose subscribers have acknowledged, or whose time is over.
  void Tick(BootTime now);
  /// Waiting calls end with kUnavailable.
  void Stop();

 private:
  struct Wait {
    Revision at;
    std::vector<std::weak_ptr<SubscriberState>> left;
    BootTime until;
    pb::DrainResponse response;
    Done done;
  };
  Result<std::vector<Published::Change>> TargetsOf(const pb::DrainRequest& request) const;
  void Await(Wait wait);
  static void Prune(Wait& wait);

  const std::shared_ptr<Ground> ground_;
  const std::shared_ptr<StaticRecords> records_;
  const std::shared_ptr<Tethers> tethers_;
  const std::shared_ptr<WatchHub> hub_;
  std::mutex mu_;
  std::list<Wait> waits_;  // guarded by mu_, as is the next
  bool stopped_ = false;
};

}  // namespace datawire::directory
