#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "view/reading.h"

namespace datawire::directory {

/// What Publish needs of a staged revision. Value.
struct StagedRevision {
  Revision at;
  AppliedState applied;
  /// New values of what is read key by key, in the order written; nullopt: gone.
  std::vector<std::pair<std::string, std::optional<std::string>>> written;
  std::shared_ptr<Published> published;
  /// Queue entries added: a sweep must begin no later.
  std::vector<std::pair<keys::Queue, uint64_t>> queued;
};

/// Derives, for one batch, everything that follows from it: rows, index, sweep queues,
/// history, audit.
/// Reads first what it was, writes the records, then compares. Pure but for reads of the store.
/// `recent`, if given, holds what the store holds. Used once; thread-compatible.
class Stager {
 public:
  Stager(rocksdb::DB& db, rocksdb::WriteBatchWithIndex& out, const Batch& batch,
         const AppliedState& before, Recent* recent);
  Status Run();
  StagedRevision Take() { return std::move(staged_); }

 private:
  struct Session {
    SessionFacts before, after;
    std::optional<record::SessionEnded> ended;  // after
    uint64_t ended_modified = 0;                // of t/, 0: none
    bool touched = false;                       // liveness or mark changed
    bool index_changed = false;
  };
  // A registration that this revision may change.
  struct Claim {
    std::string key, instance;
    std::optional<Address> address;  // of the key
    std::optional<record::Registration> before, after;
    uint64_t created_before = 0, modified_before = 0, created = 0, modified = 0;
    std::optional<OrphanState> orphan;
    bool in_batch = false;
    bool superseded = false, candidate = false;
    Standing was = Standing::kNone, is = Standing::kNone;
  };
  // An address's own policy.
  struct PolicyChange {
    Address address;
    std::optional<record::AddressPolicy> before, after;
    uint64_t modified_before = 0, modified = 0;
    bool staged = false;
  };
  struct Rows {
    RowState row, subtree;
    bool had_row = false, had_subtree = false;
  };

  // Reading what was.
  Status LoadBatch();
  Status LoadSessionChange(const std::string& key, const Record* put);
  Result<Session*> LoadSession(const std::string& id);
  Result<Claim*> LoadClaim(const std::string& key);
  Status LoadSessionClaims(const std::string& id);
  Status LoadPolicy(const std::string& key, const Record* put);
  Status LoadKept(const Address& address, std::vector<Claim*>* claims);
  // Deciding and writing.
  void WriteRecords();
  Status StageAddress(const Address& address, std::vector<Claim*> claims);
  void Decide(const Rows& rows, std::vector<Claim*>& claims);
  bool EndedLast(const Claim& claim, const std::vector<Claim*>& claims) const;
  void WriteDerived(Claim& claim);
  void MoveOrphan(Claim& claim);
  void MoveTombstone(Claim& claim);
  void StagePolicy(PolicyChange& change, Rows& rows);
  Status PatchRows(const Address& address, Rows& rows, const std::vector<Claim*>& claims);
  Status Refill(const Address& address, RowState& row, bool subtree);
  void WriteRow(char kind, const Address& address, RowState& row, bool had);
  void AddEvent(const Address& address, const Claim& claim);
  Status StageDomains();
  Status StagePrincipals();
  Status StageEndedSessions();
  void Enqueue(keys::Queue queue, uint64_t since, const std::string& key, uint64_t modified);
  void Put(std::string key, std::string value);
  void Erase(std::string key);

  Reading reading_;  // with what this batch has written so far
  Reading before_;   // keys that this batch has not written yet
  rocksdb::WriteBatchWithIndex& out_;
  const Batch& batch_;
  StagedRevision staged_;
  std::map<std::string, Session> sessions_;
  std::map<std::string, Claim> claims_;           // by d/ key: address by address
  std::map<std::string, PolicyChange> policies_;  // by address key
  struct DomainChange {
    int64_t rows = 0;
    std::map<uint8_t, int64_t> subtrees;
  };
  std::map<std::string, DomainChange, std::less<>> domains_;
  std::map<std::string, int64_t> principals_;  // registrations more or less
  record::History history_;
  rocksdb::Status write_;  // first failure of out_
};

}  // namespace datawire::directory
