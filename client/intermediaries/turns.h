#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "datawire/clock.h"

namespace datawire::intermediaries {

/// A thread that runs a turn whenever something was noted for it. What notes change belongs to it:
/// a Note and a Look exclude each other. Thread-safe.
class Turns {
 public:
  ~Turns() { Stop(); }
  /// Once. `turn` returns when it is to run without another Note.
  void Start(std::function<std::optional<BootTime>()> turn) {
    thread_ = std::thread([this, turn = std::move(turn)] { Run(turn); });
  }
  /// Runs `change` here; a turn follows.
  template <typename Change>
  void Note(const Change& change) {
    {
      const std::lock_guard lock(mutex_);
      change();
      news_ = true;
    }
    wake_.notify_one();
  }
  template <typename Take>
  auto Look(const Take& take) {
    const std::lock_guard lock(mutex_);
    return take();
  }
  /// Waits for the present turn. Idempotent.
  void Stop() {
    Look([this] { stopping_ = true; });
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run(const std::function<std::optional<BootTime>()>& turn) {
    while (true) {
      const std::optional<BootTime> next = turn();
      std::unique_lock lock(mutex_);
      const auto ready = [this] { return news_ || stopping_; };
      if (!next) {
        wake_.wait(lock, ready);
      } else if (const auto left = *next - BootClock::now(); left > left.zero()) {
        wake_.wait_for(lock, left, ready);
      }
      news_ = false;
      if (stopping_) return;
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  bool news_ = false, stopping_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace datawire::intermediaries
