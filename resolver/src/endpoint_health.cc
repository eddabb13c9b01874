#include "datawire/endpoint_health.h"

#include <algorithm>
#include <array>
#include <tuple>

namespace datawire {
namespace {

using std::chrono::milliseconds;

milliseconds Doubled(milliseconds least, milliseconds most, uint32_t times) {
  return std::min(most, least * (int64_t{1} << std::min(times, 16u)));
}

}  // namespace

Status SelectionPolicy::Check() const {
  const auto within = [](std::string_view name, double value, double least, double most) {
    if (value >= least && value <= most) return Status::Ok();
    return Status(Code::kInvalid, "selection policy: " + std::string(name) + " is " +
                                      std::to_string(value) + ", from " + std::to_string(least) +
                                      " to " + std::to_string(most));
  };
  const auto ms = [](milliseconds value) { return static_cast<double>(value.count()); };
  const double day = ms(std::chrono::hours(24));
  DW_RETURN_IF_ERROR(within("failures", failures, 1, 1e6));
  DW_RETURN_IF_ERROR(within("refusals", refusals, 1, 1e6));
  DW_RETURN_IF_ERROR(within("ejection in ms", ms(ejection), 1, day));
  DW_RETURN_IF_ERROR(within("ejection_most in ms", ms(ejection_most), ms(ejection), day));
  DW_RETURN_IF_ERROR(within("ejected_percent", ejected_percent, 0, 100));
  DW_RETURN_IF_ERROR(within("panic_percent", panic_percent, 0, 100));
  DW_RETURN_IF_ERROR(within("overprovisioning", overprovisioning, 1, 100));
  DW_RETURN_IF_ERROR(within("slow_start in ms", ms(slow_start), 0, day));
  DW_RETURN_IF_ERROR(within("slow_start_percent", slow_start_percent, 1, 100));
  DW_RETURN_IF_ERROR(within("retry_least in ms", ms(retry_least), 1, day));
  DW_RETURN_IF_ERROR(within("retry_most in ms", ms(retry_most), ms(retry_least), day));
  return within("retry_when_all in ms", ms(retry_when_all), 1, day);
}

/// An endpoint while a lineup is made.
struct EndpointHealth::Standing {
  const Endpoint* endpoint = nullptr;
  const Record* record = nullptr;  // null: never listed
  bool draining = false, up = true, ejected = false, pardoned = false;
  BootTime back_at{};  // passed by until
  bool Usable(BootTime now) const { return !draining && (!ejected || pardoned) && back_at <= now; }
};

void EndpointHealth::Listed(std::span<const Endpoint> endpoints, BootTime now) {
  std::unordered_map<std::string, Record> former;
  former.swap(records_);
  for (const Endpoint& endpoint : endpoints) {
    const auto known = former.find(endpoint.url.text());
    Record record;
    if (known != former.end() && known->second.created == endpoint.created)
      record = known->second;
    else if (any_listed_)
      record.since = now;
    record.created = endpoint.created;
    record.up = endpoint.state == EndpointState::kUp;
    record.draining = endpoint.state == EndpointState::kDraining;
    records_.emplace(endpoint.url.text(), record);
  }
  any_listed_ |= !endpoints.empty();
}

std::optional<milliseconds> EndpointHealth::Failed(const std::string& url, Failure how,
                                                   BootTime now) {
  const auto found = records_.find(url);
  if (found == records_.end()) return std::nullopt;
  Record& record = found->second;
  if (how != Failure::kTask) {
    record.failed_at = now;
    record.out_until = now + Doubled(policy_.retry_least, policy_.retry_most, record.out_times++);
  }
  if (record.ejected_until > now) return std::nullopt;  // tried in panic
  ++record.failures;
  record.refusals = how == Failure::kRefused ? record.refusals + 1 : 0;
  if (record.failures < policy_.failures && record.refusals < policy_.refusals) return std::nullopt;
  if (!MayEject(record, now)) return std::nullopt;
  const auto inside = record.ejections > 0 ? now - record.ejected_until : BootTime::duration{};
  const auto forgotten =
      static_cast<uint32_t>(std::min<int64_t>(inside / policy_.ejection, record.ejections));
  record.ejections += 1 - forgotten;
  record.failures = record.refusals = 0;
  const milliseconds out = std::min(policy_.ejection * record.ejections, policy_.ejection_most);
  record.ejected_until = now + out;
  return out;
}

bool EndpointHealth::MayEject(const Record& one, BootTime now) const {
  size_t of = 0, out = 0;
  bool another = false;
  for (const auto& [url, record] : records_) {
    if (record.draining) continue;
    const bool ejected = record.ejected_until > now;
    ++of;
    out += ejected;
    another |= &record != &one && record.up && !ejected;
  }
  return another && out < std::max<size_t>(1, of * policy_.ejected_percent / 100);
}

void EndpointHealth::Worked(const std::string& url, BootTime now) {
  const auto found = records_.find(url);
  if (found == records_.end()) return;
  Record& record = found->second;
  record.failures = record.refusals = record.out_times = 0;
  record.out_until = std::min(record.out_until, now);
  record.ejected_until = std::min(record.ejected_until, now);
}

bool EndpointHealth::Ejected(const std::string& url, BootTime now) const {
  const auto found = records_.find(url);
  return found != records_.end() && found->second.ejected_until > now;
}

EndpointHealth::Standing EndpointHealth::StandingOf(const Endpoint& endpoint, BootTime now) const {
  Standing standing;
  standing.endpoint = &endpoint;
  standing.draining = endpoint.state == EndpointState::kDraining;
  standing.up = endpoint.state == EndpointState::kUp;
  const auto found = records_.find(endpoint.url.text());
  if (found == records_.end()) return standing;
  standing.record = &found->second;
  standing.ejected = found->second.ejected_until > now;
  standing.back_at = found->second.out_until;
  return standing;
}

EndpointHealth::Lineup EndpointHealth::LineUp(std::span<const Endpoint* const> endpoints,
                                              BootTime now) const {
  std::vector<Standing> all;
  all.reserve(endpoints.size());
  for (const Endpoint* endpoint : endpoints) all.push_back(StandingOf(*endpoint, now));
  const auto usable = [now](const Standing& one) { return one.Usable(now); };

  // Panic: of the lowest priority that has a usable up endpoint; if none has, of all.
  std::optional<uint32_t> priority;
  for (const Standing& one : all) {
    if (usable(one) && one.up && (!priority || one.endpoint->priority < *priority))
      priority = one.endpoint->priority;
  }
  size_t of = 0, good = 0;
  const auto in_use = [&](const Standing& one) {
    return one.record && !one.draining && (!priority || one.endpoint->priority == *priority);
  };
  for (const Standing& one : all) {
    of += in_use(one);
    good += in_use(one) && one.up && usable(one);
  }
  const bool panic = good * 100 < of * policy_.panic_percent;
  const bool all_out = std::none_of(all.begin(), all.end(), usable);
  for (Standing& one : all) {
    one.pardoned = panic && in_use(one);
    if (all_out && one.record)
      one.back_at = std::min(one.back_at, one.record->failed_at + policy_.retry_when_all);
  }

  Lineup lineup;
  lineup.candidates.reserve(all.size());
  for (const Standing& one : all) {
    Candidate candidate{one.endpoint};
    candidate.usable = usable(one);
    candidate.trusted = one.pardoned;
    candidate.distance = DistanceTo(*one.endpoint);
    if (one.record) candidate.ramp = RampOf(*one.record, now);
    lineup.candidates.push_back(candidate);
    if (candidate.usable || one.draining) continue;
    const bool held = one.ejected && !one.pardoned;
    const BootTime at = held ? std::max(one.back_at, one.record->ejected_until) : one.back_at;
    if (!lineup.next_change || at < *lineup.next_change) lineup.next_change = at;
  }
  Spill(all, lineup.candidates);
  return lineup;
}

double EndpointHealth::RampOf(const Record& record, BootTime now) const {
  if (!record.since || records_.size() <= policy_.slow_start_above) return 1;
  const auto age = now - *record.since;
  if (age >= policy_.slow_start) return 1;
  const double grown = std::chrono::duration<double>(age) / policy_.slow_start;
  return std::max(grown, policy_.slow_start_percent / 100.0);
}

uint8_t EndpointHealth::DistanceTo(const Endpoint& endpoint) const {
  if (own_.region.empty() && own_.zone.empty()) return 0;
  if (endpoint.region != own_.region) return 2;
  if (!own_.zone.empty() && endpoint.zone == own_.zone) return 0;
  return own_.region.empty() ? 2 : 1;
}

/// The load of each distance, as Envoy spreads it over priorities: each takes what its health is
/// worth of what the nearer ones left; when all together are not worth 1, in proportion.
void EndpointHealth::Spill(std::span<const Standing> all,
                           std::vector<Candidate>& candidates) const {
  using Group = std::tuple<bool, uint32_t, bool>;
  const auto group_of = [](const Candidate& c, bool trusted) {
    return Group(c.endpoint->state == EndpointState::kSuspect && !trusted, c.endpoint->priority,
                 c.endpoint->weight == 0);
  };
  std::optional<Group> first;
  bool apart = false;
  for (const Candidate& c : candidates) {
    apart |= c.distance != candidates.front().distance;
    if (c.usable && (!first || group_of(c, c.trusted) < *first)) first = group_of(c, c.trusted);
  }
  if (!first || !apart) return;
  const auto [suspect, priority, last_resort] = *first;

  std::array<double, kDistances> healthy{}, whole{}, load{};
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].draining || !all[i].record) continue;
    const Candidate& c = candidates[i];
    if (c.endpoint->priority != priority || (c.endpoint->weight == 0) != last_resort) continue;
    const double weight = std::max(c.endpoint->weight, 1u);
    whole[c.distance] += weight;
    if (c.usable && group_of(c, c.trusted) == *first) healthy[c.distance] += weight;
  }
  double left = 1, given = 0;
  for (size_t d = 0; d < kDistances; ++d) {
    if (whole[d] == 0) continue;
    const double worth = std::min(1.0, healthy[d] / whole[d] * policy_.overprovisioning);
    load[d] = std::min(left, worth);
    left -= load[d];
    given += load[d];
  }
  if (given == 0) return;  // only ones that are listed no more are left
  for (Candidate& c : candidates) c.load = load[c.distance] / given;
}

}  // namespace datawire
