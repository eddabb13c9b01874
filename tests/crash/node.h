#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "core/directory.h"
#include "failing_disc.h"
#include "view/view.h"

namespace datawire::directory {

/// A folder on a real disc, removed with all that is in it; kept, and named, if the test failed.
/// $DATAWIRE_TEST_DIR or the build folder says where.
class CrashFolder {
 public:
  CrashFolder();
  ~CrashFolder();
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// A directory node in this process, on a disc that can fail: engine, view and core, with a thread
/// that ticks them in real time, unless it is started at a time of the test's own.
class Node {
 public:
  explicit Node(const std::string& folder);
  ~Node() { Stop(); }

  /// Creates the store if the folder has none. Not OK: it did not open.
  Status Start(std::optional<BootTime> simulated = {});
  void Stop();

  FailingDisc& disc() { return *disc_; }
  View& view() { return *view_; }
  Log& log() { return *log_; }
  Directory& directory() { return *directory_; }

 private:
  const std::string folder_;
  std::shared_ptr<FailingDisc> disc_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<View> view_;
  std::unique_ptr<Log> log_;
  std::unique_ptr<Directory> directory_;
  std::atomic<bool> stopping_{false};
  std::thread ticker_;
};

}  // namespace datawire::directory
