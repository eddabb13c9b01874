#include "datawire/duration.h"

#include <charconv>

namespace datawire {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kDurationMost = std::chrono::hours(24 * 365);

}  // namespace

Result<milliseconds> ParseDuration(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = text.substr(end - text.data());
  const uint64_t factor = unit == "ms"  ? 1
                          : unit == "s" ? 1000
                          : unit == "m" ? 60'000
                          : unit == "h" ? 3'600'000
                                        : 0;
  if (error != std::errc() || text.empty() || factor == 0)
    return Status(Code::kInvalid, "duration " + Shown(text) +
                                      " is not a whole number with a unit: 500ms, 5s, 2m, 1h");
  if (number > static_cast<uint64_t>(kDurationMost.count()) / factor)
    return Status(Code::kInvalid, "duration " + Shown(text) + " is more than 8760h");
  return milliseconds(number * factor);
}

}  // namespace datawire
