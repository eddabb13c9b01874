#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "datawire/status.h"

namespace datawire::cli {

/// What the process writes and which signals reach it. One per process. Writing is thread-safe.
class Console {
 public:
  Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  /// Data, on stdout, at once. False when stdout takes no more: nobody reads it (which is no
  /// error), it is full, or a signal came while its reader did not read.
  bool Print(std::string_view text);
  /// Whether the reader of stdout is gone, without writing to it.
  bool ReaderGone();
  /// A line on stderr, `dw: ...`. Control characters are shown, so it stays one line.
  void Tell(std::string_view line);
  /// Progress, over itself, if stderr is a terminal.
  void Progress(std::string_view text);

  /// From now on SIGINT, SIGTERM and SIGHUP are for Wait; a second one ends the process. Until then
  /// the first ends it, at once; the exit code is 130 in each case.
  void CatchSignals();
  /// The signal that came, or 0 after `wait`.
  int Wait(std::chrono::milliseconds wait);
  /// The same without waiting.
  int signal() const;
  /// Waits until stdin can be read; false after `wait` (negative: no end), or when a signal came.
  bool WaitForInput(std::chrono::milliseconds wait);

  /// The exit code, unless stdout could not be written.
  int Finish(int exit_code);

 private:
  bool shows_progress_ = false;
};

}  // namespace datawire::cli
