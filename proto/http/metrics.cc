#include "http/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <sstream>

namespace datawire {

std::string MetricsText(const std::vector<Metric>& metrics) {
  std::vector<prometheus::MetricFamily> families;
  families.reserve(metrics.size());
  for (const Metric& metric : metrics) {
    prometheus::MetricFamily& family = families.emplace_back();
    family.name = metric.name;
    family.help = metric.help;
    const bool counter = metric.name.ends_with("_total");
    family.type = counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
    for (const Metric::Sample& sample : metric.samples) {
      prometheus::ClientMetric& one = family.metric.emplace_back();
      for (const auto& [name, value] : sample.labels) one.label.push_back({name, value});
      (counter ? one.counter.value : one.gauge.value) = sample.value;
    }
  }
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

}  // namespace datawire
