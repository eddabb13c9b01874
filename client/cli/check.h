#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "datawire/clock.h"
#include "datawire/result.h"
#include "datawire/selector.h"

namespace datawire::cli {

/// What `--check` asks of an endpoint. Value.
struct CheckSpec {
  enum class Kind { kTcp, kAmqp, kHttp };
  Kind kind = Kind::kTcp;
  uint16_t port = 0;  ///< of http; 0: the endpoint's
  std::string path;   ///< of http

  /// `tcp`, `amqp`, `http=[:PORT]PATH`.
  static Result<CheckSpec> Parse(std::string_view text);
};

/// When to probe, and how many results in a row count. Value.
struct CheckPolicy {
  std::chrono::milliseconds interval{2000}, timeout{1000};
  uint32_t down = 3, up = 2;
};

/// What the results of probes mean; the shell probes. Healthy with the first success; then down
/// after `down` failures in a row, up again after `up` successes in a row. Thread-compatible.
class CheckCore {
 public:
  enum class Change { kNone, kUp, kDown };
  CheckCore(const CheckPolicy& policy, uint64_t seed) : policy_(policy), random_(seed) {}

  /// The next probe is to start. One at a time; the starts are an interval +-10 % apart.
  bool Due(BootTime now) const { return !probing_ && now >= next_; }
  void Begin(BootTime now);
  /// The probe under way has had its time: a failure.
  bool Overdue(BootTime now) const { return probing_ && now - begun_ >= policy_.timeout; }
  bool probing() const { return probing_; }
  /// Of the probe under way.
  Change OnResult(bool healthy);

  bool up() const { return up_; }
  /// So many of the last results were equal.
  uint32_t in_a_row() const { return in_a_row_; }

 private:
  const CheckPolicy policy_;
  Random random_;
  bool probing_ = false, up_ = false, was_up_ = false, last_ = false;
  uint32_t in_a_row_ = 0;
  BootTime begun_{}, next_{};
};

}  // namespace datawire::cli
