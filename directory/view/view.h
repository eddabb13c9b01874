#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "datawire/address.h"
#include "datawire/answer.h"
#include "datawire/directory/v1/directory.pb.h"
#include "engine/log.h"
#include "view/keys.h"

namespace rocksdb {
class DB;
class Env;
}  // namespace rocksdb

namespace datawire::directory {

namespace pb = ::datawire::directory::v1;

/// A materialised row, already encoded as a datawire.directory.v1.Row. Immutable, shared.
struct Row {
  std::string bytes;
  AnswerStatus status = AnswerStatus::kNotFound;
  uint64_t hash = 0;
  Revision modified;
  bool registered = true;  ///< false: of an address that has a policy alone
};

/// What one address resolves to. `row` is never null: NOT_FOUND has a row of its own. A policy
/// alone is no candidate: the nearest subtree answers, with that policy.
struct Match {
  std::optional<Address> matched;
  std::shared_ptr<const Row> row;
  uint64_t hash = 0;  ///< that of the row, which depends on `matched` too: what Subscribe compares
};

/// What a Publish changed. Shared by all watchers.
struct Published {
  struct Change {
    Address address;
    bool subtree;  ///< what addresses below it may match has changed
  };
  Revision at;
  std::vector<Change> addresses;           ///< rows that changed, appeared or went
  std::string events;                      ///< encoded datawire.record.v1.History; empty: none
  std::vector<Record> records;             ///< puts of `s/`, `q/`, `t/` and `l/`
  std::vector<std::string> sessions_gone;  ///< ids
  bool resync = false;  ///< of a listing: what happened since the revision before is not known
};

struct AuditRevision;  // view/audit.h
struct AuditCheck;
struct AuditSeen;

/// Key and revision of something a sweep is due for.
struct Due {
  std::string key;        ///< of the record
  uint64_t modified = 0;  ///< guard the erase or change on it
  uint64_t since = 0;     ///< revision at which it became due
};

struct ViewOptions {
  size_t row_cache_bytes = 64ull << 20;
  size_t block_cache_bytes = 64ull << 20;
  size_t recent_bytes = 8ull << 20;  // some 20 000 records and rows, for the write path
  uint64_t history_bytes = 256ull << 20;
  bool sync = true;  ///< false only for benchmarks of the view itself
  bool wal = true;   ///< false of a replica: a crash takes it back to an earlier revision
  uint64_t reserve_bytes = 16ull << 20;  ///< free disc that only ops that free space may use
  rocksdb::Env* env = nullptr;  ///< tests of failing discs; null: the system's. Outlives the view
};

/// The local readable replica: RocksDB plus a sharded, bounded cache of encoded rows. Reads are
/// thread-safe and never touch the engine; Applier calls come from the engine's thread.
/// Keys and values: FORMAT.md.
class View final : public Applier {
 public:
  /// A listener runs on the apply thread after readers can see the revision; must not block.
  using Listener = std::function<void(std::shared_ptr<const Published>)>;

  /// How a directory is opened. kInit creates a new one and refuses an initialised one (kConflict);
  /// kExisting refuses a missing one (kNotFound, says to use --init), one in use by another process
  /// (kUnavailable), one not writable (kDenied), one of a newer format (kUnsupported). Each message
  /// names the path and what to do.
  struct Authority {
    std::string cluster_id;
    uint64_t epoch = 1;
    bool replica = false;  ///< of what etcd holds: not this store decides
  };
  static Result<std::unique_ptr<View>> Create(const std::string& path, const Authority& authority,
                                              ViewOptions options = {});
  static Result<std::unique_ptr<View>> Open(const std::string& path, ViewOptions options = {});
  /// A replica, created where there is none. One of an earlier epoch, one that was not listed to
  /// its end and one that is marked wrong begins anew, empty. kConflict: it belongs to another
  /// cluster, or is no replica.
  /// Without an authority, because etcd does not answer: the one that is there, kNotFound if none.
  static Result<std::unique_ptr<View>> OpenReplica(const std::string& path,
                                                   std::optional<Authority> authority,
                                                   ViewOptions options = {});
  /// What the replica holds is wrong: when it is opened next it begins anew. On disc at return.
  Status MarkWrong();
  /// A replica's: what is applied is on the disc; returns that revision.
  Result<Revision> Flush();
  ~View() override;

  // Applier.
  Status Stage(const Batch& batch, rocksdb::WriteBatchWithIndex& out) override;
  void Publish(Revision at) override;
  void Discard(Revision at) override;
  Revision Applied() const override;

  const Authority& authority() const;
  /// Before any Publish; not thread-safe.
  void SetListener(Listener listener);

  /// All addresses at one published revision: returns it (an answer may be newer than it says,
  /// never older), fills `out` in the order asked. kUnavailable when the store fails to read.
  Result<Revision> Resolve(std::span<const Address> addresses, std::vector<Match>* out) const;

  /// One record, or every record of a key range [from, to), as of the last Publish or newer. For
  /// the write path, recovery and Explain.
  Result<std::optional<Record>> Get(const std::string& key) const;
  Status Scan(const std::string& from, const std::string& to,
              const std::function<bool(const Record&)>& each) const;
  /// Keys `d/...` of the registrations of one session.
  Result<std::vector<std::string>> RegistrationsOf(const std::string& session_id) const;
  /// How many live registrations a principal (view/principal.h) holds. As Get.
  Result<uint64_t> RegistrationsHeldBy(const std::string& principal) const;

  /// A readable past: List pages and Watch snapshots. Holds disc space while it lives.
  class Snapshot {
   public:
    virtual ~Snapshot() = default;
    virtual Revision at() const = 0;
    /// Rows of `prefix` and below (all, if none), address order with an ancestor before what is
    /// below it, beginning after `after` (a Key() of an address; empty: from the start), at most
    /// `most`.
    struct Item {
      Address address;
      std::shared_ptr<const Row> row;
      bool subtree;
    };
    virtual Result<std::vector<Item>> Rows(const std::optional<Address>& prefix,
                                           const std::string& after, size_t most) const = 0;
    /// Live registrations of `prefix` and below as encoded datawire.directory.v1.Event (KIND_PUT),
    /// then the policies (KIND_POLICY), beginning after record key `after`; `next` is where to go
    /// on, empty at the end.
    virtual Status Registrations(const std::optional<Address>& prefix, const std::string& after,
                                 size_t most, std::vector<std::string>* events,
                                 std::string* next) const = 0;
    /// Static registrations among the next `most` registrations behind key `after`, whoever holds
    /// those; `next` as above.
    virtual Status Static(std::string after, size_t most,
                          std::vector<pb::ExportedRegistration>* out, std::string* next) const = 0;
    /// As View::Scan, as of then.
    virtual Status Records(const std::string& from, const std::string& to,
                           const std::function<bool(const Record&)>& each) const = 0;
    /// The next `most` policies behind key `after`; `next` as above.
    virtual Status Policies(const std::string& after, size_t most,
                            std::vector<pb::ExportedPolicy>* out, std::string* next) const = 0;
  };
  std::unique_ptr<Snapshot> Hold() const;

  /// The revision after which history is whole.
  Result<Revision> HistoryBegins() const;
  /// Encoded record.v1.History of each revision after `after` that has events, oldest first, at
  /// most `most_bytes` (at least one). kAborted when history no longer reaches back to `after`.
  Result<std::vector<std::pair<Revision, std::string>>> History(Revision after,
                                                                size_t most_bytes) const;

  /// Each stored revision of the audit log from number `from` on, or from it backwards, until
  /// `each` returns false. Returns the revision after which the log is whole.
  Result<Revision> ScanAudit(uint64_t from, bool newest_first,
                             const std::function<bool(const AuditRevision&)>& each) const;
  /// Number of the first revision of the log with an entry not older than `wall_ms`.
  Result<uint64_t> AuditSince(int64_t wall_ms) const;
  /// Walks the whole chain: view/audit.h.
  Result<AuditCheck> VerifyAudit(const std::optional<AuditSeen>& seen,
                                 const std::function<bool()>& go_on) const;

  // Sweeping: queues kept while staging, both cut at `up_to` (a revision number), oldest first.
  std::vector<Due> DueTombstones(uint64_t up_to, size_t most) const;  ///< erase these records
  std::vector<Due> DueLastEndpoints(uint64_t up_to,
                                    size_t most) const;  ///< end these registrations
  /// Drops history at and before revision `up_to`; the byte bound is kept by Publish itself.
  void TrimHistory(uint64_t up_to);
  /// Drops the beginning of the audit log: what is over `most_bytes`, and what is older than
  /// `before_wall_ms`. What is left is still a chain.
  void TrimAudit(uint64_t most_bytes, int64_t before_wall_ms);

  struct Counts {
    uint64_t registrations = 0, addresses = 0, sessions = 0;
    uint64_t row_cache_hits = 0, row_cache_misses = 0, row_cache_bytes = 0;
  };
  Counts counts() const;

  rocksdb::DB& db();
  const std::string& path() const;
  const ViewOptions& options() const;
  /// Tests only: called where a reader (`read`: after each read of the store, `fill`: before what
  /// it read enters the cache; `history`: after History read it) could be overtaken by a Publish.
  /// Before any read.
  void SetStopPoint(std::function<void(std::string_view)> stop);

 private:
  struct Impl;
  static Result<std::unique_ptr<View>> Start(const std::string& path, const Authority* create,
                                             ViewOptions options);
  explicit View(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace datawire::directory
