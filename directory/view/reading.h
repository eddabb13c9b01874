#pragma once

#include <rocksdb/db.h>
#include <rocksdb/utilities/write_batch_with_index.h>

#include <memory>
#include <optional>
#include <string>

#include "datawire/record/v1/record.pb.h"
#include "datawire/result.h"
#include "view/encoding.h"
#include "view/keys.h"
#include "view/recent.h"
#include "view/row.h"

namespace datawire::directory {

namespace record = ::datawire::record::v1;
namespace pb = ::datawire::directory::v1;

/// The store at one point: newest, as of a snapshot, or newest with what is staged. `recent` only
/// with the newest, on the apply thread, while nothing is staged: answers Get and learns from it.
/// Value.
struct Reading {
  rocksdb::DB* db = nullptr;
  rocksdb::WriteBatchWithIndex* batch = nullptr;
  const rocksdb::Snapshot* snapshot = nullptr;
  Recent* recent = nullptr;

  Result<std::optional<std::string>> Get(const std::string& key) const;
  Result<std::optional<Record>> GetRecord(const std::string& key) const;
  /// Keys in [from, to), positioned at the first. `to` outlives the iterator.
  std::unique_ptr<rocksdb::Iterator> Range(const std::string& from, const rocksdb::Slice* to) const;
  /// The same for a long walk over what is stored: it leaves the block cache to others.
  std::unique_ptr<rocksdb::Iterator> Walk(const std::string& from, const rocksdb::Slice* to) const;
};

/// A RocksDB failure as a Status: no space is kOverloaded, corruption kCorrupt, else kUnavailable.
Status FromRocks(const rocksdb::Status& status, std::string_view doing);

/// What a registration is at a revision.
enum class Standing { kNone, kUp, kDraining, kSuspect, kKept };
inline bool Listed(Standing s) {
  return s != Standing::kNone;
}
inline bool Live(Standing s) {
  return s != Standing::kNone && s != Standing::kKept;
}
/// State in a row; a kept last endpoint is suspect.
EndpointState StateOf(Standing standing);

/// A session as far as its registrations depend on it. Value.
struct SessionFacts {
  bool live = false;
  std::optional<record::SessionMark> mark;
};
Result<SessionFacts> ReadSession(const Reading& reading, const std::string& id);
/// Standing of a registration record; `orphan` is that of k/.
Standing StandingOf(const record::Registration& registration, const SessionFacts& session,
                    const std::optional<OrphanState>& orphan);

pb::Endpoint EndpointOf(const record::Registration& registration, EndpointState state,
                        uint64_t created);
RowEntry EntryOf(const record::Registration& registration, const std::string& instance,
                 Standing standing, uint64_t created);
/// The event without reason; `by` and time are the registration's.
pb::Event EventOf(pb::Event::Kind kind, const Address& address, const std::string& instance,
                  const record::Registration& registration, EndpointState state, uint64_t created);

/// A set policy, or (a tombstone) that it was unset.
pb::Event EventOf(const Address& address, const record::AddressPolicy& policy);
/// The policy in the record; nothing: a tombstone.
std::optional<Policy> PolicyOf(const record::AddressPolicy& policy);

/// A registration as a reader of one point sees it.
struct Registered {
  std::string key, instance;
  Address address;
  record::Registration registration;
  uint64_t created = 0;
  Standing standing = Standing::kNone;
};
/// Calls `each` for the records of [from, to) until it returns false.
Status EachRegistration(const Reading& reading, const std::string& from, const std::string& to,
                        const std::function<bool(Registered&)>& each);

}  // namespace datawire::directory
