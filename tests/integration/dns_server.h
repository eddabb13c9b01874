#pragma once

#include <string>
#include <vector>

namespace datawire::testing {

/// A dnsmasq on loopback that knows the domain `example.test` and nothing else. Ends with the
/// object, and with this process.
class DnsServer {
 public:
  DnsServer();
  ~DnsServer();
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  /// Starts, or starts again on the same port, with these SRV records of `_datawire._tcp` and their
  /// TTL; returns when it serves. Each is `target,port,priority,weight`; an empty one is the target
  /// `.`; without records the name does not exist.
  void Serve(const std::vector<std::string>& records, int ttl_s = 1);
  void Kill();
  /// `127.0.0.1:PORT`.
  const std::string& address() const { return address_; }

 private:
  std::string address_, config_;
  int pid_ = -1;
};

}  // namespace datawire::testing
