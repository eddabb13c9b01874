#pragma once

#include <string>

#include "datawire/clock.h"

namespace datawire::directory {

class Directory;
class GrpcServer;
class Log;
class View;

/// Gathers what /metrics shows from the parts; names and meaning: ops/METRICS.md. They outlive it.
/// Thread-safe.
struct ServerMetrics {
  const View& view;
  const Log& log;
  Directory& directory;
  const GrpcServer& grpc;
  const BootTime started;

  /// The Prometheus text format.
  std::string Text(BootTime now) const;
};

}  // namespace datawire::directory
