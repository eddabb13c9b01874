#pragma once

#include <string>
#include <vector>

#include "datawire/result.h"
#include "engine/etcd/api.pb.h"
#include "engine/log.h"

namespace datawire::directory::etcd {

namespace api = ::etcdserverpb;

/// One revision as it came: the view's part, and the rest. Value.
struct Followed {
  Batch batch;
  std::vector<Record> slots;  ///< puts of keys that are not followed: numbers of transactions
};

/// Turns what a watch over the whole prefix says into batches: whole revisions, each once, in
/// order, none left out. On an etcd of its own every revision shows in the prefix, so that a hole
/// means that the watch lost something. Thread-compatible.
class Follower {
 public:
  Follower(uint64_t epoch, uint64_t applied) : epoch_(epoch), next_(applied + 1) {}

  /// Where a watch is to begin.
  uint64_t next() const { return next_; }
  /// After a listing at that revision.
  void Jump(uint64_t at) { next_ = at + 1; }

  /// Its batches; none if it only says how far etcd is. kAborted: revisions are missing for good,
  /// list anew. kUnavailable: the watch is to be opened again.
  Result<std::vector<Followed>> Take(const api::WatchResponse& response);

 private:
  const uint64_t epoch_;
  uint64_t next_;
};

/// All that is followed, as prefixes: what registrations depend on comes before them.
inline constexpr const char* kFollowed[] = {"q/", "s/", "t/", "p/", "d/",
                                            "a",  "f/", "g/", "l/", "n/"};
/// The first key behind all that begin with it.
std::string EndOf(std::string prefix);

/// Put to have all replicas compare themselves at its revision, and what each then found.
inline constexpr char kCheckKey[] = "b/check";
inline constexpr char kHashPrefix[] = "b/hash/";

/// False for what a view has no use for: slots, the authority, which it has itself, and kinds of a
/// later version, which a listing leaves out, too.
bool IsFollowed(std::string_view key);

}  // namespace datawire::directory::etcd
