#include "directory_node.h"

#include <rocksdb/env.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "datawire/assert.h"

namespace datawire::sim {

namespace {

constexpr size_t kWindow = 4;  // messages of a stream written and not yet read

// View::Open looks for CURRENT on the real disc, RocksDB for all else in the env that it is given:
// one folder that never changes serves all runs.
const std::string& Place() {
  static const struct Folder {
    std::string path = std::filesystem::temp_directory_path() / "datawire-sim-XXXXXX";
    Folder() {
      DW_ASSERT(::mkdtemp(path.data()) != nullptr);
      std::ofstream(path + "/CURRENT") << "kept in memory\n";
    }
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  } folder;
  return folder.path;
}

directory::ViewOptions Options(rocksdb::Env* env) {
  directory::ViewOptions options;
  options.row_cache_bytes = options.block_cache_bytes = 1 << 20;
  options.sync = false;
  options.env = env;
  return options;
}

}  // namespace

/// The server's end of one stream: what a front-end holds.
struct DirectoryNode::End final : directory::Stream {
  explicit End(DirectoryNode& the_node) : node(the_node) {}
  void Wake() override {
    if (std::exchange(woken, true)) return;
    // Streams are woken in an order that hangs on where they lie in memory: here, in that of age.
    const Time wait = 20us + Time(wire->number);
    node.scheduler_.After(wait, &node, [wire = wire, node = &node] {
      const auto it = node->ends_.find(wire.get());
      if (it != node->ends_.end()) node->Pump(*it->second);
    });
  }

  DirectoryNode& node;
  std::shared_ptr<Wire> wire;
  bool woken = false;
  size_t unread = 0;  // by the client
  // One of them.
  std::unique_ptr<directory::Tether> tether;
  std::unique_ptr<directory::Subscriber> subscriber;
  std::unique_ptr<directory::Watcher> watcher;
  std::function<void(const pb::TetherResponse&)> on_tether;
  std::function<void(const std::string&)> on_bytes;
  std::string session;
  uint64_t attach = 0;
  bool welcomed = false;
};

DirectoryNode::DirectoryNode(Network& network, Oracle& oracle, std::string name, bool is_replica)
    : Process(std::move(name)),
      replica(is_replica),
      network_(network),
      scheduler_(network.scheduler()),
      oracle_(oracle),
      env_(rocksdb::NewMemEnv(rocksdb::Env::Default())) {}

DirectoryNode::~DirectoryNode() {
  ends_.clear();
  directory_.reset();
  log_.reset();
  view_.reset();
}

void DirectoryNode::Start() {
  if (up) return;
  up = true;
  scheduler_.As(*this, [this] {
    auto view = starts_++ == 0 ? View::Create(Place(), {"sim", 1}, Options(env_.get()))
                               : View::Open(Place(), Options(env_.get()));
    if (!view.ok()) return scheduler_.Fail("does not start: " + view.status().ToString());
    view_ = std::move(*view);
    if (replica) {
      auto log = std::make_unique<FollowerLog>(*view_);
      follower_ = log.get();
      log_ = std::move(log);
    } else {
      oracle_.OnStart(*view_);
      auto log = std::make_unique<MemoryLog>(
          scheduler_, *this, *view_, [this](const Batch& batch, const MemoryLog::Decided& decided) {
            Committed(batch, decided);
          });
      memory_ = log.get();
      log_ = std::move(log);
    }
    auto directory = directory::Directory::Open(
        *view_, *log_, {name, "run" + std::to_string(starts_), scheduler_.random()() | 1},
        BootClock::now());
    if (!directory.ok()) return scheduler_.Fail("does not start: " + directory.status().ToString());
    directory_ = std::move(*directory);
    Tick();
    if (replica) Feed();
  });
}

void DirectoryNode::Committed(const Batch& batch, const MemoryLog::Decided& decided) {
  oracle_.OnCommit(batch, decided, *view_);
  if (!crash_after_commit_ || replica) return;
  const Time away = *crash_after_commit_;
  crash_after_commit_.reset();
  // The engine is in the middle of it: the process dies before anything else happens.
  scheduler_.At(scheduler_.now(), nullptr, [this, away] {
    if (!up) return;
    Crash(false);
    scheduler_.After(away, nullptr, [this] { Start(); });
  });
}

void DirectoryNode::Crash(bool silently) {
  if (!up) return;
  if (scheduler_.tracing()) scheduler_.Say(name + " crashes");
  network_.Died(*this, silently);
  scheduler_.EndLife(*this);
  scheduler_.As(*this, [this] {
    ends_.clear();
    directory_.reset();
    memory_ = nullptr;
    follower_ = nullptr;
    log_.reset();
    view_.reset();
  });
  crash_after_commit_.reset();
}

void DirectoryNode::Pause(Time span) {
  if (!up || paused) return;
  scheduler_.Pause(*this, span);
  if (replica) return;
  resumed = [this, from = scheduler_.now()] { oracle_.OnAway(from); };
}

void DirectoryNode::Stall(Time span) {
  if (memory_ != nullptr) memory_->Stall(span);
}

void DirectoryNode::FailWrites(Time span) {
  if (memory_ == nullptr) return;
  memory_->FailWrites(span);
  scheduler_.After(span, this, [this, from = scheduler_.now()] { oracle_.OnAway(from); });
}

void DirectoryNode::Tick() {
  directory_->Tick(BootClock::now());
  const Time wait = scheduler_.Between(tick_every / 2, tick_every);
  scheduler_.After(wait, this, [this] { Tick(); });
}

void DirectoryNode::Feed() {
  const auto& log = oracle_.log();
  Time wait = scheduler_.Between(1ms, 200ms);
  if (scheduler_.now() >= feed_from_) {
    follower_->fresh_as_of = BootClock::now();
    while (view_->Applied().number < log.size())
      if (const Status status = Apply(*view_, log[view_->Applied().number]); !status.ok())
        return scheduler_.Fail("a replica refuses a batch: " + status.ToString());
  } else {
    wait = feed_from_ - scheduler_.now();
  }
  scheduler_.After(wait, this, [this] { Feed(); });
}

void DirectoryNode::Serve(const std::shared_ptr<Wire>& wire, std::unique_ptr<End> end) {
  end->wire = wire;
  ends_[wire.get()] = std::move(end);
  wire->OnGone([this, key = wire.get()] { ends_.erase(key); });
}

void DirectoryNode::Tether(const std::shared_ptr<Wire>& wire,
                           std::function<void(const pb::TetherResponse&)> client) {
  // Its sessions are the leader's: it knows only those it read when it started.
  if (replica) return wire->CloseByServer({Code::kUnavailable, "a replica holds no sessions"});
  auto end = std::make_unique<End>(*this);
  End& opened = *end;
  Serve(wire, std::move(end));
  opened.on_tether = std::move(client);
  opened.tether = directory_->OpenTether({wire->client().name, ""}, opened);
}

void DirectoryNode::OnTether(const Wire& wire, const pb::TetherRequest& request) {
  const auto it = ends_.find(&wire);
  if (it == ends_.end()) return;
  End& end = *it->second;
  if (end.welcomed && request.has_heartbeat()) oracle_.OnHeartbeat(end.session, end.attach);
  if (end.welcomed && request.has_register_())
    oracle_.OnOp(end.session, end.attach, request.register_().op_id());
  if (end.welcomed && request.has_withdraw())
    oracle_.OnOp(end.session, end.attach, request.withdraw().op_id());
  end.tether->OnMessage(request);
}

void DirectoryNode::Subscribe(const std::shared_ptr<Wire>& wire,
                              std::function<void(const std::string&)> client) {
  auto end = std::make_unique<End>(*this);
  End& opened = *end;
  Serve(wire, std::move(end));
  opened.on_bytes = std::move(client);
  auto subscriber = directory_->OpenSubscriber({wire->client().name, ""}, opened);
  ++streams_asked;
  if (subscriber.ok()) {
    ++streams_begun;
    opened.subscriber = std::move(*subscriber);
    return;
  }
  ends_.erase(wire.get());
  wire->CloseByServer(subscriber.status());
}

void DirectoryNode::OnSubscribe(const std::shared_ptr<Wire>& wire,
                                const pb::SubscribeRequest& request) {
  const auto it = ends_.find(wire.get());
  if (it == ends_.end()) return;
  const Status status = it->second->subscriber->OnRequest(request);
  if (status.ok()) return;
  ends_.erase(it);
  wire->CloseByServer(status);
}

void DirectoryNode::Watch(const std::shared_ptr<Wire>& wire, const pb::WatchRequest& request,
                          std::function<void(const std::string&)> client) {
  auto end = std::make_unique<End>(*this);
  End& opened = *end;
  Serve(wire, std::move(end));
  opened.on_bytes = std::move(client);
  auto watcher = directory_->OpenWatcher(request, {wire->client().name, ""}, opened);
  if (watcher.ok()) {
    opened.watcher = std::move(*watcher);
    return;
  }
  ends_.erase(wire.get());
  wire->CloseByServer(watcher.status());
}

void DirectoryNode::Resolve(Process& client, const pb::ResolveRequest& request,
                            std::function<void(const Result<std::string>&)> done) {
  directory_->Resolve(request, [this, &client, done](const Result<std::string>& response) {
    network_.Send(*this, client, [done, response] { done(response); });
  });
}

void DirectoryNode::Pump(End& end) {
  end.woken = false;
  const auto wire = end.wire;
  if (end.tether) {
    while (auto response = end.tether->Next()) {
      if (response->has_welcome()) {
        end.session = response->welcome().session_id();
        end.attach = response->welcome().attach_number();
        end.welcomed = true;
      }
      const bool ended = response->has_ended();
      wire->Down([client = end.on_tether, response = *std::move(response)] { client(response); });
      if (!ended) continue;
      ends_.erase(wire.get());
      wire->CloseByServer({Code::kUnavailable, "the directory closed the stream"});
      return;
    }
    return;
  }
  while (end.unread < kWindow) {
    std::optional<std::string> message;
    if (end.subscriber) {
      message = end.subscriber->Next();
    } else {
      auto next = end.watcher->Next();
      if (!next.ok()) {
        const Status status = next.status();
        ends_.erase(wire.get());
        wire->CloseByServer(status);
        return;
      }
      message = *std::move(next);
    }
    if (!message) return;
    ++end.unread;
    wire->Down([this, wire, client = end.on_bytes, message = *std::move(message)] {
      client(message);
      if (!up) return;
      scheduler_.After(0s, this, [this, wire] {
        const auto it = ends_.find(wire.get());
        if (it == ends_.end()) return;
        if (it->second->unread-- == kWindow) Pump(*it->second);
      });
    });
  }
}

}  // namespace datawire::sim
