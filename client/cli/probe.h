#pragma once

#include <memory>
#include <optional>
#include <string>

#include "check.h"
#include "datawire/endpoint_url.h"

namespace datawire::amqp {
class Tls;
}

namespace datawire::cli {

/// Probes an endpoint on a thread of its own, one probe at a time. Thread-compatible.
class Prober {
 public:
  /// `tls`: what an amqps endpoint is probed with as AMQP.
  Prober(CheckSpec spec, EndpointUrl url, std::shared_ptr<amqp::Tls> tls)
      : spec_(std::move(spec)), url_(std::move(url)), tls_(std::move(tls)) {}
  /// Ends the probe under way; one that looks up a name is left behind.
  ~Prober();
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  /// False while the thread of the last probe, though cancelled, has not ended.
  bool Start();
  /// How the probe ended, once: empty, or why it failed. Nothing while it is under way.
  std::optional<std::string> Take();
  /// Its result is not wanted any more.
  void Cancel();

  struct Job;

 private:
  const CheckSpec spec_;
  const EndpointUrl url_;
  const std::shared_ptr<amqp::Tls> tls_;
  std::shared_ptr<Job> job_;
};

/// Whether an endpoint is healthy, as `--check` asks. Thread-compatible.
class HealthCheck {
 public:
  HealthCheck(CheckSpec spec, const CheckPolicy& policy, const EndpointUrl& url,
              std::shared_ptr<amqp::Tls> tls, uint64_t seed)
      : timeout_(policy.timeout),
        core_(policy, seed),
        prober_(std::move(spec), url, std::move(tls)) {}

  /// Starts and judges probes; does not wait.
  bool Up(BootTime now);
  /// Why the last probe failed; empty: it has not.
  const std::string& reason() const { return reason_; }
  /// `3 probes in a row`.
  std::string in_a_row() const;

 private:
  void Judge(std::string reason);

  const std::chrono::milliseconds timeout_;
  CheckCore core_;
  Prober prober_;
  bool started_ = false;  // what the core has begun
  std::string reason_;
};

}  // namespace datawire::cli
