#include "console.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "arguments.h"

namespace datawire::cli {
namespace {

// A signal handler has no other way to reach its process; any thread may ask what it caught.
std::atomic<int> caught_signal{0};
std::atomic<bool> catching{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);
int signal_pipe[2] = {-1, -1};
std::atomic<int> write_error{0};
std::mutex print_mutex, tell_mutex;

void OnSignal(int signal) {
  if (!catching || caught_signal) ::_exit(kExitInterrupted);
  caught_signal = signal;
  const int saved = errno;
  [[maybe_unused]] const ssize_t written = ::write(signal_pipe[1], "s", 1);
  errno = saved;
}

// A pipe that poll calls writable takes so many bytes without blocking.
constexpr size_t kWriteMost = 4096;

// Waits until `fd` takes bytes. False when a signal came first.
bool WaitWritable(int fd) {
  pollfd wanted[2] = {{.fd = fd, .events = POLLOUT, .revents = 0},
                      {.fd = signal_pipe[0], .events = POLLIN, .revents = 0}};
  for (;;) {
    if (::poll(wanted, 1, 0) > 0) return true;
    if (caught_signal) return false;
    ::poll(wanted, 2, -1);
  }
}

// 0, or the errno of the failure; ECANCELED for a signal that came while nobody read.
int WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    if (!WaitWritable(fd)) return ECANCELED;
    const ssize_t n = ::write(fd, text.data(), std::min(text.size(), kWriteMost));
    if (n < 0 && errno != EINTR && errno != EAGAIN) return errno;
    if (n > 0) text.remove_prefix(n);
  }
  return 0;
}

}  // namespace

Console::Console() : shows_progress_(::isatty(STDERR_FILENO) == 1) {
  ::signal(SIGPIPE, SIG_IGN);
  if (::pipe2(signal_pipe, O_CLOEXEC) != 0) signal_pipe[0] = signal_pipe[1] = -1;
  struct sigaction action {};
  action.sa_handler = OnSignal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction before {};
  ::sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) ::sigaction(SIGHUP, &action, nullptr);  // nohup
}

bool Console::Print(std::string_view text) {
  std::lock_guard lock(print_mutex);
  if (write_error != 0) return false;
  write_error = WriteAll(STDOUT_FILENO, text);
  return write_error == 0;
}

bool Console::ReaderGone() {
  pollfd stdout_state{.fd = STDOUT_FILENO, .events = 0, .revents = 0};
  if (::poll(&stdout_state, 1, 0) <= 0 || (stdout_state.revents & (POLLERR | POLLHUP)) == 0)
    return false;
  std::lock_guard lock(print_mutex);
  if (write_error == 0) write_error = EPIPE;
  return true;
}

void Console::Tell(std::string_view line) {
  std::string text = "dw: ";
  for (const char c : line) text += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  text += '\n';
  std::lock_guard lock(tell_mutex);
  if (shows_progress_) text.insert(0, "\r\033[K");
  WriteAll(STDERR_FILENO, text);
}

void Console::Progress(std::string_view text) {
  if (!shows_progress_) return;
  std::lock_guard lock(tell_mutex);
  WriteAll(STDERR_FILENO, "\r\033[K" + std::string(text));
}

void Console::CatchSignals() {
  catching = true;
}

int Console::signal() const {
  return caught_signal;
}

int Console::Wait(std::chrono::milliseconds wait) {
  pollfd wanted{.fd = signal_pipe[0], .events = POLLIN, .revents = 0};
  if (!caught_signal) ::poll(&wanted, 1, static_cast<int>(wait.count()));
  return caught_signal;
}

bool Console::WaitForInput(std::chrono::milliseconds wait) {
  pollfd wanted[2] = {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                      {.fd = signal_pipe[0], .events = POLLIN, .revents = 0}};
  while (!caught_signal) {
    const int n = ::poll(wanted, 2, static_cast<int>(wait.count()));
    if (n > 0 && wanted[0].revents != 0) return true;
    if (n == 0) return false;
  }
  return false;
}

int Console::Finish(int exit_code) {
  const int error = write_error;
  if (error == 0 || error == EPIPE || error == ECANCELED) return exit_code;
  Tell(std::string("stdout cannot be written: ") + std::strerror(error));
  return exit_code == 0 ? 1 : exit_code;
}

}  // namespace datawire::cli
