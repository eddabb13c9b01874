#pragma once

#include <memory>

#include "datawire/resolver.h"

namespace grpc {
class Channel;
class ChannelCredentials;
}  // namespace grpc

namespace datawire {

/// The label of an endpoint that speaks gRPC, too: `PORT` on its URL's host, or `HOST:PORT`. One
/// without it, or with another value, is passed by.
inline constexpr char kGrpcLabel[] = "grpc";

/// gRPC channels to the endpoints of an address, as they are now: one that goes is left, one that
/// comes is used, and what stays keeps its connection. At most 8 endpoints at a time, as a sender's
/// links. Thread-safe.
class FollowedChannel {
 public:
  /// The channel for one call. Not to be kept for the next: each is chosen by the address's policy
  /// (priority and weight; `consistent` as `balanced`, for there is no key) among those that are
  /// connected, else those that did not fail to. Calls in progress go on, whatever happens to the
  /// endpoint's registration. kUnavailable: there is no endpoint that speaks gRPC, or none is known
  /// yet; only for the first answer it waits, as long as the resolver's deadline.
  virtual Result<std::shared_ptr<grpc::Channel>> channel() = 0;
  /// Not inside a callback of the resolver.
  virtual ~FollowedChannel() = default;
};

/// Never null; must be destroyed before the resolver. `credentials`, of all channels: not null.
std::unique_ptr<FollowedChannel> FollowChannel(
    Resolver& resolver, const Address& address,
    std::shared_ptr<grpc::ChannelCredentials> credentials);

}  // namespace datawire
