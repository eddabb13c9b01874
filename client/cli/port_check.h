#pragma once

#include <string>

#include "datawire/clock.h"
#include "datawire/endpoint_url.h"

namespace datawire::cli {

/// Whether an endpoint's port takes TCP connections: up with the first look that succeeds, down
/// with the second that fails in a row. Thread-compatible.
class PortCheck {
 public:
  explicit PortCheck(const EndpointUrl& url) : url_(url) {}

  /// Looks again if the last look is a second ago; takes at most another second.
  bool Up(BootTime now);
  /// Why the last look failed.
  const std::string& reason() const { return reason_; }

 private:
  const EndpointUrl url_;
  bool up_ = false;
  int failures_ = 0;
  BootTime next_{};
  std::string reason_;
};

}  // namespace datawire::cli
