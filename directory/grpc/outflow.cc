#include "grpc/outflow.h"

#include <utility>

namespace datawire::directory {

void Outflow::Start() {
  std::unique_lock(mutex_).unlock();  // what was built before is seen by whoever locks after
  actions_.run([self = shared_from_this()] { self->Run(); });
}

void Outflow::Wake() {
  std::unique_lock lock(mutex_);
  woken_ = true;
  Schedule(lock);
}

void Outflow::Hold() {
  const std::lock_guard lock(mutex_);
  held_ = true;
}

void Outflow::Release() {
  std::unique_lock lock(mutex_);
  held_ = false;
  if (scheduled_ || writing_ || (!woken_ && !closing_)) return;
  Pump(std::move(lock));
}

void Outflow::Written(bool ok) {
  std::unique_lock lock(mutex_);
  writing_ = false;
  if (!ok) {
    if (!closing_) closing_ = Status(Code::kCancelled, "the peer is gone");
    draining_ = false;
  }
  Pump(std::move(lock));
}

void Outflow::Close(Status status) {
  std::unique_lock lock(mutex_);
  if (!closing_) closing_ = std::move(status);
  draining_ = false;
  Schedule(lock);
}

void Outflow::DrainAndClose(Status status) {
  std::unique_lock lock(mutex_);
  if (closing_) return;
  closing_ = std::move(status);
  draining_ = true;
  Schedule(lock);
}

bool Outflow::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

void Outflow::Schedule(std::unique_lock<std::mutex>& lock) {
  if (scheduled_ || held_ || pumping_ || writing_ || ended_) return;  // who is at work looks again
  scheduled_ = true;
  lock.unlock();
  actions_.run([self = shared_from_this()] { self->Run(); });
}

void Outflow::Run() {
  std::unique_lock lock(mutex_);
  scheduled_ = false;
  if (!writing_) Pump(std::move(lock));
}

void Outflow::Pump(std::unique_lock<std::mutex> lock) {
  if (pumping_ || ended_) return;
  pumping_ = true;
  while (!closing_ || draining_) {
    woken_ = false;
    lock.unlock();
    Pulled pulled = actions_.pull();
    lock.lock();
    if (closing_ && !draining_) break;
    if (!pulled.status.ok()) {
      closing_ = std::move(pulled.status);
      draining_ = false;
    } else if (pulled.bytes) {
      if (pulled.last) {
        closing_ = Status::Ok();
        draining_ = false;
      }
      pumping_ = false;
      writing_ = true;
      lock.unlock();
      actions_.write(std::move(*pulled.bytes), pulled.more);
      return;
    } else if (!woken_) {
      if (!draining_) {
        pumping_ = false;
        return;
      }
      draining_ = false;
    }
  }
  pumping_ = false;
  ended_ = true;
  const Status status = *closing_;
  lock.unlock();
  actions_.end(status);
}

}  // namespace datawire::directory
