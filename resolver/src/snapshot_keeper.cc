#include "snapshot_keeper.h"

#include <algorithm>

#include "datawire/cache_snapshot.h"
#include "snapshot_file.h"

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::chrono::seconds kLook{1};  // how soon a change is seen
constexpr int kLastTries = 20;            // at exit, while another process saves
constexpr milliseconds kLastTryEach{50};

milliseconds Millis(nanoseconds time) {
  return std::chrono::duration_cast<milliseconds>(std::max(time, nanoseconds(0)));
}

}  // namespace

size_t Core::Restore(SnapshotContent content, nanoseconds since, BootTime now) {
  size_t taken = 0;
  for (SnapshotEntry& entry : content.entries) {
    if (entry.received + since > policy_.max_stale) continue;
    const BootTime received_at = now - since - entry.received;
    entry.answer.age += Millis(since);
    const size_t hash = HashOf(entry.answer.address.text());
    Shard& shard = ShardOf(hash);
    std::lock_guard lock(shard.mutex);
    taken += shard.cache->Restore(std::move(entry.answer), hash, content.cluster, received_at, now,
                                  random_);
    shard.cache->TakeEvicted();
  }
  if (taken > 0) cluster_ = content.cluster;
  return taken;
}

SnapshotContent Core::Export(const Moment& present) {
  SnapshotContent content{.saved = present};
  std::vector<Known> known;
  for (size_t i = 0; i < shard_count_; i++) {
    std::lock_guard lock(shards_[i].mutex);
    shards_[i].cache->ForEachKnown([&](Known one) { known.push_back(std::move(one)); });
    if (content.cluster.empty()) content.cluster = shards_[i].cache->cluster();
  }
  content.entries.reserve(known.size());
  for (const Known& one : known) {
    const milliseconds received = Millis(present.now - one.received_at);
    if (received > policy_.max_stale) continue;
    SnapshotEntry& entry = content.entries.emplace_back(SnapshotEntry{*one.answer, received});
    entry.answer.revision = one.revision;
    entry.answer.age = Millis(present.now - one.known_at);
    content.revision = std::max(content.revision, one.revision);
  }
  return content;
}

SnapshotKeeper::SnapshotKeeper(const ResolverOptions& options, Core& core, uint64_t seed)
    : path_(options.snapshot_file),
      cluster_(options.snapshot_cluster),
      max_stale_(options.policy.max_stale),
      core_(core),
      random_(seed),
      schedule_(BootClock::now(), random_) {}

void SnapshotKeeper::Load() {
  const auto load = [&]() -> Result<size_t> {
    DW_ASSIGN(const std::string bytes, ReadSnapshotFile(path_));
    DW_ASSIGN(SnapshotContent content, DecodeSnapshot(bytes));
    const Moment present = PresentMoment();
    DW_ASSIGN(const nanoseconds since, Usable(content, cluster_, present, max_stale_));
    return core_.Restore(std::move(content), since, present.now);
  };
  const auto loaded = load();
  std::lock_guard lock(mutex_);
  if (loaded.ok())
    loaded_ = *loaded;
  else if (loaded.status().code() != Code::kNotFound)
    error_ = "snapshot " + path_ + " refused: " + loaded.status().message();
}

void SnapshotKeeper::Start() {
  thread_ = std::thread([this] { Work(); });
}

void SnapshotKeeper::Stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  some_.notify_all();
  thread_.join();
}

void SnapshotKeeper::AddTo(ResolverStats& stats) const {
  std::lock_guard lock(mutex_);
  stats.snapshot_loaded = loaded_;
  stats.snapshot_saves = saves_;
  stats.snapshot_failures = failures_;
  stats.snapshot_error = error_;
}

void SnapshotKeeper::Work() {
  const auto stopped = [&](nanoseconds wait) {
    std::unique_lock lock(mutex_);
    return some_.wait_for(lock, wait, [&] { return stop_; });
  };
  while (!stopped(kLook)) {
    const BootTime now = BootClock::now();
    const uint64_t changes = core_.changes();
    if (!schedule_.Due(now, changes)) continue;
    const bool saved = Save().ok();
    const BootTime after = BootClock::now();
    schedule_.Tried(after, after - now, saved, changes);
  }
  std::mutex mine;
  std::unique_lock lock(mine);
  std::condition_variable nobody;
  for (int i = 0; i < kLastTries && Save().code() == Code::kConflict; i++)
    nobody.wait_for(lock, kLastTryEach);
}

// An empty cache replaces nothing: what the file holds may be of use yet.
Status SnapshotKeeper::Save() {
  const SnapshotContent content = core_.Export(PresentMoment());
  if (content.entries.empty()) return {};
  Status status = WriteSnapshotFile(path_, EncodeSnapshot(content));
  std::lock_guard lock(mutex_);
  (status.ok() ? saves_ : failures_)++;
  error_ = status.ok() ? "" : "snapshot " + path_ + " not saved: " + status.message();
  return status;
}

}  // namespace datawire::resolver

namespace datawire {

Result<CacheSnapshot> ReadCacheSnapshot(const std::string& path) {
  using std::chrono::milliseconds;
  DW_ASSIGN(const std::string bytes, resolver::ReadSnapshotFile(path));
  auto content = resolver::DecodeSnapshot(bytes);
  if (!content.ok())
    return Status(content.status().code(), path + ": " + content.status().message());
  const auto since = resolver::SinceSaved(content->saved, resolver::PresentMoment());
  if (!since.ok()) return Status(since.status().code(), path + ": " + since.status().message());
  CacheSnapshot out{.cluster = std::move(content->cluster),
                    .revision = content->revision,
                    .saved_wall_ms = content->saved.wall_ms,
                    .since = std::chrono::duration_cast<milliseconds>(*since)};
  for (resolver::SnapshotEntry& entry : content->entries) {
    entry.answer.age += out.since;
    entry.answer.stale = entry.answer.age > limits::kStaleAge;
    out.answers.push_back(std::move(entry.answer));
  }
  std::sort(out.answers.begin(), out.answers.end(),
            [](const Answer& a, const Answer& b) { return a.address.text() < b.address.text(); });
  return out;
}

}  // namespace datawire
