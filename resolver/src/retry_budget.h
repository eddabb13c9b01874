#pragma once

#include <algorithm>
#include <optional>

#include "datawire/clock.h"
#include "datawire/resolver.h"

namespace datawire::resolver {

/// P26: a bucket of tokens, one a retry; each call adds retry_percent of one, each second
/// retry_per_second. It holds one second's worth and a hundred calls', so that a quiet hour does
/// not pay for a storm. Thread-compatible.
class RetryBudget {
 public:
  explicit RetryBudget(const ResolverPolicy& policy)
      : a_call_(policy.retry_percent / 100),
        a_second_(policy.retry_per_second),
        tokens_(policy.retry_per_second) {}

  void Called(size_t calls) { Add(static_cast<double>(calls) * a_call_); }
  /// False: not before next_at().
  bool Take(BootTime now) {
    if (at_) Add(std::chrono::duration<double>(now - *at_).count() * a_second_);
    at_ = now;
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }
  /// After Take said no: when time alone will have brought a token.
  BootTime next_at() const {
    const std::chrono::duration<double> wait((1 - tokens_) / a_second_);
    return *at_ + std::chrono::ceil<std::chrono::milliseconds>(wait);
  }

 private:
  void Add(double tokens) {
    tokens_ = std::min(tokens_ + tokens, std::max(1.0, a_second_ + 100 * a_call_));
  }

  const double a_call_, a_second_;
  double tokens_;
  std::optional<BootTime> at_;
};

}  // namespace datawire::resolver
