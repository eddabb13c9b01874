#include "engine/etcd/feed.h"

#include <utility>

namespace datawire::directory::etcd {
namespace {

using namespace std::chrono_literals;

constexpr auto kPageMost = 5s;
constexpr auto kPause = 100ms;

}  // namespace

Feed::Feed(Client& client, Apply& apply, Revision applied, std::function<void(Status)> failed)
    : client_(client),
      apply_(apply),
      failed_(std::move(failed)),
      follower_(applied.epoch, applied.number),
      epoch_(applied.epoch) {
  thread_ = std::thread([this] { Run(); });
}

Feed::~Feed() {
  Stop();
}

void Feed::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    if (watch_) watch_->Cancel();
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Feed::MoveOn() {
  const MutexLock lock(mutex_);
  if (watch_) watch_->Cancel();
}

void Feed::Run() {
  bool list = follower_.next() == 1;
  while (true) {
    {
      const MutexLock lock(mutex_);
      if (stopping_) return;
    }
    const Status status = list ? List() : Watch();
    if (status.code() == Code::kFenced) return failed_({Code::kAborted, status.message()});
    // kInvalid: more is missing than one response may hold.
    if (status.code() == Code::kAborted || status.code() == Code::kInvalid) {
      if (!list && status.code() == Code::kAborted) ++figures_.gaps;
      list = true;
    } else if (status.ok()) {
      list = false;
      continue;
    }
    member_ = (member_ + 1) % client_.members();
    Pause();
  }
}

void Feed::Pause() {
  MutexLock lock(mutex_);
  wake_.wait_for(lock, kPause, [this]() DW_REQUIRES(mutex_) { return stopping_; });
}

Status Feed::Watch() {
  api::WatchCreateRequest request;
  request.set_key(kPrefix);
  request.set_range_end(kPrefixEnd);
  request.set_start_revision(static_cast<int64_t>(follower_.next()));
  request.set_progress_notify(true);
  ++figures_.watches;
  const std::shared_ptr<Client::Watch> watch = client_.OpenWatch(member_, request);
  {
    const MutexLock lock(mutex_);
    if (stopping_) return {Code::kCancelled, "stopping"};
    watch_ = watch;
  }
  Status status;
  api::WatchResponse response;
  while (status.ok() && watch->Read(&response)) {
    auto revisions = follower_.Take(response);
    if (!revisions.ok())
      status = std::move(revisions).status();
    else if (!apply_.Push(std::move(*revisions)))
      status = {Code::kCancelled, "stopping"};
  }
  if (status.ok()) status = watch->Finish();
  if (status.ok()) status = {Code::kUnavailable, "etcd ended the watch"};
  const MutexLock lock(mutex_);
  watch_.reset();
  return status;
}

Status Feed::List() {
  ++figures_.listings;
  listed_ = 0;
  uint64_t at = 0;
  for (size_t kind = 0; kind < std::size(kFollowed); ++kind) {
    std::string from = kFollowed[kind];
    const std::string end = EndOf(from);
    for (bool more = true; more;) {
      DW_ASSIGN(const api::RangeResponse response,
                client_.Range(member_, PageRequest(from, end, at), kPageMost));
      if (at == 0) at = static_cast<uint64_t>(response.header().revision());
      more = response.more();
      ListedPage page;
      page.at = at;
      page.from = from;
      for (const api::KeyValue& kv : response.kvs()) page.records.push_back(FromKeyValue(kv));
      listed_ += page.records.size();
      if (more) from = page.records.back().key + '\0';
      page.to = more ? from : end;
      page.last = !more && kind + 1 == std::size(kFollowed);
      if (!apply_.Push(std::move(page))) return {Code::kCancelled, "stopping"};
    }
  }
  apply_.WaitListed();
  follower_.Jump(at);
  return {};
}

}  // namespace datawire::directory::etcd
