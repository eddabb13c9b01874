#include "engine/etcd/keeper.h"

#include <algorithm>
#include <utility>

#include "datawire/limits.h"
#include "engine/etcd/etcd.h"

namespace datawire::directory::etcd {
namespace {

using namespace std::chrono_literals;

constexpr auto kProbeEvery = 250ms;
constexpr auto kProbeMost = 1000ms;
constexpr size_t kBackMost = 3;  // probes: one alone may be a stale read (CLUSTER.md, trap 7)
constexpr auto kCall = 1000ms;
constexpr int64_t kLeaseSeconds = 10;
constexpr auto kLeaseEvery = 2s;
constexpr auto kRound = 500ms;
constexpr auto kNoteEvery = 30s;
constexpr auto kCompactEvery = 60s;
constexpr auto kCheckEvery = 60s;
constexpr uint64_t kKeptRevisions = 10'000;
constexpr size_t kMoments = 64;

const std::vector<std::string> kRoles = {"compactor", "reaper"};

}  // namespace

// ---- Prober

Prober::Prober(Client& client, Feed& feed, const View::Authority* authority,
               std::function<void(Status)> failed)
    : client_(client),
      feed_(feed),
      authority_(authority),
      failed_(std::move(failed)),
      patience_(BootClock::now()),
      fresh_as_of_(BootClock::now() - 1h) {
  failure_ = "etcd has not been heard of yet";
  thread_ = std::thread([this] { Run(); });
}

Prober::~Prober() {
  Stop();
}

void Prober::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Prober::Run() {
  api::RangeRequest request;
  request.set_key(std::string(kPrefix) + keys::kAuthority);
  request.set_count_only(true);
  size_t skip = 1, back = 0;
  if (!CheckAuthority()) return;
  while (true) {
    const BootTime sent = BootClock::now();
    uint64_t applied;
    {
      const MutexLock lock(mutex_);
      applied = applied_;
    }
    const size_t member = (feed_.member() + skip) % client_.members();
    const auto response = client_.Range(member, request, kProbeMost);
    bool move = false;
    {
      MutexLock lock(mutex_);
      if (response.ok()) {
        const auto at = static_cast<uint64_t>(response->header().revision());
        failure_.clear();
        back = at < applied ? back + 1 : 0;
        if (back == kBackMost)
          failed_({Code::kConflict,
                   "etcd is at revision " + std::to_string(at) + ", this node has applied " +
                       std::to_string(applied) +
                       ": was etcd restored from a backup? Then start once with --raise-epoch"});
        if (at <= applied_)
          fresh_as_of_ = std::max(fresh_as_of_, sent);
        else
          ahead_.push_back({sent, at});
      } else {
        failure_ = response.status().message();
        patience_.Renew();
        skip = skip % client_.members() + 1;
      }
      move = !ahead_.empty() && patience_.Over(ahead_.front().sent, BootClock::now());
    }
    if (move) feed_.MoveOn();
    MutexLock lock(mutex_);
    wake_.wait_for(lock, kProbeEvery, [this]() DW_REQUIRES(mutex_) { return stopping_; });
    if (stopping_) return;
  }
}

// Asked once, when etcd answers for the first time: the node may have begun to serve without it.
bool Prober::CheckAuthority() {
  while (authority_ != nullptr) {
    const auto authority = ReadEtcdAuthority(client_, kProbeMost);
    if (authority.ok() && authority->cluster_id == authority_->cluster_id &&
        authority->epoch == authority_->epoch)
      return true;
    if (authority.ok())
      failed_({Code::kAborted, "etcd holds epoch " + std::to_string(authority->epoch) +
                                   " of cluster " + authority->cluster_id});
    else if (authority.status().code() != Code::kUnavailable &&
             authority.status().code() != Code::kTimeout)
      failed_(authority.status());
    else {
      MutexLock lock(mutex_);
      failure_ = authority.status().message();
      wake_.wait_for(lock, kProbeEvery, [this]() DW_REQUIRES(mutex_) { return stopping_; });
      if (stopping_) return false;
      continue;
    }
    return false;
  }
  return true;
}

void Prober::Applied(uint64_t number) {
  const MutexLock lock(mutex_);
  applied_ = number;
  while (!ahead_.empty() && ahead_.front().at <= number) {
    fresh_as_of_ = std::max(fresh_as_of_, ahead_.front().sent);
    ahead_.pop_front();
  }
  if (ahead_.empty()) patience_.Renew();
}

Log::Freshness Prober::Fresh(BootTime now) const {
  const MutexLock lock(mutex_);
  Log::Freshness out;
  out.fresh_as_of = fresh_as_of_;
  out.healthy = now - fresh_as_of_ < kProbeEvery + kBehind;
  if (out.healthy) return out;
  out.reason = !failure_.empty()
                   ? failure_
                   : "this node is behind etcd, at revision " + std::to_string(applied_);
  return out;
}

// ---- Keeper

Keeper::Keeper(Client& client, Writer& writer, View& view, NodeKeys keys,
               std::function<void(Status)> failed)
    : client_(client),
      writer_(writer),
      view_(view),
      keys_(std::move(keys)),
      failed_(std::move(failed)) {
  thread_ = std::thread([this] { Run(); });
}

Keeper::~Keeper() {
  Stop();
}

void Keeper::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Keeper::Announce(std::string alive) {
  const MutexLock lock(mutex_);
  alive_ = std::move(alive);
  news_ = true;
  wake_.notify_all();
}

void Keeper::Run() {
  while (true) {
    if (writer_.joined_at() != 0) {
      LookForSuccessor();
      KeepLease();
      if (lease_ != 0) TakeRoles();
      const BootTime now = BootClock::now();
      NoteApplied(now);
      CompactAndCheck(now);
    }
    MutexLock lock(mutex_);
    wake_.wait_for(lock, kRound, [this]() DW_REQUIRES(mutex_) { return stopping_ || news_; });
    news_ = false;
    if (stopping_) break;
  }
  // Others need not wait for its end. Best effort.
  if (lease_ != 0) static_cast<void>(client_.RevokeLease(writer_.member(), lease_, kCall));
}

// One that has nothing to write would not hear of it.
void Keeper::LookForSuccessor() {
  if (view_.Applied().number < writer_.joined_at()) return;
  const auto run = view_.Get("n/" + keys_.node);
  if (run.ok() && (!*run || (*run)->value != keys_.incarnation)) failed_(AnotherRun(keys_));
}

void Keeper::KeepLease() {
  const BootTime now = BootClock::now();
  std::string alive;
  {
    const MutexLock lock(mutex_);
    alive = alive_;
  }
  if (lease_ != 0 && !announced_ && !alive.empty())
    announced_ = PutUnderLease("alive/" + keys_.node, alive, 0).ok();
  if (lease_ != 0) {
    if (now - kept_ < kLeaseEvery) return;
    const Status status = client_.KeepLease(writer_.member(), lease_, kCall);
    if (status.ok()) kept_ = now;
    if (status.code() != Code::kNotFound) return;
    ++figures_.leases_lost;
    lease_ = 0;
    lease_held_ = announced_ = false;
  }
  const auto granted = client_.GrantLease(writer_.member(), kLeaseSeconds, kCall);
  if (!granted.ok()) return;
  lease_ = *granted;
  kept_ = now;
  lease_held_ = true;
  announced_ = !alive.empty() && PutUnderLease("alive/" + keys_.node, alive, 0).ok();
}

// `former` 0: whatever is there. Else only while the key was last changed then; ~0: while absent.
Status Keeper::PutUnderLease(const std::string& key, const std::string& value, uint64_t former) {
  api::TxnRequest request;
  api::Compare* const run = request.add_compare();
  run->set_target(api::Compare::VALUE);
  run->set_key(keys_.Run());
  run->set_value(keys_.incarnation);
  if (former != 0) {
    api::Compare* const as_seen = request.add_compare();
    as_seen->set_target(api::Compare::MOD);
    as_seen->set_key(kPrefix + key);
    as_seen->set_mod_revision(former == ~0ull ? 0 : static_cast<int64_t>(former));
  }
  api::PutRequest* const put = request.add_success()->mutable_request_put();
  put->set_key(kPrefix + key);
  put->set_value(value);
  put->set_lease(lease_);
  DW_ASSIGN(const api::TxnResponse response, client_.Txn(writer_.member(), request, kCall));
  if (!response.succeeded()) return {Code::kConflict, "another has it"};
  return {};
}

void Keeper::TakeRoles() {
  for (const std::string& role : kRoles) {
    const auto record = view_.Get("l/" + role);
    if (!record.ok()) return;
    const std::string mine = keys_.node + " " + keys_.incarnation;
    if (*record && (*record)->value == mine) continue;
    // Of a former run of this node: it is fenced, its lease only lasts on.
    const bool former = *record && (*record)->value.starts_with(keys_.node + " ");
    if (*record && !former) continue;
    static_cast<void>(PutUnderLease("l/" + role, mine, *record ? (*record)->modified : ~0ull));
  }
}

std::optional<Guard> Keeper::Role(const std::string& role) const {
  const std::string key = "l/" + role;
  const auto record = view_.Get(key);
  if (!record.ok() || !*record) return std::nullopt;
  if ((*record)->value != keys_.node + " " + keys_.incarnation) return std::nullopt;
  return Guard{Guard::kModEquals, key, (*record)->modified};
}

// What is applied and on the disc: a crash takes the node back to there, and etcd must still have
// what follows.
void Keeper::NoteApplied(BootTime now) {
  if (now - noted_ < kNoteEvery) return;
  noted_ = now;
  const auto flushed = view_.Flush();
  if (!flushed.ok()) return;
  Op op;
  op.changes.push_back({false, "a/" + keys_.node, std::to_string(flushed->number)});
  op.frees_space = true;  // compaction needs it
  writer_.Propose(std::move(op), now + kNoteEvery, [](const Outcome&) {});
}

void Keeper::CompactAndCheck(BootTime now) {
  const uint64_t applied = view_.Applied().number;
  if (moments_.empty() || now - moments_.back().at >= limits::kHistoryAge / kMoments)
    moments_.push_back({now, applied});
  while (moments_.size() > 1 && now - moments_[1].at >= limits::kHistoryAge) moments_.pop_front();
  const bool role = Role("compactor").has_value();
  if (role && now - checked_ >= kCheckEvery) {
    checked_ = now;
    Op op;
    op.changes.push_back({false, kCheckKey, keys_.node});
    op.frees_space = true;  // it takes none: the key is there
    writer_.Propose(std::move(op), now + kCheckEvery, [](const Outcome&) {});
  }
  if (now - compacted_ < kCompactEvery || !role) return;
  compacted_ = now;
  if (now - moments_.front().at < limits::kHistoryAge) return;
  uint64_t to =
      std::min(moments_.front().applied, applied > kKeptRevisions ? applied - kKeptRevisions : 0);
  // Of nodes that live: another lists anew when it is back.
  const Status read = view_.Scan("a/", "a0", [&](const Record& record) {
    const auto lives = view_.Get("alive/" + record.key.substr(2));
    if (lives.ok() && *lives) to = std::min<uint64_t>(to, std::stoull(record.value));
    return true;
  });
  if (!read.ok() || to <= compacted_to_) return;
  if (!client_.Compact(writer_.member(), to, kCall).ok()) return;
  compacted_to_ = to;
  ++figures_.compactions;
}

}  // namespace datawire::directory::etcd
