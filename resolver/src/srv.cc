#include "srv.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "datawire/endpoint_url.h"
#include "datawire/limits.h"
#include "datawire/selector.h"

namespace datawire::resolver {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr seconds kTtlLeast{5}, kTtlMost{600}, kFailureLeast{1}, kFailureMost{60};
constexpr double kWeightZero = 0.01;

uint64_t Mixed(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

double Score(const Server& server, uint64_t seed) {
  const uint64_t hash = Mixed(StableHash(server.name) ^ Mixed(seed));
  const double u = (static_cast<double>(hash >> 11) + 0.5) / 9007199254740992.0;  // in (0, 1)
  return -std::log(u) / (server.weight == 0 ? kWeightZero : server.weight);
}

nanoseconds Drawn(nanoseconds time, double from, double to, std::mt19937_64& random) {
  return nanoseconds(
      static_cast<int64_t>(static_cast<double>(time.count()) *
                           std::uniform_real_distribution<double>(from, to)(random)));
}

}  // namespace

std::vector<Server> Equals(const std::vector<std::string>& names) {
  std::vector<Server> servers;
  for (const std::string& name : names) servers.push_back({.name = name});
  return servers;
}

std::vector<Server> Ordered(std::vector<Server> servers, uint64_t seed) {
  std::sort(servers.begin(), servers.end(), [&](const Server& a, const Server& b) {
    if (a.priority != b.priority) return a.priority < b.priority;
    const double score_a = Score(a, seed), score_b = Score(b, seed);
    return score_a != score_b ? score_a < score_b : a.name < b.name;
  });
  std::set<std::string> there;
  std::erase_if(servers, [&](const Server& s) { return !there.insert(s.name).second; });
  return servers;
}

std::string SrvName(std::string_view domain) {
  return "_datawire._tcp." + std::string(domain);
}

Result<std::vector<Server>> ServersOf(const SrvReply& reply, std::string_view domain,
                                      uint64_t seed) {
  DW_RETURN_IF_ERROR(reply.status);
  std::vector<Server> servers;
  for (const SrvRecord& record : reply.records) {
    std::string host = record.target;
    if (host.ends_with('.')) host.pop_back();
    const auto parsed = HostPort::Parse(host + ":" + std::to_string(record.port));
    if (parsed.ok() && parsed->port != 0)
      servers.push_back({parsed->ToString(), record.priority, record.weight});
  }
  if (servers.empty())
    return Status(Code::kUnavailable,
                  "DNS: " + SrvName(domain) + " names no directory server: none of its " +
                      std::to_string(reply.records.size()) + " SRV records has a host and a port");
  servers = Ordered(std::move(servers), seed);
  std::map<uint32_t, size_t> there;
  std::erase_if(servers, [&](const Server& server) {
    return ++there[server.priority] > limits::kDirectoryServersOfPriority;
  });
  if (servers.size() > limits::kDirectoryServers) servers.resize(limits::kDirectoryServers);
  return servers;
}

void SrvSchedule::Asked(BootTime now) {
  asked_at_ = now;
  asking_ = true;
  next_at_ = BootTime::max();
}

void SrvSchedule::Learnt(seconds ttl, BootTime now, std::mt19937_64& random) {
  asking_ = false;
  failures_ = 0;
  next_at_ = now + Drawn(std::clamp(ttl, kTtlLeast, kTtlMost), 0.9, 1.0, random);
}

void SrvSchedule::Failed(BootTime now, std::mt19937_64& random) {
  asking_ = false;
  const seconds wait = std::min(kFailureMost, kFailureLeast * (1 << std::min(failures_++, 16u)));
  next_at_ = now + Drawn(wait, 0.8, 1.2, random);
}

void SrvSchedule::AllServersFailed() {
  if (!asking_) next_at_ = std::min(next_at_, asked_at_ + kTtlLeast);
}

}  // namespace datawire::resolver
