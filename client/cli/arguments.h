#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "check.h"
#include "completion.h"
#include "datawire/duration.h"
#include "datawire/result.h"
#include "datawire/revision.h"
#include "datawire/tls_files.h"

namespace datawire::cli {

/// Exit codes that are no row of the error table.
inline constexpr int kExitNoneUp = 3;
inline constexpr int kExitStale = 7;
inline constexpr int kExitNotAccepted = 8;
inline constexpr int kExitInterrupted = 130;

enum class Format { kTable, kWide, kShort, kJson, kJsonLines, kName };

/// What a command line says, as values. The verb's own arguments are checked where they are used.
struct Arguments {
  std::string verb;
  std::vector<std::string> directory;  ///< empty: found as the resolver does
  TlsFiles tls;                        ///< likewise
  std::chrono::milliseconds timeout{5000};
  std::chrono::milliseconds wait{0};
  Format format = Format::kTable;

  std::vector<std::string> words;    ///< positional arguments
  std::vector<std::string> command;  ///< of `register ... -- COMMAND`
  std::optional<std::chrono::milliseconds> max_stale;
  std::optional<Revision> min_revision, after;
  bool is_static = false, subtree = false, sessions = false, presettled = false;
  bool trace = false, pull = false;
  bool merge = false, cluster = false;
  bool acknowledged = false, undo = false;
  uint32_t priority = 0, weight = 0;
  std::string region, zone, identity, listen;
  std::map<std::string, std::string> labels;
  std::optional<CheckSpec> check;
  CheckPolicy check_policy;
  std::chrono::milliseconds ttl{15000};
  uint64_t count = 0;  ///< 0: no end

  struct Bench {
    uint64_t endpoints = 0, sessions = 0;
    uint64_t connections = 0;  ///< 0: as many as it takes
    uint64_t addresses = 0;    ///< 0: one an endpoint
    std::string prefix = "//bench";
    uint64_t messages = 0, bytes = 0;  ///< of `link`
    std::string broker;
    bool hold = false;
    std::optional<std::chrono::milliseconds> keep;
  } bench;
  bool follow = false;
  std::string address, session, expect;  ///< of audit, as they were typed
  std::optional<uint64_t> lines;
  std::optional<std::chrono::milliseconds> since;
};

/// Parses the command line. The text of --help or --version goes to `help`. kInvalid: one line.
Result<Arguments> ParseArguments(int argc, const char* const* argv, std::string* help);

/// What ParseArguments takes.
CommandShape ShapeOfDw();

/// `E:N`.
Result<Revision> ParseRevision(std::string_view text);

}  // namespace datawire::cli
