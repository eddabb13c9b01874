#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "srv.h"

namespace datawire::resolver {

/// One look-up of a domain's SRV records by c-ares (UDP; TCP when an answer is cut short), at most
/// `timeout` long. `dns_server`: `IP:PORT`, empty: the system's (/etc/resolv.conf). Blocks; ends
/// soon after `cancel` (an eventfd, or -1) can be read.
SrvReply LookUpSrv(const std::string& domain, const std::string& dns_server,
                   std::chrono::milliseconds timeout, int cancel = -1);

/// The same on a thread of its own, which calls `done` once unless it is destroyed before.
/// Destroying it cancels and waits, for milliseconds. Bound to one thread, not that of `done`.
class SrvLookup {
 public:
  SrvLookup(std::string domain, std::string dns_server, std::function<void(SrvReply)> done);
  ~SrvLookup();
  SrvLookup(const SrvLookup&) = delete;
  SrvLookup& operator=(const SrvLookup&) = delete;

 private:
  const int cancel_;
  std::thread thread_;
};

}  // namespace datawire::resolver
