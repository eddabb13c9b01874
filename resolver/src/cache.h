#pragma once

#include <absl/container/flat_hash_set.h>

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "datawire/answer.h"
#include "datawire/clock.h"
#include "datawire/resolver.h"

namespace datawire::resolver {

using AnswerPtr = Resolver::AnswerPtr;
using Random = std::mt19937_64;

/// PROMISES "Resolver: entry states and rules"; the table is in resolver/README.md.
enum class EntryState { kAbsent, kLoading, kFresh, kRefreshing, kStale, kNegative, kError };

/// What the cache knows of the Subscribe stream. kDown: every server was tried and none answered.
enum class LinkState { kConnecting, kDown, kLive };

size_t HashOf(std::string_view address);
std::string_view EntryStateName(EntryState state);  ///< as in PROMISES: `FRESH`, `NEG`, ...

/// What a look-up says. Value.
struct Found {
  enum class Kind {
    kAnswer,  ///< `answer` is it
    kStale,   ///< wait for something newer until `until`, then show what there is
    kWait,    ///< not known, or older than asked: wait to the caller's deadline
    kFail,    ///< failed a moment ago (or there is no room): UNAVAILABLE without waiting
  };
  Kind kind = Kind::kWait;
  AnswerPtr answer;
  BootTime until{};
  bool ask = false;    ///< the directory is to be asked for it (again) now
  bool stale = false;  ///< state STALE
};

/// Where an answer came from. `on_stream`: the present stream keeps it up to date from now on.
struct Origin {
  std::string_view cluster;
  bool on_stream = false;
};

/// An answer as it goes into a snapshot, `revision` and times with the marks counted. Value.
struct Known {
  AnswerPtr answer;
  Revision revision;
  BootTime known_at, received_at;
};

/// What a new subscription tells the directory that the cache holds. Value.
struct Held {
  Revision revision;  ///< {0, 0}: nothing
  uint64_t hash = 0;
};

/// The answers of one directory cluster: no thread, lock, clock or random source. Entries appear by
/// Begin only: what a server sends unasked is refused. `hash` is HashOf(address) wherever it
/// stands. Thread-compatible.
class Cache {
 public:
  enum class Stored { kReplaced, kRefreshed, kRefused, kForeign, kUnknown };

  Cache(const ResolverPolicy& policy, size_t most_entries, size_t most_bytes);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  /// What Find would answer and all it would do, when that needs no write: for many readers at
  /// once while nobody calls anything else. Null: ask Find.
  AnswerPtr Hit(const Address& address, size_t hash, const Revision& min, BootTime now) const;
  /// Rule 4. A hit allocates nothing unless the answer's shown age is older than kAgeShown.
  Found Find(const Address& address, size_t hash, const Revision& min, BootTime now);
  /// The newest answer it holds and may show, fresh or not; null: none (an expired negative is
  /// none).
  AnswerPtr Peek(std::string_view address, size_t hash, BootTime now);
  /// For who waits: the fresh answer at least as new as `min`, right after Store just as the
  /// directory sent it; null: wait on.
  AnswerPtr Ready(std::string_view address, size_t hash, const Revision& min, BootTime now);
  EntryState StateOf(std::string_view address, size_t hash, BootTime now) const;
  Revision RevisionOf(std::string_view address, size_t hash) const;

  /// Makes the entry if there is none and holds it: a held entry is not evicted. False: no room.
  bool Begin(const Address& address, size_t hash);
  void End(std::string_view address, size_t hash);

  /// Rule 1.
  Stored Store(Answer answer, size_t hash, const Origin& origin, BootTime now, Random& random);
  /// Equal hash: what it holds is right at `at`. False: it holds nothing that this could confirm.
  bool Confirm(std::string_view address, size_t hash, const Revision& at, BootTime now);
  /// Rule 2: confirms, without touching them, all entries of the stream that are not newer.
  void Mark(const Revision& revision, std::chrono::milliseconds age, BootTime now);
  /// Rule 5: an attempt to learn failed. Starts or doubles the memo of an entry without an answer.
  void Fail(std::string_view address, size_t hash, BootTime now,
            std::optional<std::chrono::milliseconds> retry_after, Random& random);

  /// Of a snapshot: becomes a STALE entry with source "snapshot" until the directory confirms it.
  /// False: no room, held already, or another cluster's. `answer.age` is as of `now`.
  bool Restore(Answer answer, size_t hash, std::string_view cluster, BootTime received_at,
               BootTime now, Random& random);
  /// Of each answer but NOT_FOUND.
  void ForEachKnown(const std::function<void(Known known)>& visit) const;

  /// kLive clears every memo; leaving kLive starts the TTLs from the last mark.
  void SetLink(LinkState link);
  /// False: holds answers of another cluster, which stay. Otherwise this is the cluster from now
  /// on.
  bool Accepts(std::string_view cluster) const;
  void Adopt(std::string_view cluster) { cluster_ = cluster; }
  const std::string& cluster() const { return cluster_; }

  /// For a new subscription; nothing: not in the cache, so no subscription is wanted.
  std::optional<Held> HeldOf(std::string_view address, size_t hash) const;
  /// Notes that `stream` is asked for it; true: it was before, and keeps it up to date or owes it.
  bool Added(std::string_view address, size_t hash, uint64_t stream);
  void ForEach(const std::function<void(const std::string& address)>& visit) const;
  /// Each entry in words, for WriteState; a null answer is not known.
  struct View {
    const Address& address;
    EntryState state;
    const Answer* answer;
    Revision revision;
    std::chrono::milliseconds age;
    bool subscribed;
  };
  void ForEach(BootTime now, const std::function<void(const View&)>& visit) const;
  /// Addresses dropped since the last call.
  std::vector<std::string> TakeEvicted() { return std::exchange(evicted_, {}); }

  size_t entries() const { return map_.size(); }
  size_t bytes() const { return bytes_; }
  size_t negatives() const { return negative_.entries; }

 private:
  struct Entry;
  /// A ring for CLOCK: the hand is at the front.
  struct List {
    Entry* first = nullptr;
    Entry* last = nullptr;
    size_t entries = 0, bytes = 0;
  };
  using EntryPtr = std::unique_ptr<Entry>;
  struct Key {
    std::string_view text;
    size_t hash;
  };
  struct EntryHash {
    using is_transparent = void;
    size_t operator()(const Key& key) const { return key.hash; }
    size_t operator()(const EntryPtr& entry) const;
  };
  struct EntryEqual {
    using is_transparent = void;
    bool operator()(const EntryPtr& entry, const Key& key) const;
    bool operator()(const EntryPtr& a, const EntryPtr& b) const { return a == b; }
  };

  Entry* Get(std::string_view address, size_t hash) const;
  bool Fresh(const Entry& entry, BootTime now) const;
  bool MarkCovers(const Entry& entry) const;
  Revision Effective(const Entry& entry) const;
  BootTime KnownAt(const Entry& entry) const;
  bool Showable(const Entry& entry, BootTime now) const;
  const AnswerPtr& Show(Entry& entry, BootTime now);
  Found NotFresh(Entry& entry, const Revision& min, BootTime now);
  void Attach(Entry& entry);
  void Received(Entry& entry, BootTime known_at, BootTime now);
  void FoldMark(Entry& entry);
  List& HomeOf(const Entry& entry);
  void Unlink(Entry& entry);
  void Link(Entry& entry);
  bool Evict(List& list);
  void Trim();

  const ResolverPolicy policy_;
  const size_t most_entries_, most_bytes_;
  absl::flat_hash_set<EntryPtr, EntryHash, EntryEqual> map_;
  List positive_, negative_, held_;
  size_t bytes_ = 0;
  size_t answers_ = 0;  // entries with an answer
  std::vector<std::string> evicted_;
  std::string cluster_;
  LinkState link_ = LinkState::kConnecting;
  uint64_t marks_ = 0;  // of this stream and those before
  Revision mark_;
  BootTime mark_known_at_{}, mark_at_{};
};

/// An answer shows an age that is at most so much too low (its `stale` is exact): a hit needs no
/// copy of the answer only because time went on.
inline constexpr std::chrono::milliseconds kAgeShown{500};

}  // namespace datawire::resolver
