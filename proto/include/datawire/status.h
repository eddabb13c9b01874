#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace datawire {

/// What went wrong, by what the caller does next. Closed list; the numbers are those of
/// `datawire.directory.v1.Code`. The one table to gRPC codes, AMQP conditions and `dw` exit codes
/// is in status.cc, documented in proto/README.md.
enum class Code {
  kOk = 0,
  kInvalid = 1,          ///< the request is wrong: mend it
  kNotFound = 2,         ///< what it names does not exist
  kConflict = 3,         ///< something else is there: look, then decide
  kDenied = 4,           ///< not allowed, or a foreign secret
  kFenced = 5,           ///< a newer attach number holds the session: stop, or raise it
  kSessionExpired = 6,   ///< the session ended: open a new one
  kAborted = 7,          ///< begin again from the start (a list whose snapshot is gone)
  kBehind = 8,           ///< this node has not reached the revision: try another
  kOverloaded = 9,       ///< try again after retry_after
  kUnavailable = 10,     ///< not reachable or not able now: try again, elsewhere first
  kTimeout = 11,         ///< the deadline passed before it was done; it was not done
  kOutcomeUnknown = 12,  ///< the deadline passed; it may have been done
  kCancelled = 13,       ///< the caller or a shutdown ended it
  kUnsupported = 14,     ///< this version does not do that
  kCorrupt = 15,         ///< stored data fails its check
  kInternal = 16,        ///< a defect of ours, reported instead of hidden
};

/// The code's name as users see it: `INVALID`, `NOT_FOUND`, ...
std::string_view CodeName(Code code);

/// A value as messages show it: in backquotes, control and non-ASCII bytes as \xNN, more than 64
/// bytes shortened to the first 40 and last 16 with `...` between. One line whatever is in it.
std::string Shown(std::string_view value);

/// OK, or a code with one line that shows the value and the rule. Value type; thread-compatible.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return {}; }

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  /// How long to wait before trying again, where the refusing side said so.
  std::optional<std::chrono::milliseconds> retry_after() const { return retry_after_; }
  Status& set_retry_after(std::chrono::milliseconds wait) {
    retry_after_ = wait;
    return *this;
  }

  /// `NOT_FOUND: message`, or `OK`.
  std::string ToString() const;

  friend bool operator==(const Status& a, const Status& b) {
    return a.code_ == b.code_ && a.message_ == b.message_;
  }

 private:
  Code code_ = Code::kOk;
  std::string message_;
  std::optional<std::chrono::milliseconds> retry_after_;
};

/// The row of the error table for one code.
struct CodeMapping {
  Code code;
  std::string_view name;            ///< `NOT_FOUND`
  int grpc;                         ///< grpc::StatusCode as a number (status.h includes no gRPC)
  std::string_view amqp_condition;  ///< `amqp:not-found`; empty for kOk
  int exit_code;                    ///< of `dw`
};

/// One row a code, in the order of the codes.
const CodeMapping& MappingOf(Code code);
/// Back from the wire; an unknown number is kInternal (a code) or kUnavailable (a gRPC code).
Code CodeFromNumber(int number);
Code CodeFromGrpc(int grpc_code);

}  // namespace datawire

#define DW_CONCAT_INNER(a, b) a##b
#define DW_CONCAT(a, b) DW_CONCAT_INNER(a, b)

/// Returns from the enclosing function when `expression`, a Status, is not OK.
#define DW_RETURN_IF_ERROR(expression)                                                  \
  do {                                                                                  \
    if (::datawire::Status dw_status = (expression); !dw_status.ok()) return dw_status; \
  } while (false)
