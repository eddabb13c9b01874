#include "engine/etcd/compare.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <random>
#include <utility>

#include "engine/etcd/follower.h"
#include "view/encoding.h"

namespace datawire::directory::etcd {
namespace {

using namespace std::chrono_literals;

constexpr auto kLook = 100ms;
constexpr auto kOthersMost = 20s;  // for the others' hashes
constexpr auto kLate = 150s;       // without a complete comparison: an alarm
constexpr auto kScrubEvery = 1h;   // and up to a quarter more
constexpr auto kPageMost = 5s;
constexpr size_t kChecks = 4;  // whose hashes are kept
constexpr int kNice = 10;      // it only has to be done some time

/// A sum of digests: the same for the same records in any order.
class Sum {
 public:
  void Add(const Record& record) {
    std::string bytes;
    AppendU32(static_cast<uint32_t>(record.key.size()), &bytes);
    bytes += record.key;
    bytes += EncodeRecord(record);
    const Sha256Digest digest = DigestOf(bytes);
    Reader reader(std::string_view(digest.data(), digest.size()));
    for (uint64_t& part : parts_) part += reader.U64();
  }
  std::string Hex() const {
    std::string out;
    for (const uint64_t part : parts_)
      for (int shift = 60; shift >= 0; shift -= 4) out += "0123456789abcdef"[part >> shift & 15];
    return out;
  }

 private:
  std::array<uint64_t, 4> parts_{};
};

}  // namespace

Compare::Compare(Client& client, View& view, NodeKeys keys, std::function<void(Status)> wrong)
    : client_(client),
      view_(view),
      keys_(std::move(keys)),
      wrong_(std::move(wrong)),
      complete_(BootClock::now()) {}

Compare::~Compare() {
  Stop();
}

void Compare::Start(Writer& writer) {
  {
    const MutexLock lock(mutex_);
    writer_ = &writer;
  }
  thread_ = std::thread([this] { Run(); });
}

void Compare::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  std::list<Wait> waits;
  {
    const MutexLock lock(mutex_);
    waits.swap(waits_);
  }
  for (Wait& wait : waits) wait.done(Status(Code::kUnavailable, "this node stops"));
}

bool Compare::stopping() const {
  const MutexLock lock(mutex_);
  return stopping_;
}

void Compare::OnCheck(uint64_t at) {
  auto snapshot = view_.Hold();
  const MutexLock lock(mutex_);
  check_at_ = at;
  check_ = std::move(snapshot);
  hashes_[at];
  while (hashes_.size() > kChecks) hashes_.erase(hashes_.begin());
  wake_.notify_all();
}

void Compare::OnHash(const std::string& node, const std::string& value) {
  uint64_t at = 0;
  const auto read = std::from_chars(value.data(), value.data() + value.size(), at);
  if (read.ec != std::errc() || *read.ptr != ' ') return;
  const MutexLock lock(mutex_);
  if (const auto check = hashes_.find(at); check != hashes_.end())
    check->second[node] = std::string(read.ptr + 1, value.data() + value.size());
  wake_.notify_all();
}

void Compare::Now(BootTime deadline, std::function<void(Result<Log::Comparison>)> done) {
  Op op;
  op.changes.push_back({false, kCheckKey, keys_.node});
  op.frees_space = true;  // it takes none: the key is there
  Writer* writer;
  {
    const MutexLock lock(mutex_);
    writer = writer_;
  }
  writer->Propose(std::move(op), deadline, [this, deadline, done](const Outcome& outcome) {
    if (!outcome.status.ok()) return done(outcome.status);
    const MutexLock lock(mutex_);
    waits_.push_back({outcome.at.number, deadline, done});
    wake_.notify_all();
  });
}

void Compare::Run() {
  static_cast<void>(::setpriority(PRIO_PROCESS, 0, kNice));
  std::mt19937 random(std::random_device{}());
  const auto next_scrub = [&](BootTime from) {
    return from + kScrubEvery + std::chrono::seconds(random() % 900);
  };
  BootTime scrub = next_scrub(BootClock::now());
  while (true) {
    uint64_t at = 0;
    std::unique_ptr<View::Snapshot> check;
    {
      MutexLock lock(mutex_);
      wake_.wait_for(lock, kLook,
                     [this]() DW_REQUIRES(mutex_) { return stopping_ || check_ != nullptr; });
      if (stopping_) return;
      at = check_at_;
      check = std::move(check_);
    }
    if (check) {
      Hash(at, *check);
      Judge(at, *check);
    }
    const BootTime now = BootClock::now();
    AnswerWaits(now);
    if (now < scrub) continue;
    scrub = next_scrub(now);
    Scrub(*view_.Hold());
  }
}

void Compare::Hash(uint64_t at, const View::Snapshot& snapshot) {
  Sum sum;
  for (const char* const prefix : kFollowed) {
    const Status read = snapshot.Records(prefix, EndOf(prefix), [&](const Record& record) {
      sum.Add(record);
      return true;
    });
    if (!read.ok())
      return wrong_({Code::kAborted, "this replica cannot be read: " + read.message()});
    if (stopping()) return;
  }
  Op op;
  op.changes.push_back({false, kHashPrefix + keys_.node, std::to_string(at) + " " + sum.Hex()});
  op.frees_space = true;
  Writer* writer;
  {
    const MutexLock lock(mutex_);
    writer = writer_;
  }
  writer->Propose(std::move(op), BootClock::now() + kOthersMost, [](const Outcome&) {});
}

std::vector<std::string> Compare::Live() const {
  std::vector<std::string> out;
  static_cast<void>(view_.Scan("alive/", "alive0", [&](const Record& record) {
    out.push_back(record.key.substr(6));
    return true;
  }));
  return out;
}

Log::Comparison Compare::Found(uint64_t at, const std::vector<std::string>& live) const {
  Log::Comparison out;
  out.at = {view_.authority().epoch, at};
  const auto check = hashes_.find(at);
  if (check != hashes_.end()) out.hashes.assign(check->second.begin(), check->second.end());
  for (const std::string& node : live)
    if (check == hashes_.end() || !check->second.contains(node)) out.missing.push_back(node);
  return out;
}

// Waits for the others and looks whether this one is of the majority.
void Compare::Judge(uint64_t at, const View::Snapshot& snapshot) {
  const BootTime until = BootClock::now() + kOthersMost;
  Log::Comparison found;
  while (true) {
    AnswerWaits(BootClock::now());
    const auto live = Live();
    MutexLock lock(mutex_);
    found = Found(at, live);
    const bool newer = check_ != nullptr;
    if (found.missing.empty() || stopping_ || newer || BootClock::now() >= until) break;
    wake_.wait_for(lock, kLook);
  }
  AnswerWaits(BootClock::now());
  if (found.missing.empty()) {
    ++figures_.compared;
    const MutexLock lock(mutex_);
    complete_ = BootClock::now();
  } else {
    ++figures_.incomplete;
  }
  std::map<std::string, size_t> votes;
  std::string own;
  for (const auto& [node, hash] : found.hashes) {
    ++votes[hash];
    if (node == keys_.node) own = hash;
  }
  if (votes.size() <= 1) return;
  ++figures_.unequal;
  if (votes[own] * 2 <= found.hashes.size()) Scrub(snapshot);
}

void Compare::Scrub(const View::Snapshot& snapshot) {
  const auto difference = Difference(snapshot);
  if (!difference.ok()) return;  // compacted meanwhile, or etcd is away: later
  ++figures_.scrubs;
  if (difference->empty()) return;
  ++figures_.wrong;
  const Status marked = view_.MarkWrong();
  wrong_({Code::kAborted, "this replica is wrong, it begins anew: " + *difference +
                              (marked.ok() ? "" : "; " + marked.message())});
}

// The first record that is not what etcd holds at the snapshot's revision; empty: none.
Result<std::string> Compare::Difference(const View::Snapshot& snapshot) {
  size_t member = 0;
  for (const char* const prefix : kFollowed) {
    std::string from = prefix;
    const std::string end = EndOf(prefix);
    for (bool more = true; more;) {
      if (stopping()) return Status(Code::kCancelled, "stopping");
      const auto request = PageRequest(from, end, snapshot.at().number);
      auto response = client_.Range(member, request, kPageMost);
      for (size_t tried = 1; !response.ok() && tried < client_.members(); ++tried) {
        member = (member + 1) % client_.members();
        response = client_.Range(member, request, kPageMost);
      }
      if (!response.ok()) return response.status();
      more = response->more();
      const std::string to = more ? FromKeyValue(*response->kvs().rbegin()).key + '\0' : end;
      auto theirs = response->kvs().begin();
      std::string found;
      DW_RETURN_IF_ERROR(snapshot.Records(from, to, [&](const Record& ours) {
        if (theirs == response->kvs().end()) {
          found = "it has " + Shown(ours.key) + ", etcd has not";
          return false;
        }
        const Record other = FromKeyValue(*theirs++);
        if (other.key != ours.key)
          found = "at " + Shown(ours.key) + " etcd has " + Shown(other.key);
        else if (other.value != ours.value || other.modified != ours.modified ||
                 other.created != ours.created)
          found = Shown(ours.key) + " differs from etcd's";
        return found.empty();
      }));
      if (found.empty() && theirs != response->kvs().end())
        found = "etcd has " + Shown(FromKeyValue(*theirs).key) + ", it has not";
      if (!found.empty()) return found;
      from = to;
    }
  }
  return std::string();
}

void Compare::AnswerWaits(BootTime now) {
  const auto live = Live();
  std::vector<std::pair<Wait, Log::Comparison>> ready;
  {
    const MutexLock lock(mutex_);
    for (auto it = waits_.begin(); it != waits_.end();) {
      Log::Comparison found = Found(it->at, live);
      if (!found.missing.empty() && now < it->deadline) {
        ++it;
        continue;
      }
      ready.emplace_back(std::move(*it), std::move(found));
      it = waits_.erase(it);
    }
  }
  for (auto& [wait, found] : ready) wait.done(std::move(found));
}

std::string Compare::alarm(BootTime now) const {
  const MutexLock lock(mutex_);
  if (now - complete_ < kLate) return "";
  const auto late = std::chrono::duration_cast<std::chrono::seconds>(now - complete_).count();
  return "replicas have not been compared for " + std::to_string(late) + " s";
}

}  // namespace datawire::directory::etcd
