#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace datawire {

/// One metric at one moment. Names and meaning: METRICS.md. Value.
struct Metric {
  std::string name;  ///< ends in `_total`: a counter; else a gauge
  std::string help;
  struct Sample {
    std::vector<std::pair<std::string, std::string>> labels;
    double value = 0;
  };
  std::vector<Sample> samples;
};

/// The Prometheus text format, version 0.0.4.
std::string MetricsText(const std::vector<Metric>& metrics);

}  // namespace datawire
