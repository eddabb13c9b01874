#pragma once

#include <functional>
#include <memory>

#include "core/ground.h"
#include "core/ops.h"

namespace datawire::directory {

/// A drained address: at which revision, how many registrations changed. Value.
struct Drained {
  Revision at;
  size_t changed = 0;
};

struct Draining;

/// Register and Withdraw of static records, policies, drains of addresses, and that a node has
/// stopped for good. A retry with the same
/// op id gets the first result, which is read back from the records. Thread-safe.
class StaticRecords : public std::enable_shared_from_this<StaticRecords> {
 public:
  explicit StaticRecords(std::shared_ptr<Ground> ground) : ground_(std::move(ground)) {}

  void Register(const pb::RegisterRequest& request, const Peer& peer,
                std::function<void(Result<pb::RegisterResponse>)> done);
  void Withdraw(const pb::WithdrawRequest& request, const Peer& peer,
                std::function<void(Result<pb::WithdrawResponse>)> done);
  void SetPolicy(const pb::SetPolicyRequest& request, const Peer& peer,
                 std::function<void(Result<pb::SetPolicyResponse>)> done);
  void ForgetNode(const std::string& node, const Peer& peer,
                  std::function<void(Result<pb::ForgetNodeResponse>)> done);
  /// The address of the request; checked but for its op id.
  void Drain(const pb::DrainRequest& request, const Peer& peer,
             std::function<void(Result<Drained>)> done);

 private:
  struct Done {
    Revision at;
    size_t removed = 0;
  };
  using Planner = std::function<Result<Plan>()>;
  /// The next step of it, and those after it.
  void DrainOn(const std::shared_ptr<Draining>& draining, BootTime deadline, size_t changed,
               std::function<void(Result<Drained>)> done);
  Result<Actor> ActorOf(const std::string& op_id, const Peer& peer);
  void Propose(Planner planner, BootTime deadline, int attempt,
               std::function<void(Result<Done>)> done);

  std::shared_ptr<Ground> ground_;
};

}  // namespace datawire::directory
