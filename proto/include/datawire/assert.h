#pragma once

namespace datawire {

/// Prints `file:line: assertion failed: text` on stderr and aborts. Used through DW_ASSERT.
[[noreturn]] void AssertionFailed(const char* file, int line, const char* text);

}  // namespace datawire

/// A bug aborts, in release builds too; the environment's fault is a Status instead.
#define DW_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::datawire::AssertionFailed(__FILE__, __LINE__, #condition))
