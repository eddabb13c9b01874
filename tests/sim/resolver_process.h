#pragma once

#include <memory>

#include "core.h"
#include "directory_node.h"

namespace datawire::sim {

using resolver::AnswerPtr;

/// A process that looks up: the real resolver core, stepped, over simulated streams; its
/// application resolves and subscribes, and each answer goes by the oracle. Bound to its Scheduler.
class ResolverProcess final : public Process {
 public:
  ResolverProcess(Network& network, Oracle& oracle, std::vector<DirectoryNode*> servers,
                  std::string name);
  ~ResolverProcess() override;

  void Start();
  void Kill();
  /// Looks addresses up from now on.
  void Play(Time until, Time every);
  void Resolve(const Address& address, Revision min = {});

  /// Each subscribed address is known as the directory has it now; else why not.
  std::string Settled();
  ResolverStats stats() { return core_->Stats(); }
  /// What its subscription was told last; null: nothing yet.
  AnswerPtr told(const Address& address) const;

  /// Of messages on their way to it: how old an answer may be beyond what it shows.
  Time age_slack{0};
  uint64_t answers = 0, unavailable = 0, stale = 0;

 private:
  class Streams;
  Time Slack() const;
  void Step();
  void Soon();
  void PlayOnce(Time until, Time every);

  Network& network_;
  Scheduler& scheduler_;
  Oracle& oracle_;
  const std::vector<DirectoryNode*> servers_;
  std::shared_ptr<resolver::Core> core_;
  std::map<std::string, AnswerPtr> told_;
  std::vector<std::shared_ptr<resolver::Listener>> listeners_;
  bool step_soon_ = false;
  Time armed_{-1};
};

}  // namespace datawire::sim
