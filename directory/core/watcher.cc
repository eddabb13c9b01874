#include "core/watcher.h"

#include <google/protobuf/io/coded_stream.h>

#include "core/answers.h"
#include "datawire/record/v1/record.pb.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr size_t kHistoryRead = 256 * 1024;
constexpr size_t kSnapshotRead = 200;
constexpr size_t kHeadBytes = 256;  // kind, revision, source

std::string Head(pb::WatchResponse::Kind kind, Revision at) {
  pb::WatchResponse head;
  head.set_kind(kind);
  ToWire(at, head.mutable_revision());
  return head.SerializeAsString();
}

bool Within(const std::string& event_bytes, const std::optional<Address>& prefix) {
  if (!prefix) return true;
  pb::Event event;
  if (!event.ParseFromString(event_bytes)) return false;
  const std::string& text = prefix->text();
  return event.address().starts_with(text) &&
         (event.address().size() == text.size() || event.address()[text.size()] == '/');
}

}  // namespace

Changes EncodeChanges(Revision at, const std::string& history,
                      const std::optional<Address>& prefix) {
  Changes out;
  std::vector<std::string> bodies(1);
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const uint8_t*>(history.data()),
                                            static_cast<int>(history.size()));
  // A History is its events alone: field 1, length-delimited, again and again.
  std::string event;
  while (in.ReadTag() == (record::v1::History::kEventsFieldNumber << 3 | 2)) {
    uint32_t size = 0;
    if (!in.ReadVarint32(&size) || !in.ReadString(&event, static_cast<int>(size))) break;
    if (!Within(event, prefix)) continue;
    if (!bodies.back().empty() &&
        bodies.back().size() + event.size() + kHeadBytes > limits::kPushBytes)
      bodies.emplace_back();
    AppendField(pb::WatchResponse::kEventsFieldNumber, event, &bodies.back());
    ++out.events;
  }
  if (out.events == 0) return out;
  for (size_t i = 0; i < bodies.size(); ++i)
    out.messages.push_back(Head(i + 1 == bodies.size() ? pb::WatchResponse::KIND_CHANGES
                                                       : pb::WatchResponse::KIND_CHANGES_PART,
                                at) +
                           bodies[i]);
  return out;
}

void WatcherState::StartAfter(Revision after) {
  position_ = after;
  phase_ = after.epoch == ground_->view.authority().epoch ? kHistory : kResync;
}

WatcherState::Message WatcherState::TakeReady() {
  if (ready_.empty()) return std::nullopt;
  std::string message = std::move(ready_.front());
  ready_.pop_front();
  if (std::exchange(first_, false))
    AppendField(pb::WatchResponse::kSourceFieldNumber, ground_->source.SerializeAsString(),
                &message);
  const MutexLock lock(mu_);
  spoke_at_ = ground_->now();
  progress_due_ = false;
  return message;
}

Result<std::optional<std::string>> WatcherState::Next() {
  {
    const MutexLock lock(mu_);
    woken_ = false;
    if (std::exchange(overrun_, false)) {
      // Unsent parts of the revision before would not be whole any more.
      ready_.clear();
      phase_ = kResync;
    }
  }
  while (ready_.empty()) {
    if (phase_ == kLive) {
      NextLive();
      if (ready_.empty()) return Message{};
      break;
    }
    DW_RETURN_IF_ERROR(Advance());
  }
  return TakeReady();
}

Status WatcherState::Advance() {
  using Kind = pb::WatchResponse;
  switch (phase_) {
    case kResync:
      ++ground_->counts.watch_resyncs;
      ready_.push_back(Head(Kind::KIND_RESYNC, ground_->view.Applied()));
      phase_ = kBegin;
      break;
    case kBegin:
      snapshot_ = ground_->view.Hold();
      snapshot_since_ = ground_->now();
      snapshot_after_.clear();
      ready_.push_back(Head(Kind::KIND_SNAPSHOT_BEGIN, snapshot_->at()));
      phase_ = kSnapshot;
      break;
    case kSnapshot:
      return ReadSnapshot();
    case kEnd:
      position_ = snapshot_->at();
      ready_.push_back(Head(Kind::KIND_SNAPSHOT_END, position_));
      snapshot_.reset();
      phase_ = kHistory;
      break;
    case kHistory:
      return ReadHistory();
    case kLive:
      break;
  }
  return {};
}

Status WatcherState::ReadSnapshot() {
  // Longer than history reaches back it would end in a RESYNC anyway.
  if (ground_->now() - snapshot_since_ >= limits::kHistoryAge)
    return Status(Code::kAborted, "the snapshot was not read within 10 min: watch again");
  std::vector<std::string> events;
  std::string next;
  DW_RETURN_IF_ERROR(
      snapshot_->Registrations(prefix_, snapshot_after_, kSnapshotRead, &events, &next));
  std::string body;
  const auto flush = [&] {
    if (!body.empty())
      ready_.push_back(Head(pb::WatchResponse::KIND_SNAPSHOT, snapshot_->at()) + body);
    body.clear();
  };
  for (const std::string& event : events) {
    if (body.size() + event.size() + kHeadBytes > limits::kPushBytes) flush();
    AppendField(pb::WatchResponse::kEventsFieldNumber, event, &body);
  }
  flush();
  ground_->counts.watch_events += events.size();
  snapshot_after_ = next;
  if (next.empty()) phase_ = kEnd;
  return {};
}

Status WatcherState::ReadHistory() {
  Revision seen;
  {
    const MutexLock lock(mu_);
    seen = seen_;
  }
  const auto history = ground_->view.History(position_, kHistoryRead);
  if (history.status().code() == Code::kAborted) {
    phase_ = kResync;
    return {};
  }
  DW_RETURN_IF_ERROR(history.status());
  for (const auto& [at, events] : *history) {
    Split(at, events);
    position_ = at;
  }
  if (!history->empty()) return {};
  position_ = std::max(position_, seen);
  const MutexLock lock(mu_);
  // Nothing was published since before the read: from here on the queue has it all.
  if (seen_ == seen) {
    live_ = true;
    phase_ = kLive;
  }
  return {};
}

void WatcherState::Split(Revision at, const std::string& events) {
  Ready(EncodeChanges(at, events, prefix_));
}

void WatcherState::Ready(const Changes& changes) {
  ready_.insert(ready_.end(), changes.messages.begin(), changes.messages.end());
  ground_->counts.watch_events += changes.events;
}

void WatcherState::NextLive() {
  while (true) {
    std::shared_ptr<const SharedBatch> batch;
    {
      const MutexLock lock(mu_);
      if (queue_.empty()) {
        if (!progress_due_) return;
        position_ = std::max(position_, seen_);
        ready_.push_back(Head(pb::WatchResponse::KIND_PROGRESS, position_));
        return;
      }
      batch = std::move(queue_.front());
      queue_.pop_front();
      queue_bytes_ -= batch->events.size();
    }
    if (batch->at <= position_) continue;
    position_ = batch->at;
    if (prefix_)
      Split(batch->at, batch->events);
    else
      Ready(batch->whole);
    if (!ready_.empty()) return;
  }
}

void WatcherState::Publish(Revision at, const std::shared_ptr<const SharedBatch>& batch) {
  {
    const MutexLock lock(mu_);
    seen_ = at;
    if (!live_ || batch == nullptr) return;
    queue_.push_back(batch);
    queue_bytes_ += batch->events.size();
    if (queue_bytes_ > limits::kWatchQueueBytes) {
      queue_.clear();
      queue_bytes_ = 0;
      live_ = false;
      overrun_ = true;
    }
    if (std::exchange(woken_, true)) return;
  }
  gate.Wake();
}

void WatcherState::Tick(BootTime now) {
  {
    const MutexLock lock(mu_);
    if (now - spoke_at_ < limits::kMarkEvery) return;
    progress_due_ = true;
    if (std::exchange(woken_, true)) return;
  }
  gate.Wake();
}

}  // namespace datawire::directory
