#include "datawire/status.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "datawire/assert.h"

namespace datawire {
namespace {

constexpr size_t kShownWhole = 64;
constexpr size_t kShownHead = 40;
constexpr size_t kShownTail = 16;

// proto/README.md shows the same table; a test compares them.
constexpr std::array<CodeMapping, 17> kTable = {{
    {Code::kOk, "OK", 0, "", 0},
    {Code::kInvalid, "INVALID", 3, "amqp:invalid-field", 1},
    {Code::kNotFound, "NOT_FOUND", 5, "amqp:not-found", 2},
    {Code::kConflict, "CONFLICT", 6, "amqp:precondition-failed", 1},
    {Code::kDenied, "DENIED", 7, "amqp:unauthorized-access", 5},
    {Code::kFenced, "FENCED", 9, "amqp:resource-locked", 5},
    {Code::kSessionExpired, "SESSION_EXPIRED", 16, "amqp:resource-deleted", 4},
    {Code::kAborted, "ABORTED", 10, "datawire:aborted", 4},
    {Code::kBehind, "BEHIND", 11, "datawire:behind", 4},
    {Code::kOverloaded, "OVERLOADED", 8, "amqp:resource-limit-exceeded", 4},
    {Code::kUnavailable, "UNAVAILABLE", 14, "datawire:unavailable", 4},
    {Code::kTimeout, "TIMEOUT", 4, "datawire:timeout", 6},
    {Code::kOutcomeUnknown, "OUTCOME_UNKNOWN", 2, "datawire:outcome-unknown", 8},
    {Code::kCancelled, "CANCELLED", 1, "datawire:cancelled", 130},
    {Code::kUnsupported, "UNSUPPORTED", 12, "amqp:not-implemented", 4},
    {Code::kCorrupt, "CORRUPT", 15, "datawire:corrupt", 4},
    {Code::kInternal, "INTERNAL", 13, "amqp:internal-error", 4},
}};

void AppendEscaped(std::string_view bytes, std::string& out) {
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
      continue;
    }
    char hex[8];
    std::snprintf(hex, sizeof hex, "\\x%02x", byte);
    out += hex;
  }
}

}  // namespace

std::string_view CodeName(Code code) {
  return MappingOf(code).name;
}

std::string Shown(std::string_view value) {
  std::string shown = "`";
  if (value.size() <= kShownWhole) {
    AppendEscaped(value, shown);
  } else {
    AppendEscaped(value.substr(0, kShownHead), shown);
    shown += "...";
    AppendEscaped(value.substr(value.size() - kShownTail), shown);
  }
  return shown + "`";
}

std::string Status::ToString() const {
  std::string text(CodeName(code_));
  if (!ok() && !message_.empty()) text.append(": ").append(message_);
  return text;
}

const CodeMapping& MappingOf(Code code) {
  const auto index = static_cast<size_t>(code);
  DW_ASSERT(index < kTable.size());
  return kTable[index];
}

Code CodeFromNumber(int number) {
  // A negative number is a huge size_t.
  if (static_cast<size_t>(number) >= kTable.size()) return Code::kInternal;
  return static_cast<Code>(number);
}

Code CodeFromGrpc(int grpc_code) {
  const auto* row = std::find_if(kTable.begin(), kTable.end(),
                                 [&](const CodeMapping& m) { return m.grpc == grpc_code; });
  return row == kTable.end() ? Code::kUnavailable : row->code;
}

}  // namespace datawire
