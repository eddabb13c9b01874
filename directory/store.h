#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config.h"
#include "datawire/result.h"
#include "engine/log.h"
#include "ops/log.h"
#include "view/view.h"

namespace datawire::directory {

namespace etcd {
class Client;
}

/// The view and the engine of a node, as its config says: opened in order, gone in reverse.
class Store {
 public:
  /// Makes what --init, --import, --restore and --raise-epoch ask for. `ended`: the engine cannot
  /// go on (engine/etcd/etcd.h); on a thread of its own. Waits for etcd where it needs it, until
  /// `stopping` says no (kCancelled).
  static Result<std::unique_ptr<Store>> Open(const Config& config, const std::string& incarnation,
                                             Logger& logger, const std::function<bool()>& stopping,
                                             std::function<void(Status)> ended);
  ~Store();

  View& view() { return *view_; }
  Log& log() { return *log_; }

 private:
  Store();
  class TemporaryData;
  std::unique_ptr<TemporaryData> temporary_;
  std::unique_ptr<etcd::Client> client_;
  std::unique_ptr<View> view_;
  std::unique_ptr<Log> log_;
};

}  // namespace datawire::directory
