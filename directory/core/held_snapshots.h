#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/ground.h"
#include "datawire/mutex.h"

namespace datawire::directory {

/// Snapshots held between the pages of one verb, 60 s each: a page token names one and where to go
/// on. Thread-safe.
class HeldSnapshots {
 public:
  /// `verb` and `several` are for refusals: "list again", "32 lists are open".
  HeldSnapshots(std::shared_ptr<Ground> ground, size_t most, std::string verb, std::string several)
      : ground_(std::move(ground)),
        most_(most),
        verb_(std::move(verb)),
        several_(std::move(several)) {}

  /// The page being made.
  struct Page {
    std::shared_ptr<View::Snapshot> snapshot;
    std::string scope;  ///< what the first page was asked for
    std::string id;
    std::string after;  ///< where it begins; empty: at the beginning
  };
  /// An empty token: a new snapshot. kAborted: it is held no more.
  Result<Page> Open(const std::string& page_token, const std::string& scope);
  /// The token of the page that begins behind `next`; empty, and it is let go, if there is none.
  /// kOverloaded: too many are held.
  Result<std::string> Keep(Page page, const std::string& next);
  /// Lets go of those whose time is over.
  void Tick(BootTime now);

 private:
  struct Held {
    std::shared_ptr<View::Snapshot> snapshot;
    std::string scope;
    BootTime until;
  };
  const std::shared_ptr<Ground> ground_;
  const size_t most_;
  const std::string verb_, several_;
  Mutex mu_;
  std::map<std::string, Held> held_ DW_GUARDED_BY(mu_);  // by random id
};

/// Of a request; 0: the most there is. kInvalid beyond that.
Result<size_t> PageSize(uint32_t asked);

}  // namespace datawire::directory
