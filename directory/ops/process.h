#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace datawire::directory {

/// Raises the soft limit of open files to the hard one; returns what holds now.
uint64_t RaiseFileLimit();

/// Open files and resident memory of this process, for /metrics. Value.
struct ProcessUse {
  uint64_t open_files = 0, open_files_most = 0;
  uint64_t resident_bytes = 0;
};
ProcessUse ReadProcessUse();

/// SIGTERM and SIGINT on a thread of its own; SIGPIPE ignored. Made before any other thread, so
/// that all of them inherit the mask. Thread-safe.
class Signals {
 public:
  /// From the first signal on the program has so long to end; then, or at a second signal, the
  /// process exits at once with code 1. `late` runs just before and must be quick.
  explicit Signals(std::function<void(const char* why)> late);
  ~Signals();

  bool stopping() const;
  /// Waits for the first signal; returns its number. 0: Interrupt was called.
  int Wait();
  /// From any thread: one Wait, this or the next, returns.
  void Interrupt();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace datawire::directory
