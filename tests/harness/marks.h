#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace datawire::harness {

/// A file of lines that survives kill -9: each is one write, appended. Thread-safe.
class Marks {
 public:
  explicit Marks(const std::string& path)
      : file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
    if (file_ < 0) std::abort();
  }
  ~Marks() { ::close(file_); }
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;

  void Line(std::string text) {
    text += '\n';
    if (::write(file_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
  }

 private:
  int file_;
};

}  // namespace datawire::harness
