#include "ops/process.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "datawire/clock.h"
#include "datawire/mutex.h"

namespace datawire::directory {
namespace {

constexpr std::chrono::milliseconds kPoll{100};
constexpr std::chrono::milliseconds kStopMost{4800};  // of the 5 s a stop may take

sigset_t Handled() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

/// The next signal, or 0 after kPoll.
int Next(const sigset_t& set) {
  const timespec wait{0, std::chrono::nanoseconds(kPoll).count()};
  const int signal = ::sigtimedwait(&set, nullptr, &wait);
  return signal > 0 ? signal : 0;
}

}  // namespace

uint64_t RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlimit raised{limit.rlim_max, limit.rlim_max};
  return ::setrlimit(RLIMIT_NOFILE, &raised) == 0 ? raised.rlim_cur : limit.rlim_cur;
}

ProcessUse ReadProcessUse() {
  ProcessUse use;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) use.open_files_most = limit.rlim_cur;
  std::error_code error;
  for (std::filesystem::directory_iterator one("/proc/self/fd", error), end; one != end && !error;
       one.increment(error)) {
    ++use.open_files;
  }
  uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  use.resident_bytes = resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return use;
}

struct Signals::State {
  std::function<void(const char*)> late;
  std::atomic<bool> stopping{false}, finished{false};
  Mutex mutex;
  Condition wake;
  int first DW_GUARDED_BY(mutex) = 0;
  bool interrupted DW_GUARDED_BY(mutex) = false;
  std::thread thread;

  void Run() {
    const sigset_t set = Handled();
    int signal = 0;
    while (signal == 0) {
      if (finished) return;
      signal = Next(set);
    }
    const BootTime deadline = BootClock::now() + kStopMost;
    stopping = true;
    {
      const MutexLock lock(mutex);
      first = signal;
    }
    wake.notify_all();
    while (!finished) {
      const bool again = Next(set) != 0;
      if (!again && BootClock::now() < deadline) continue;
      late(again ? "a second signal" : "stopping took too long");
      ::_exit(1);
    }
  }
};

Signals::Signals(std::function<void(const char* why)> late) : state_(std::make_unique<State>()) {
  ::signal(SIGPIPE, SIG_IGN);
  const sigset_t set = Handled();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  state_->late = std::move(late);
  state_->thread = std::thread([this] { state_->Run(); });
}

Signals::~Signals() {
  state_->finished = true;
  state_->thread.join();
}

bool Signals::stopping() const {
  return state_->stopping;
}

int Signals::Wait() {
  MutexLock lock(state_->mutex);
  state_->wake.wait(lock, [this]() DW_REQUIRES(state_->mutex) {
    return state_->first != 0 || state_->interrupted;
  });
  state_->interrupted = false;
  return state_->first;
}

void Signals::Interrupt() {
  {
    const MutexLock lock(state_->mutex);
    state_->interrupted = true;
  }
  state_->wake.notify_all();
}

}  // namespace datawire::directory
