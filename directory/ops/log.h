#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

namespace datawire::directory {

/// The server's log: one logfmt line a fact on stderr, `ts=... level=info msg="..." key=value`.
/// A message text that comes more than 10 times in a second is held back and counted; the next line
/// of it says how many. Thread-safe.
class Logger {
 public:
  struct Field {
    std::string_view key;
    std::string value;
  };
  using Fields = std::initializer_list<Field>;

  Logger();
  ~Logger();

  /// `message` is a fixed text: what varies goes into fields.
  void Info(std::string_view message, Fields fields = {});
  void Warn(std::string_view message, Fields fields = {});
  void Error(std::string_view message, Fields fields = {});

 private:
  void Write(int level, std::string_view message, Fields fields);

  struct Sink;
  std::unique_ptr<Sink> sink_;
};

/// A logfmt value: as it is, or quoted and escaped where it has spaces, quotes, `=` or controls.
std::string LogfmtValue(std::string_view value);

}  // namespace datawire::directory
