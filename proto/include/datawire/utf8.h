#pragma once

#include <cstddef>
#include <string_view>

namespace datawire {

/// How many bytes at the front of `text` are whole UTF-8 characters (RFC 3629).
size_t Utf8Prefix(std::string_view text);

}  // namespace datawire
