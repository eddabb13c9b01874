#include "discovery.h"

#include <utility>

namespace datawire::resolver {

Discovery::Discovery(const DirectoryPlace& place, uint64_t seed, std::function<void(SrvReply)> told)
    : domain_(place.domain),
      dns_server_(place.dns_server),
      seed_(seed),
      told_(std::move(told)),
      random_(seed) {
  if (domain_.empty()) schedule_.Asked(BootTime{});  // and never learnt
}

void Discovery::Tick(BootTime now) {
  if (now < next_at()) return;
  schedule_.Asked(now);
  lookup_ = std::make_unique<SrvLookup>(domain_, dns_server_, told_);
}

Result<std::vector<Server>> Discovery::Take(const SrvReply& reply, BootTime now) {
  lookup_.reset();
  auto servers = ServersOf(reply, domain_, seed_);
  if (servers.ok())
    schedule_.Learnt(reply.ttl, now, random_);
  else
    schedule_.Failed(now, random_);
  return servers;
}

}  // namespace datawire::resolver
