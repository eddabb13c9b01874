#include "grpc/open_streams.h"

#include <utility>
#include <vector>

namespace datawire::directory {

bool OpenStreams::Add(Verb verb, std::shared_ptr<Outflow> stream) {
  const MutexLock lock(mutex_);
  if (stopping_) return false;
  const Outflow* key = stream.get();
  entries_.emplace(key, Entry{verb, std::move(stream), BootTime::max(), Status::Ok()});
  return true;
}

void OpenStreams::Remove(const Outflow* stream) {
  const MutexLock lock(mutex_);
  const auto entry = entries_.find(stream);
  if (entry == entries_.end()) return;
  Forget(stream, entry->second);
  entries_.erase(entry);
}

void OpenStreams::SetDeadline(const Outflow* stream, BootTime at, Status status) {
  const MutexLock lock(mutex_);
  const auto entry = entries_.find(stream);
  if (entry == entries_.end()) return;
  Forget(stream, entry->second);
  entry->second.deadline = at;
  entry->second.status = std::move(status);
  if (at != BootTime::max()) deadlines_.emplace(at, stream);
}

void OpenStreams::ClearDeadline(const Outflow* stream) {
  SetDeadline(stream, BootTime::max(), Status::Ok());
}

void OpenStreams::Tick(BootTime now) {
  std::vector<std::pair<std::shared_ptr<Outflow>, Status>> due;
  {
    const MutexLock lock(mutex_);
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
      Entry& entry = entries_.at(deadlines_.begin()->second);
      deadlines_.erase(deadlines_.begin());
      entry.deadline = BootTime::max();
      due.emplace_back(entry.stream, entry.status);
    }
  }
  for (auto& [stream, status] : due) stream->Close(std::move(status));
}

void OpenStreams::Stop(const Status& status) {
  std::vector<std::shared_ptr<Outflow>> all;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    for (const auto& [key, entry] : entries_) all.push_back(entry.stream);
  }
  for (const auto& stream : all) stream->DrainAndClose(status);
}

size_t OpenStreams::Count(Verb verb) const {
  const MutexLock lock(mutex_);
  size_t count = 0;
  for (const auto& [key, entry] : entries_) count += entry.verb == verb ? 1 : 0;
  return count;
}

}  // namespace datawire::directory
