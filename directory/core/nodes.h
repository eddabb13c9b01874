#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "datawire/clock.h"
#include "datawire/directory/v1/directory.pb.h"
#include "datawire/result.h"
#include "view/view.h"

namespace datawire::directory {

namespace pb = ::datawire::directory::v1;

/// A node as the view knows it. Value.
struct KnownNode {
  std::string id;
  bool alive = false;  ///< it holds its lease; the next four are known then
  std::string incarnation, version;
  std::string address;  ///< of its native API
  int64_t started_wall_ms = 0;
  uint64_t applied = 0;  ///< revision number it said to have on its disc; 0: none
  std::vector<std::string> roles;
};

/// All nodes that live, and those that did and were not forgotten, by id. Roles are those that
/// the view names, whoever lives.
Result<std::vector<KnownNode>> ReadNodes(const View& view);
/// A node if it lives, without its roles.
Result<std::optional<KnownNode>> ReadAlive(const View& view, const std::string& id);

/// Asks other nodes, each by the address of its native API. `done` runs once, not on the caller's
/// thread, at the latest a little after `deadline`, on the real clock. Thread-safe.
class Nodes {
 public:
  template <typename Response>
  using Done = std::function<void(Result<Response>)>;

  virtual ~Nodes() = default;
  virtual void GetStatus(const std::string& address, BootTime deadline,
                         Done<pb::StatusResponse> done) = 0;
  virtual void Acknowledged(const std::string& address, const pb::AcknowledgedRequest& request,
                            BootTime deadline, Done<pb::AcknowledgedResponse> done) = 0;
  /// Ends what is under way; every `done` has run when it returns. Later calls are refused.
  virtual void Stop() = 0;
};

}  // namespace datawire::directory
