#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "core/directory.h"
#include "history_checker.h"

namespace datawire::directory {

/// A watcher of everything that goes on, in each life of a node, where it was in the one before;
/// what it is told becomes part of the history. A snapshot, a RESYNC or a step back fails the test.
class WatchTail {
 public:
  explicit WatchTail(harness::History& history);
  ~WatchTail();

  /// Watches until Detach, which must come before the directory goes.
  void Attach(Directory& directory);
  void Detach();
  /// Takes what there is, which is all up to `applied`: nobody writes.
  void CatchUp(Directory& directory, Revision applied);

 private:
  class Woken;
  void Drain(Watcher& watcher);
  void Keep();
  void Take(const std::string& bytes);
  std::unique_ptr<Watcher> Open(Directory& directory);

  harness::History& history_;
  Revision at_{1, 0}, from_{1, 0};
  std::vector<harness::HistoryEvent> events_, part_;
  std::unique_ptr<Woken> woken_;
  std::thread thread_;
};

}  // namespace datawire::directory
