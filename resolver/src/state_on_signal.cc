#include "datawire/state_on_signal.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <iostream>
#include <sstream>
#include <thread>

#include "snapshot_file.h"

namespace datawire {
namespace {

// A handler has no argument. The descriptor it writes to is never closed: it may still run in
// another thread when nobody wants it any more.
std::atomic<int> event{-1};
std::atomic<bool> used{false};
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void WakeWriter(int) {
  const int error = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t wrote = ::write(event.load(), &one, sizeof one);
  errno = error;
}

class Writer final : public StateOnSignal {
 public:
  Writer(Resolver& resolver, int signal, struct sigaction before, std::string file)
      : resolver_(resolver),
        signal_(signal),
        before_(before),
        file_(std::move(file)),
        thread_([this] { Run(); }) {}

  ~Writer() override {
    ::sigaction(signal_, &before_, nullptr);
    stop_ = true;
    ::eventfd_write(event, 1);
    thread_.join();
    used = false;
  }

 private:
  void Run() {
    for (eventfd_t count; ::eventfd_read(event, &count) == 0 || errno == EINTR;) {
      if (stop_) return;
      std::ostringstream state;
      resolver_.WriteState(state);
      if (file_.empty())
        std::cerr << state.str() << std::flush;
      else
        (void)resolver::WriteSnapshotFile(file_, state.str()).ok();
    }
  }

  Resolver& resolver_;
  const int signal_;
  const struct sigaction before_;
  const std::string file_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<StateOnSignal>> StateOnSignal::Open(Resolver& resolver, int signal,
                                                           std::string file) {
  if (used.exchange(true))
    return Status(Code::kConflict, "the process has a StateOnSignal already");
  if (event < 0) event = ::eventfd(0, EFD_CLOEXEC);
  struct sigaction before {
  }, action{};
  action.sa_handler = WakeWriter;
  action.sa_flags = SA_RESTART;
  const bool known = ::sigaction(signal, nullptr, &before) == 0;
  const bool taken = known && ((before.sa_flags & SA_SIGINFO) != 0 ||
                               (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN));
  if (taken || !known || ::sigaction(signal, &action, nullptr) != 0) {
    used = false;
    return taken ? Status(Code::kConflict,
                          "signal " + std::to_string(signal) + " has a handler already")
                 : Status(Code::kInvalid, "signal " + std::to_string(signal) + " cannot be caught");
  }
  return std::unique_ptr<StateOnSignal>(
      std::make_unique<Writer>(resolver, signal, before, std::move(file)));
}

}  // namespace datawire
