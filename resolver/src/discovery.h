#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "datawire/resolver.h"
#include "srv.h"
#include "srv_lookup.h"

namespace datawire::resolver {

/// Keeps the list of servers that a domain names up to date for who runs it: asks when its schedule
/// says so, on a thread of that look-up, and never replaces a list by a failure. For a place
/// without a domain it does nothing. Bound to one thread.
class Discovery {
 public:
  /// `told` runs on the look-up's thread and hands the reply to Take, on this one's.
  Discovery(const DirectoryPlace& place, uint64_t seed, std::function<void(SrvReply)> told);

  BootTime next_at() const { return schedule_.next_at(); }  ///< when Tick is due
  void Tick(BootTime now);
  /// The servers, Ordered, from now on; or why the list there was is kept.
  Result<std::vector<Server>> Take(const SrvReply& reply, BootTime now);
  void AllServersFailed() { schedule_.AllServersFailed(); }

 private:
  const std::string domain_, dns_server_;
  const uint64_t seed_;
  const std::function<void(SrvReply)> told_;
  std::mt19937_64 random_;
  SrvSchedule schedule_;
  std::unique_ptr<SrvLookup> lookup_;
};

}  // namespace datawire::resolver
