#pragma once

#include <string>
#include <string_view>

#include "datawire/status.h"

namespace datawire {

/// The rules that the domain of an address and the host of an endpoint share; ASCII in lower case.
/// Messages begin with `what` ("address", "endpoint URL") and end with the whole value, shown.

/// Dot-separated labels of a-z 0-9 - _, each 1-63 bytes, no hyphen at an end; 253 bytes in all.
/// The rule that `name` breaks, for a message; empty: none. That the last label is not all digits
/// is the caller's to check.
std::string BrokenLabelRule(std::string_view name);

/// The first control, blank or non-ASCII byte of `text`, and each byte of `refused`, is an error.
Status CheckBytes(std::string_view text, std::string_view refused, std::string_view what);

/// Shown(), but what stands before an '@' in the authority, a password perhaps, as `...`.
std::string ShownName(std::string_view text);

bool IsDigits(std::string_view text);  ///< at least one, and nothing else
std::string_view LastLabel(std::string_view name);
std::string LowerAscii(std::string_view text);

}  // namespace datawire
