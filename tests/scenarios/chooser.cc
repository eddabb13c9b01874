#include "chooser.h"

#include <map>

namespace datawire::scenarios {

void Chooser::Told(std::shared_ptr<const Answer> answer, BootTime now) {
  answer_ = std::move(answer);
  health_.Listed(answer_->endpoints, now);
}

bool Chooser::Failed(const std::string& url, const std::string& how, BootTime now) {
  static const std::map<std::string, EndpointHealth::Failure> kHow = {
      {"refused", EndpointHealth::Failure::kRefused},
      {"lost", EndpointHealth::Failure::kLost},
      {"task", EndpointHealth::Failure::kTask}};
  const auto found = kHow.find(how);
  if (found == kHow.end()) return false;
  health_.Failed(url, found->second, now);
  return true;
}

std::vector<Chooser::Part> Chooser::Picks(BootTime now) {
  if (!answer_) return {};
  std::vector<const Endpoint*> endpoints;
  for (const Endpoint& endpoint : answer_->endpoints) endpoints.push_back(&endpoint);
  const auto candidates = health_.LineUp(endpoints, now).candidates;
  constexpr int kMessages = 20'000;
  std::vector<int> tally(candidates.size());
  for (int i = 0; i < kMessages; ++i) {
    const auto pick = Select(answer_->policy, candidates, std::to_string(i), random_);
    if (pick) ++tally[*pick];
  }
  std::vector<Part> parts;
  for (size_t i = 0; i < tally.size(); ++i) {
    if (tally[i] > 0) parts.push_back({endpoints[i]->url.text(), 100.0 * tally[i] / kMessages});
  }
  return parts;
}

std::vector<std::string> Chooser::Ejected(BootTime now) const {
  std::vector<std::string> out;
  if (!answer_) return out;
  for (const Endpoint& endpoint : answer_->endpoints) {
    if (health_.Ejected(endpoint.url.text(), now)) out.push_back(endpoint.url.text());
  }
  return out;
}

bool SetKnob(SelectionPolicy& policy, const std::string& name, double value) {
  using std::chrono::milliseconds;
  static const std::map<std::string, milliseconds SelectionPolicy::*> kTimes = {
      {"ejection", &SelectionPolicy::ejection},
      {"ejection_most", &SelectionPolicy::ejection_most},
      {"slow_start", &SelectionPolicy::slow_start}};
  static const std::map<std::string, uint32_t SelectionPolicy::*> kNumbers = {
      {"failures", &SelectionPolicy::failures},
      {"refusals", &SelectionPolicy::refusals},
      {"ejected_percent", &SelectionPolicy::ejected_percent},
      {"panic_percent", &SelectionPolicy::panic_percent}};
  if (const auto time = kTimes.find(name); time != kTimes.end())
    policy.*time->second = milliseconds(static_cast<int64_t>(value));
  else if (const auto number = kNumbers.find(name); number != kNumbers.end())
    policy.*number->second = static_cast<uint32_t>(value);
  else
    return false;
  return true;
}

}  // namespace datawire::scenarios
