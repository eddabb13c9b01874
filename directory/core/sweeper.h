#pragma once

#include <atomic>
#include <deque>
#include <memory>

#include "core/ground.h"

namespace datawire::directory {

/// What ages: tombstones and history after 10 min, kept last endpoints after 5 min of the node's
/// healthy time; a restart starts both anew. In a cluster the reaper does it for all. The audit log
/// by its size and the times in it. Tick is bound to the ticking thread.
class Sweeper : public std::enable_shared_from_this<Sweeper> {
 public:
  explicit Sweeper(std::shared_ptr<Ground> ground) : ground_(std::move(ground)) {}

  void Tick(BootTime now, BootTime healthy_clock);

 private:
  struct Moment {
    BootTime at, healthy;
    uint64_t revision;
  };
  void EraseTombstones(uint64_t up_to);
  void EndLastEndpoints(uint64_t up_to);
  void Propose(Op op);

  std::shared_ptr<Ground> ground_;
  std::deque<Moment>
      moments_;  // at most one a second, of a new revision, for 10 min of either time
  BootTime looked_at_{}, audit_looked_at_{};
  std::vector<Guard> role_;                       // who sweeps for all: in each of its ops
  uint64_t tombstones_ = 0, last_endpoints_ = 0;  // revision numbers up to which each is due
  std::atomic<size_t> in_flight_{0};
};

}  // namespace datawire::directory
