#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/acknowledgements.h"
#include "core/everywhere.h"
#include "core/ground.h"
#include "core/ops.h"
#include "core/static_records.h"
#include "core/tethers.h"
#include "core/watch_hub.h"

namespace datawire::directory {

/// A drain of an address, or its undo, on its way: a step at a time, so that each is one
/// transaction of any engine. What changed after it began is another's word: later registrations
/// are up. Value.
struct Draining {
  Actor actor;
  Address address;
  bool undo = false;
  uint64_t begun = 0;  ///< revision number; that of the first attempt, where records show one
  Revision last;       ///< at which it is done, if there is nothing left to change
  std::string from;    ///< key where the next step begins
  std::string next;    ///< after a step was planned: where the one behind it begins
  bool more = false;   ///< and that there is one
};

/// kNotFound where nothing is registered.
Status BeginDrain(const Ground& ground, Draining& draining);
/// The next step. Reads the records as they are now and guards on them.
Result<Plan> PlanDrain(const Ground& ground, Draining& draining);

/// Drain and its undo, and who has acknowledged it. Thread-safe.
class DrainVerb : public std::enable_shared_from_this<DrainVerb> {
 public:
  using Done = std::function<void(Result<pb::DrainResponse>)>;
  DrainVerb(std::shared_ptr<Ground> ground, std::shared_ptr<StaticRecords> records,
            std::shared_ptr<Tethers> tethers, const std::shared_ptr<WatchHub>& hub)
      : ground_(std::move(ground)),
        records_(std::move(records)),
        tethers_(std::move(tethers)),
        here_(std::make_shared<Acknowledgements>(hub)),
        everywhere_(std::make_shared<Everywhere>(ground_, here_)) {}

  void Drain(const pb::DrainRequest& request, const Peer& peer, Done done);
  /// What another node asks.
  void Acknowledged(const pb::AcknowledgedRequest& request,
                    std::function<void(Result<pb::AcknowledgedResponse>)> done);
  /// Answers those whose subscribers have acknowledged, or whose time is over.
  void Tick(BootTime now) {
    here_->Tick(now);
    everywhere_->Tick(now);
  }
  /// Waiting calls end with kUnavailable.
  void Stop() {
    here_->Stop();
    everywhere_->Stop();
  }

 private:
  void Begin(const pb::DrainRequest& request, const Peer& peer, Done done);
  Result<std::vector<Published::Change>> TargetsOf(const pb::DrainRequest& request) const;

  const std::shared_ptr<Ground> ground_;
  const std::shared_ptr<StaticRecords> records_;
  const std::shared_ptr<Tethers> tethers_;
  const std::shared_ptr<Acknowledgements> here_;
  const std::shared_ptr<Everywhere> everywhere_;
};

}  // namespace datawire::directory
