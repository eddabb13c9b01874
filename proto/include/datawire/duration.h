#pragma once

#include <chrono>
#include <string_view>

#include "datawire/result.h"

namespace datawire {

/// `500ms`, `5s`, `2m`, `1h`, a year at most; a plain number is refused: its unit would be a guess.
Result<std::chrono::milliseconds> ParseDuration(std::string_view text);

}  // namespace datawire
