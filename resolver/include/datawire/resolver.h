#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "datawire/answer.h"
#include "datawire/limits.h"
#include "datawire/result.h"
#include "datawire/tls_files.h"

namespace datawire {

/// Cache and retry rules; every number and its source: PROMISES "Resolver: entry states and rules",
/// resolver/README.md. Value.
struct ResolverPolicy {
  std::chrono::milliseconds positive_ttl = limits::kPositiveTtl;
  std::chrono::milliseconds negative_ttl = limits::kNegativeTtl;
  std::chrono::milliseconds failure_memo_least{1000}, failure_memo_most{30000};  // RFC 9520
  std::chrono::milliseconds stale_answer_after{100};                             // RFC 8767
  std::chrono::milliseconds max_stale = std::chrono::hours(24);                  // RFC 8767
  std::chrono::milliseconds deadline = limits::kResolveDeadline;
  std::chrono::milliseconds connect_timeout{1000};
  std::chrono::milliseconds reconnect_least{250}, reconnect_most{30000};
  std::chrono::milliseconds stream_silence = limits::kStreamSilence;
  size_t cache_entries = limits::kCacheEntries;
  size_t cache_bytes = limits::kCacheBytes;
};

struct ResolverOptions {
  /// `host:port` each; empty: found as DESIGN says ($DATAWIRE_DIRECTORY, config files,
  /// 127.0.0.1:7400; the first that is configured is used alone).
  std::vector<std::string> directory;
  TlsFiles tls;  ///< none: found as `directory` is, then plaintext
  ResolverPolicy policy;
  /// The cache outlives the process here: kept up to date, and read at the start, when it may be
  /// that no server is up. Processes may share it: the last to save wins. Empty: none.
  std::string snapshot_file;
  /// Refuses a snapshot of another cluster. Empty: takes any, and then no other cluster's servers.
  std::string snapshot_cluster;
};

struct ResolveOptions {
  std::chrono::milliseconds deadline{0};  ///< 0: the policy's
  Revision min_revision;                  ///< wait for state at least this new (P5)
};

struct ResolverStats {
  uint64_t hits = 0, misses = 0, coalesced = 0, stale_served = 0, negatives = 0, unavailable = 0;
  uint64_t pushes = 0, refused = 0, streams_opened = 0, streams_lost = 0, failovers = 0;
  uint64_t entries = 0, bytes = 0;
  std::string server;            ///< the one its stream is on; empty: none now
  bool live = false;             ///< data or a mark within 10 s
  uint64_t snapshot_loaded = 0;  ///< answers taken from the snapshot file at the start
  uint64_t snapshot_saves = 0, snapshot_failures = 0;
  std::string snapshot_error;  ///< why it was refused, or not saved the last time; empty: all well
};

/// Caching look-ups on one Subscribe stream to one of the directory servers. One per process and
/// directory. Thread-safe; callbacks come from its own thread and never under a lock.
class Resolver {
 public:
  using AnswerPtr = std::shared_ptr<const Answer>;
  using Callback = std::function<void(const AnswerPtr&)>;

  /// Returns at once, whether or not a server is up; kInvalid when an option does not parse.
  static Result<std::unique_ptr<Resolver>> Open(ResolverOptions options);
  virtual ~Resolver() = default;

  /// From the cache when it may, else asks; waits to the deadline. Never null. What could not be
  /// learnt is an answer with status UNAVAILABLE (its reason in `why` of Explain-like tools is the
  /// Status of LastError()).
  virtual AnswerPtr Resolve(const Address& address, ResolveOptions options = {}) = 0;
  /// The same without waiting here; `done` runs once, inside the call when it is a hit.
  virtual void Resolve(const Address& address, ResolveOptions options, Callback done) = 0;

  /// Holds a subscription; destroying it ends it, after which `changed` runs no more (it waits for
  /// a call in progress, unless made from inside one).
  class Subscription {
   public:
    virtual ~Subscription() = default;
  };
  /// `changed` runs with the present answer, if one is known, then with each newer one, also when
  /// the answer becomes UNAVAILABLE for never having been known by the policy's deadline.
  virtual std::unique_ptr<Subscription> Subscribe(const Address& address, Callback changed) = 0;

  virtual ResolverStats Stats() const = 0;
  /// Why the last attempt to learn from the directory failed; OK after a success.
  virtual Status LastError() const = 0;
  /// The servers in use, `host:port`.
  virtual std::vector<std::string> Servers() const = 0;
};

/// The directory servers by DESIGN's order; `given` (flag or option) goes first. kInvalid when the
/// one that is configured does not parse.
Result<std::vector<std::string>> FindDirectoryServers(const std::vector<std::string>& given);
/// The certificates by the same order: `given`, $DATAWIRE_TLS_CERT, _KEY and _CA, the config files'
/// tls-cert, tls-key and tls-ca; the first place that has any of them counts. kInvalid when they
/// are not in order.
Result<TlsFiles> FindTlsFiles(const TlsFiles& given);

}  // namespace datawire
