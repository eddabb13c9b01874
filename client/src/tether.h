#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "datawire/address.h"
#include "datawire/endpoint_url.h"
#include "datawire/limits.h"
#include "datawire/result.h"
#include "datawire/revision.h"
#include "datawire/tls_files.h"

namespace datawire {

/// What is claimed for an address. Value.
struct RegistrationSpec {
  Address address;
  EndpointUrl url;
  bool subtree = false;
  uint32_t priority = 0;
  uint32_t weight = limits::kWeightDefault;
  std::string region, zone;
  std::map<std::string, std::string> labels;
  std::string identity;  ///< that its certificate will name; empty: clients look at its CA only
};

struct TetherOptions {
  std::vector<std::string> directory;  ///< as ResolverOptions
  std::string domain, dns_server;      ///< as ResolverOptions
  TlsFiles tls;                        ///< as ResolverOptions
  std::chrono::milliseconds ttl = limits::kSessionTtlDefault;
  std::string program;  ///< empty: the process's name
};

/// The client's end of the tether: one session, its registrations, heartbeats. Connects, resumes
/// with a greater attach number, fails over between servers with a back-off of at most min(TTL/3,
/// 30 s), sends unacknowledged ops again; when the session ended, opens a new one and registers
/// everything again. The stream is opened with the first registration. Thread-safe; callbacks come
/// from its own thread, never under a lock.
class TetherClient {
 public:
  using Done = std::function<void(const Result<Revision>&)>;

  static Result<std::unique_ptr<TetherClient>> Open(TetherOptions options);
  virtual ~TetherClient() = default;  ///< Close(1 s)

  /// Keeps the endpoint registered from now on, over reconnects and new sessions. `done` runs once,
  /// with the first acknowledgement, or with a refusal that trying again would not change
  /// (kInvalid, kDenied: it is dropped then).
  virtual void Register(RegistrationSpec spec, Done done) = 0;
  virtual void Withdraw(const Address& address, const EndpointUrl& url, Done done) = 0;
  virtual void Drain(bool undo, Done done) = 0;

  /// Observer of the session's life: connected, lost, resumed, ended and why; one line for people.
  virtual void SetObserver(std::function<void(const std::string&)> observer) = 0;
  /// Hex id of the session; empty before the first welcome.
  virtual std::string session_id() const = 0;
  /// Says bye: the session ends and its endpoints go at once. Bounded by `wait`; without a
  /// directory it gives up then, and the session expires. Idempotent.
  virtual void Close(std::chrono::milliseconds wait) = 0;
};

}  // namespace datawire
