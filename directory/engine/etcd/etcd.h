#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/etcd/client.h"
#include "engine/log.h"
#include "view/view.h"

namespace datawire::directory {

/// How a node takes part in a cluster. Value.
struct EtcdOptions {
  std::string node_id;
  std::string incarnation;  ///< one run of the process; random
  bool importing = false;   ///< the etcd has no authority yet: it gets one when it is filled
  /// The engine cannot go on, told on a thread of its own; once. kAborted: open the view anew and
  /// begin again. Else the program must end: kFenced, another run of this node has taken over.
  std::function<void(Status)> ended;
};

/// Whose data an etcd holds, asked of one member after another for so long. kNotFound: nobody's
/// yet, and it is empty. kConflict: it holds keys that are not a directory's.
Result<View::Authority> ReadEtcdAuthority(etcd::Client& client, std::chrono::milliseconds most);
/// Makes it the etcd of a new cluster. kConflict: it is one's already.
Status InitEtcdAuthority(etcd::Client& client, const View::Authority& authority,
                         std::chrono::milliseconds most);

/// After etcd was restored from a backup: what anybody knows of before counts as older.
Result<View::Authority> RaiseEtcdEpoch(etcd::Client& client, std::chrono::milliseconds most);

/// The log of a cluster (CLUSTER.md): etcd orders and keeps, the view follows its watch. An empty
/// view is listed first: Log::Ready says when it can be read. `client` and `view` outlive it.
Result<std::unique_ptr<Log>> OpenEtcd(etcd::Client& client, View& view, EtcdOptions options);

}  // namespace datawire::directory
