#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/acknowledgements.h"
#include "core/ground.h"
#include "core/nodes.h"
#include "datawire/mutex.h"

namespace datawire::directory {

/// Who, on this node or any other that lives, has not taken in a change yet. Thread-safe.
class Everywhere : public std::enable_shared_from_this<Everywhere> {
 public:
  using Left = Acknowledgements::Left;
  Everywhere(std::shared_ptr<Ground> ground, std::shared_ptr<Acknowledgements> here)
      : ground_(std::move(ground)), here_(std::move(here)) {}

  /// As Acknowledgements::Await. With other nodes, peers are shown with theirs, and a node that did
  /// not answer is shown and counted as one of `left`.
  void Await(std::vector<Published::Change> targets, Revision at, BootTime until,
             Acknowledgements::Done done);
  /// Asks again who failed, gives up who lives no more, ends what is due.
  void Tick(BootTime now);
  /// Waiting calls end with kUnavailable.
  void Stop();

 private:
  struct Part {
    KnownNode node;
    bool over = false, asked = false;
    int round = 0;  // of asking: a late answer to an earlier one means nothing
    BootTime again{};
    std::string why;  // it does not answer
  };
  struct Gathering {
    pb::AcknowledgedRequest request;
    BootTime until;
    Acknowledgements::Done done;
    bool here_over = false;
    std::map<std::string, Part> parts;  // by node id
    std::vector<std::string> peers, nodes;
    size_t total = 0;
  };
  using Shared = std::shared_ptr<Gathering>;

  void Ask(const Shared& gathering, const std::string& id);
  void Answered(const Shared& gathering, const std::string& id, int round,
                const Result<pb::AcknowledgedResponse>& result);
  void HereDone(const Shared& gathering, const Result<Left>& result);
  void Look(const Shared& gathering, const std::string& id, BootTime now);
  /// If nothing is left to wait for, or `failed`, tells so.
  void EndIfOver(const Shared& gathering, const Status& failed = {});
  std::string At(const std::string& peer, const std::string& node) const;

  const std::shared_ptr<Ground> ground_;
  const std::shared_ptr<Acknowledgements> here_;
  Mutex mu_;  // also guards what the gatherings hold
  std::list<Shared> gatherings_ DW_GUARDED_BY(mu_);
  bool stopped_ DW_GUARDED_BY(mu_) = false;
};

}  // namespace datawire::directory
