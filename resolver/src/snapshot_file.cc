#include "snapshot_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "datawire/limits.h"

namespace datawire::resolver {
namespace {

constexpr size_t kChunk = 64 * 1024;
constexpr off_t kFileMost = 1 << 30;

struct File {
  explicit File(int f) : fd(f) {}
  ~File() {
    if (fd >= 0) ::close(fd);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const int fd;
};

Status Failed(const char* what, const std::string& path) {
  const int error = errno;
  return {error == ENOENT ? Code::kNotFound : Code::kUnavailable,
          std::string("cannot ") + what + " " + path + ": " + std::strerror(error)};
}

Status WriteAll(int fd, std::string_view bytes, const std::string& path,
                const std::function<void(std::string_view)>& step) {
  while (!bytes.empty()) {
    step("write");
    const ssize_t wrote = ::write(fd, bytes.data(), std::min(bytes.size(), kChunk));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return Failed("write", path);
    bytes.remove_prefix(static_cast<size_t>(wrote));
  }
  return {};
}

}  // namespace

Moment PresentMoment() {
  Moment moment{.now = BootClock::now(), .wall_ms = WallMillis(), .boot = {}};
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::getline(file, moment.boot);
  return moment;
}

Result<std::string> ReadSnapshotFile(const std::string& path) {
  // Not to hang on a pipe that somebody put there.
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) return Failed("open", path);
  struct stat about {};
  if (::fstat(file.fd, &about) != 0) return Failed("read", path);
  if (!S_ISREG(about.st_mode)) return Status(Code::kInvalid, path + " is no regular file");
  if (about.st_size > kFileMost)
    return Status(Code::kInvalid, path + " is " + std::to_string(about.st_size) +
                                      " bytes, at most " + std::to_string(kFileMost));
  std::string bytes(static_cast<size_t>(about.st_size), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::read(file.fd, bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failed("read", path);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}

Status WriteSnapshotFile(const std::string& path, std::string_view bytes,
                         const std::function<void(std::string_view)>& told) {
  const auto step = [&](std::string_view next) {
    if (told) told(next);
  };
  // One name, so that crashes leave no heap of them; its lock keeps processes apart.
  const std::string temporary = path + ".tmp";
  step("open");
  const File file(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (file.fd < 0) return Failed("write", temporary);
  if (::flock(file.fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return {Code::kConflict, temporary + ": another process is saving to it"};
    return Failed("lock", temporary);
  }
  // It may have been renamed between open and lock: then it is the snapshot of somebody else.
  struct stat mine {
  }, there{};
  if (::fstat(file.fd, &mine) != 0) return Failed("write", temporary);
  if (::lstat(temporary.c_str(), &there) != 0 || there.st_ino != mine.st_ino ||
      there.st_dev != mine.st_dev)
    return {Code::kConflict, temporary + ": another process saved to it just now"};
  step("truncate");
  if (::ftruncate(file.fd, 0) != 0 || ::fchmod(file.fd, 0600) != 0)
    return Failed("write", temporary);
  DW_RETURN_IF_ERROR(WriteAll(file.fd, bytes, temporary, step));
  step("fsync");
  if (::fsync(file.fd) != 0) return Failed("fsync", temporary);
  step("rename");
  if (::rename(temporary.c_str(), path.c_str()) != 0) return Failed("rename to", path);
  step("fsync folder");
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const File above(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (above.fd < 0 || ::fsync(above.fd) != 0) return Failed("fsync", folder);
  step("done");
  return {};
}

}  // namespace datawire::resolver
