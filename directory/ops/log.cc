#include "ops/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "datawire/clock.h"
#include "datawire/mutex.h"

namespace datawire::directory {
namespace {

constexpr int kLinesASecond = 10;
constexpr size_t kTexts = 256;  // fixed texts there are; more is a defect, not a reason to grow

}  // namespace

std::string LogfmtValue(std::string_view value) {
  const bool plain = !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
  });
  if (plain) return std::string(value);
  std::string quoted = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(c));
      quoted += hex;
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

struct Logger::Sink {
  struct Rate {
    BootTime since{};
    int lines = 0;
    uint64_t held_back = 0;
  };

  /// False: hold the line back. Else `*held_back` is how many were before it.
  bool Admit(std::string_view text, BootTime now, uint64_t* held_back) {
    const MutexLock lock(mutex);
    if (rates.size() >= kTexts && rates.find(text) == rates.end()) rates.clear();
    Rate& rate = rates.try_emplace(std::string(text)).first->second;
    if (now - rate.since >= std::chrono::seconds(1)) {
      rate.since = now;
      rate.lines = 0;
    }
    if (++rate.lines > kLinesASecond) {
      ++rate.held_back;
      return false;
    }
    *held_back = std::exchange(rate.held_back, 0);
    return true;
  }

  spdlog::logger logger{"directory", std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  Mutex mutex;
  std::map<std::string, Rate, std::less<>> rates DW_GUARDED_BY(mutex);
};

Logger::Logger() : sink_(std::make_unique<Sink>()) {
  sink_->logger.set_pattern("ts=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v", spdlog::pattern_time_type::utc);
  sink_->logger.flush_on(spdlog::level::info);
}

Logger::~Logger() = default;

void Logger::Info(std::string_view message, Fields fields) {
  Write(spdlog::level::info, message, fields);
}

void Logger::Warn(std::string_view message, Fields fields) {
  Write(spdlog::level::warn, message, fields);
}

void Logger::Error(std::string_view message, Fields fields) {
  Write(spdlog::level::err, message, fields);
}

void Logger::Write(int level, std::string_view message, Fields fields) {
  uint64_t held_back = 0;
  if (!sink_->Admit(message, BootClock::now(), &held_back)) return;
  std::string line = "msg=" + LogfmtValue(message);
  for (const Field& field : fields) {
    line.append(" ").append(field.key).append("=").append(LogfmtValue(field.value));
  }
  if (held_back > 0) line += " held_back=" + std::to_string(held_back);
  sink_->logger.log(static_cast<spdlog::level::level_enum>(level), "{}", line);
}

}  // namespace datawire::directory
