#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "datawire/mutex.h"
#include "engine/etcd/client.h"
#include "engine/etcd/writer.h"
#include "view/view.h"

namespace datawire::directory::etcd {

/// Replicas compare themselves at one revision: that of a put of `b/check`. Each hashes its records
/// as of then and puts the hash; who is not of the majority compares itself with what etcd holds,
/// record by record, and if it differs there it is wrong. Etcd is compared with now and then even
/// so. A comparison that does not come to its end is an alarm. Thread-safe.
class Compare {
 public:
  struct Figures {
    std::atomic<uint64_t> compared{0}, unequal{0}, incomplete{0}, scrubs{0}, wrong{0};
  };

  /// `wrong`: this replica is not what etcd holds. All outlive it.
  Compare(Client& client, View& view, NodeKeys keys, std::function<void(Status)> wrong);
  ~Compare();
  /// What it proposes with, from when it may.
  void Start(Writer& writer);

  /// From the apply thread, in order: the view is at `at`, where `b/check` was put; a node has put
  /// its hash.
  void OnCheck(uint64_t at);
  void OnHash(const std::string& node, const std::string& value);
  /// Begins a comparison now.
  void Now(BootTime deadline, std::function<void(Result<Log::Comparison>)> done);
  /// Empty: comparisons come to their end, or are not due.
  std::string alarm(BootTime now) const;
  const Figures& figures() const { return figures_; }
  void Stop();

 private:
  struct Wait {
    uint64_t at;
    BootTime deadline;
    std::function<void(Result<Log::Comparison>)> done;
  };
  void Run();
  void Hash(uint64_t at, const View::Snapshot& snapshot);
  void Judge(uint64_t at, const View::Snapshot& snapshot);
  void Scrub(const View::Snapshot& snapshot);
  Result<std::string> Difference(const View::Snapshot& snapshot);
  void AnswerWaits(BootTime now);
  Log::Comparison Found(uint64_t at, const std::vector<std::string>& live) const
      DW_REQUIRES(mutex_);
  std::vector<std::string> Live() const;
  bool stopping() const;

  Client& client_;
  View& view_;
  const NodeKeys keys_;
  const std::function<void(Status)> wrong_;
  Figures figures_;

  mutable Mutex mutex_;
  Condition wake_;
  Writer* writer_ DW_GUARDED_BY(mutex_) = nullptr;
  uint64_t check_at_ DW_GUARDED_BY(mutex_) = 0;  // the newest that is not hashed yet
  std::unique_ptr<View::Snapshot> check_ DW_GUARDED_BY(mutex_);
  std::map<uint64_t, std::map<std::string, std::string>> hashes_ DW_GUARDED_BY(mutex_);
  std::list<Wait> waits_ DW_GUARDED_BY(mutex_);
  BootTime complete_ DW_GUARDED_BY(mutex_);
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace datawire::directory::etcd
