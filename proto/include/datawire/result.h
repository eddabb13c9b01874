#pragma once

#include <optional>
#include <utility>

#include "datawire/assert.h"
#include "datawire/status.h"

namespace datawire {

/// A value, or the Status that says why there is none. (C++20 has no std::expected.)
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                                     // NOLINT
  Result(Status status) : status_(std::move(status)) { DW_ASSERT(!status_.ok()); }  // NOLINT

  bool ok() const { return value_.has_value(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }

  T& value() & {
    DW_ASSERT(ok());
    return *value_;
  }
  const T& value() const& {
    DW_ASSERT(ok());
    return *value_;
  }
  T value() && {
    DW_ASSERT(ok());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace datawire

/// `DW_ASSIGN(auto x, Expression());`: assigns the value, or returns the Status.
#define DW_ASSIGN(declaration, expression) \
  DW_ASSIGN_INNER(DW_CONCAT(dw_result_, __LINE__), declaration, expression)
#define DW_ASSIGN_INNER(result, declaration, expression) \
  auto result = (expression);                            \
  if (!result.ok()) return std::move(result).status();   \
  declaration = std::move(result).value()
