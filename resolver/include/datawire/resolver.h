#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "datawire/answer.h"
#include "datawire/limits.h"
#include "datawire/result.h"
#include "datawire/tls_files.h"

namespace datawire {

/// Cache and retry rules, every number of PROMISES "Resolver: entry states and rules" that is not a
/// promise itself (an answer is called stale when over 5 s old, whatever is set here). The defaults
/// are Lan(). Value; Resolver::Open refuses what is out of range.
struct ResolverPolicy {
  /// Positive and negative answers live so long once no stream keeps them up to date, times
  /// U(1 - ttl_spread, 1), so that what came together does not end together. RFC 8767 (30 s is its
  /// least useful TTL); the negative one is short for start-order races: RFC 2308's are far too
  /// long.
  std::chrono::milliseconds positive_ttl = limits::kPositiveTtl;
  std::chrono::milliseconds negative_ttl = limits::kNegativeTtl;
  double ttl_spread = 0.10;
  /// Used so late in its TTL, an answer is asked for once more: at U(from, to) of it. Unbound.
  double prefetch_from = 0.80, prefetch_to = 0.90;
  /// An address that could not be learnt fails at once for so long: doubling, +-spread. RFC 9520.
  std::chrono::milliseconds failure_memo_least{1000}, failure_memo_most{30000};
  double failure_memo_spread = 0.20;
  /// A stale answer is given after so long a wait for a newer one. RFC 8767's client timer is 1.8
  /// s; 100 ms is what a caller does not notice.
  std::chrono::milliseconds stale_answer_after{100};
  /// Answers older than this are dropped; 0 to 72 h. RFC 8767 (1 to 3 days).
  std::chrono::milliseconds max_stale = std::chrono::hours(24);
  /// After a refresh that brought nothing, stale answers come at once for so long. Unbound.
  std::chrono::milliseconds recheck{5000};
  /// Of a call that sets none; a call asks at most `attempts` times. Google SRE, gRPC A6.
  std::chrono::milliseconds deadline = limits::kResolveDeadline;
  uint32_t attempts = 3;
  /// After each round of the servers a call waits U(0.1, 1) x least x 2^n. Google SRE, gRPC A6.
  std::chrono::milliseconds retry_least{50}, retry_most{10000};
  /// P26: all attempts beyond the first of a call, and all streams after the first, are at most so
  /// many percent of the calls, and so many a second besides. Google SRE (10 %), gRPC A6.
  double retry_percent = 10, retry_per_second = 3;
  /// RFC 8305 would race sooner; a server that takes the connection has three times as long to
  /// speak.
  std::chrono::milliseconds connect_timeout{1000};
  /// Full jitter between rounds of servers, doubling. gRPC A6's shape.
  std::chrono::milliseconds reconnect_least{250}, reconnect_most{30000};
  /// A stream without data or mark (one a second) for so long is dead.
  std::chrono::milliseconds stream_silence = limits::kStreamSilence;
  /// Bounds of the cache, and the share that negative answers may take.
  size_t cache_entries = limits::kCacheEntries;
  size_t cache_bytes = limits::kCacheBytes;
  uint32_t negative_percent = 10;

  /// The directory is on this machine: what does not answer soon is not there.
  static ResolverPolicy Local();
  /// The defaults.
  static ResolverPolicy Lan() { return {}; }
  /// The directory is far: round trips of up to 300 ms, lossy.
  static ResolverPolicy Wan();
};

/// What happened between the resolver and the directory, or to who uses its answers. Value.
struct ResolverEvent {
  enum class Kind {
    kConnected,  ///< a server keeps what is held up to date from now on
    kLost,       ///< the stream, or the attempt to open one, ended: `status` says why
    kForeign,    ///< a server is of another cluster: what is held stays, all else is UNAVAILABLE
    kCorrupt,    ///< a server said what cannot be: discarded
    kEjected,    ///< an endpoint failed too often and is left out for a while
    kServers,    ///< the domain names other servers than before: they are used from now on
    kNoServers,  ///< it could not be looked up, or names none: the servers known before are kept
  };
  Kind kind = Kind::kLost;
  std::string server;  ///< of kEjected the endpoint's URL
  Status status;
};

struct ResolverOptions {
  /// `host:port` each; empty: found as FindDirectory says.
  std::vector<std::string> directory;
  std::string domain, dns_server;  ///< as DirectoryPlace; with no `directory`
  TlsFiles tls;                    ///< none: found as `directory` is, then plaintext
  ResolverPolicy policy;
  /// Told from the resolver's own thread, of ejections from the client's, never under a lock; must
  /// not block.
  std::function<void(const ResolverEvent&)> observer;
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
  /// Refused: what servers sent and was discarded, for being older, unasked, foreign or malformed;
  /// `foreign` and `corrupt` are the latter two.
  uint64_t pushes = 0, refused = 0, foreign = 0, corrupt = 0;
  /// Streams and calls that were begun, and of these the ones that are retries (P26).
  uint64_t attempts = 0, retries = 0, prefetches = 0;
  uint64_t streams_opened = 0, streams_lost = 0, failovers = 0;
  uint64_t ejections = 0;                      ///< of endpoints, by the senders of this process
  uint64_t dns_lookups = 0, dns_failures = 0;  ///< of the servers; failed, or brought none
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
  /// A sender ejected an endpoint: counted, and told to the observer on this thread.
  virtual void NoteEjected(const std::string& /*url*/, const Status& /*why*/) {}
  /// The state as JSON lines for a person to read: one of the whole, then one an entry, in no
  /// order. Callers of a sixteenth of the entries at a time wait for it.
  virtual void WriteState(std::ostream&) const {}
  /// Why the last attempt to learn from the directory failed; OK after a success.
  virtual Status LastError() const = 0;
  /// The servers in use, `host:port`; none as long as their domain could not be looked up.
  virtual std::vector<std::string> Servers() const = 0;
};

/// Where the directory is: its servers, or the domain whose SRV records name them. Value.
struct DirectoryPlace {
  std::vector<std::string> servers;  ///< `host:port` each
  /// Without servers: those of `_datawire._tcp.<domain>` (RFC 2782), looked up again by its TTL (5
  /// s to 10 min) and when all of them fail.
  std::string domain;
  std::string dns_server;  ///< `IP:PORT` that is asked; empty: those of /etc/resolv.conf
};
/// By DESIGN's order: `given` (flag or option: servers, else a domain), $DATAWIRE_DIRECTORY, the
/// config files' `directory`, $DATAWIRE_DOMAIN, the config files' `domain`, 127.0.0.1:7400; the
/// first that is configured is used alone. dns_server: `given` or $DATAWIRE_DNS. Asks nobody.
/// kInvalid when the one that is configured does not parse.
Result<DirectoryPlace> FindDirectory(const DirectoryPlace& given);
/// The servers of a place; those of a domain by a look-up that takes at most `timeout`, lowest
/// priority first. kUnavailable when that fails or names none.
Result<std::vector<std::string>> LookUpServers(const DirectoryPlace& place,
                                               std::chrono::milliseconds timeout);
/// The certificates by the same order: `given`, $DATAWIRE_TLS_CERT, _KEY and _CA, the config files'
/// tls-cert, tls-key and tls-ca; the first place that has any of them counts. kInvalid when they
/// are not in order.
Result<TlsFiles> FindTlsFiles(const TlsFiles& given);

}  // namespace datawire
