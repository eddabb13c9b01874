#pragma once

#include <map>
#include <memory>

#include "directory_node.h"

namespace datawire::sim {

/// A process that watches everything and resumes where it was: it must see every event once, in
/// order, whole revisions only, and never a RESYNC while history reaches back (P8). Bound to its
/// Scheduler.
class WatchProcess final : public Process {
 public:
  WatchProcess(Network& network, Oracle& oracle, std::vector<DirectoryNode*> servers,
               std::string name);

  void Start();
  /// Up to the newest revision with events; else why not.
  std::string Settled() const;

 private:
  void Connect();
  void OnMessage(const std::string& bytes);
  void OnChanges(const pb::WatchResponse& message);
  void Again();

  Network& network_;
  Scheduler& scheduler_;
  Oracle& oracle_;
  const std::vector<DirectoryNode*> servers_;
  size_t server_ = 0;
  std::shared_ptr<Wire> wire_;
  uint64_t attempt_ = 0;
  bool known_ = false;     // has a position
  bool snapshot_ = false;  // in the middle of one
  uint64_t position_ = 0;  // revision number up to which it has seen all
  record::v1::History part_;
  Time heard_{0};
};

}  // namespace datawire::sim
