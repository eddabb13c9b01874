#pragma once

#include <fcntl.h>
#include <unistd.h>

namespace datawire {

/// Opens what a program was started without of stdin, stdout and stderr, so that no file or socket
/// of its own gets their numbers. The wrong way round: reading and writing fail as before.
inline void FillClosedStreams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
    if (::fcntl(fd, F_GETFD) < 0) ::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

}  // namespace datawire

/// Once in a program's main file. Before main is too late: gRPC opens files when it is loaded.
#define DW_FILL_CLOSED_STREAMS                                                              \
  __attribute__((section(".preinit_array"), used)) void (*const dw_fill_closed_streams)() = \
      ::datawire::FillClosedStreams
