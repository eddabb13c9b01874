#pragma once

#include <deque>
#include <memory>
#include <set>

#include "core/directory.h"
#include "memory_log.h"
#include "network.h"
#include "oracle.h"

namespace rocksdb {
class Env;
}

namespace datawire::sim {

/// One directory server: the real core and view over MemoryLog and a file system in memory, with
/// front-ends that hand messages over. It crashes and starts again with what was committed. A
/// replica is fed another node's batches, answers and refuses to write. Bound to its Scheduler.
class DirectoryNode final : public Process {
 public:
  /// `leader`: null, or whose replica this is.
  DirectoryNode(Network& network, Oracle& oracle, std::string name, bool replica);
  ~DirectoryNode() override;

  void Start();
  /// What was proposed and not committed is gone. `silently`: the machine too.
  void Crash(bool silently);
  /// It crashes right after its next commit, before anybody is told; nothing: it does not.
  void CrashAfterCommit(std::optional<Time> away) { crash_after_commit_ = away; }
  void Pause(Time span);
  void Stall(Time span);
  void FailWrites(Time span);
  /// A replica gets no batches for so long.
  void Lag(Time span) { feed_from_ = scheduler_.now() + span; }

  /// Each opens the server's end when its stream arrives here. `client` is told of messages.
  void Tether(const std::shared_ptr<Wire>& wire,
              std::function<void(const pb::TetherResponse&)> client);
  void OnTether(const Wire& wire, const pb::TetherRequest& request);
  void Subscribe(const std::shared_ptr<Wire>& wire, std::function<void(const std::string&)> client);
  void OnSubscribe(const std::shared_ptr<Wire>& wire, const pb::SubscribeRequest& request);
  void Watch(const std::shared_ptr<Wire>& wire, const pb::WatchRequest& request,
             std::function<void(const std::string&)> client);
  void Resolve(Process& client, const pb::ResolveRequest& request,
               std::function<void(const Result<std::string>&)> done);

  const View& view() const { return *view_; }
  directory::Directory& directory() { return *directory_; }
  const bool replica;

  /// Of Subscribe streams: asked for, and begun.
  uint64_t streams_asked = 0, streams_begun = 0;

  /// Between two ticks; a gap of 1 s would be an absence.
  Time tick_every = 400ms;

 private:
  struct End;
  void Serve(const std::shared_ptr<Wire>& wire, std::unique_ptr<End> end);
  void Pump(End& end);
  void Tick();
  void Feed();
  void Committed(const Batch& batch, const MemoryLog::Decided& decided);

  Network& network_;
  Scheduler& scheduler_;
  Oracle& oracle_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<View> view_;
  std::unique_ptr<Log> log_;
  MemoryLog* memory_ = nullptr;
  FollowerLog* follower_ = nullptr;
  std::unique_ptr<directory::Directory> directory_;
  std::map<const Wire*, std::unique_ptr<End>> ends_;
  Time feed_from_{0};
  uint64_t starts_ = 0;
  std::optional<Time> crash_after_commit_;
};

}  // namespace datawire::sim
