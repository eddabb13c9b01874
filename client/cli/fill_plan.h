#pragma once

#include <cstdint>
#include <string>

#include "datawire/address.h"
#include "datawire/directory/v1/directory.pb.h"
#include "datawire/status.h"

namespace datawire::cli {

/// What `dw bench fill` registers: endpoints numbered from 0, each session a run of them, endpoint
/// `i` at address number `i % addresses`. Names and URLs depend on the numbers alone, so that a
/// second fill registers the same again, as restarted processes do. Value.
struct FillPlan {
  Address prefix;
  uint64_t endpoints = 0, sessions = 0, addresses = 0;
  uint32_t weight = 0;

  /// kInvalid: it breaks a limit of the directory.
  Status Check() const;
  /// The first endpoint of a session; that of session `sessions` is the end.
  uint64_t First(uint64_t session) const { return endpoints * session / sessions; }
  /// Calls of a session: limits::kCallRegistrations endpoints each, the last one what is left.
  uint64_t Calls(uint64_t session) const;
  /// One of them; its op id is call + 1.
  datawire::directory::v1::TetherRequest Call(uint64_t session, uint64_t call) const;
  /// `//prefix/000042/007`: a thousand to a branch.
  std::string AddressOf(uint64_t endpoint) const;
  /// `amqp://10.0.39.15:20042`: a host a session. Nobody listens there.
  std::string UrlOf(uint64_t session, uint64_t endpoint) const;
};

/// `[=====>    ]  52 %  520000 of 1000000 endpoints  28400/s`
std::string FillProgress(uint64_t done, uint64_t all, double seconds);

}  // namespace datawire::cli
