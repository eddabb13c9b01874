// The audit log as the view serves and trims it.
#include "view/audit.h"
#include "view/impl.h"

namespace datawire::directory {
namespace {

// The store as it is now: a trim is no revision, the last published one would show what is gone.
PublishedPoint Now(const View& view, rocksdb::DB* db) {
  return {db, view.Applied()};
}

}  // namespace

Result<Revision> View::ScanAudit(uint64_t from, bool newest_first,
                                 const std::function<bool(const AuditRevision&)>& each) const {
  const PublishedPoint point = Now(*this, impl_->db.get());
  DW_ASSIGN(const AuditFloor floor, ReadAuditFloor(point.reading()));
  const std::string to = newest_first && from < UINT64_MAX ? keys::Audit(from + 1) : "j0";
  const rocksdb::Slice upper(to);
  auto it = point.reading().Walk(newest_first ? "j/" : keys::Audit(from), &upper);
  if (newest_first) it->SeekToLast();
  while (it->Valid() && it->key().starts_with("j/")) {
    const auto revision = DecodeAudit(it->value().ToStringView());
    if (!revision) return CorruptValue(it->key().ToStringView());
    if (!each(*revision)) break;
    newest_first ? it->Prev() : it->Next();
  }
  DW_RETURN_IF_ERROR(FromRocks(it->status(), "reading the audit log"));
  return Revision{point.at.epoch, floor.revision};
}

Result<uint64_t> View::AuditSince(int64_t wall_ms) const {
  const PublishedPoint point = Now(*this, impl_->db.get());
  DW_ASSIGN(const AuditFloor floor, ReadAuditFloor(point.reading()));
  return FirstAudited(
      point.reading(), floor.revision, point.at.number,
      [wall_ms](const AuditRevision& revision, uint64_t) { return revision.wall_ms >= wall_ms; });
}

Result<AuditCheck> View::VerifyAudit(const std::optional<AuditSeen>& seen,
                                     const std::function<bool()>& go_on) const {
  const PublishedPoint point = Now(*this, impl_->db.get());
  return directory::VerifyAudit(point.reading(), seen, go_on);
}

// One range deletion for all, in one batch with the floor that the chain goes on from.
void View::TrimAudit(uint64_t most_bytes, int64_t before_wall_ms) {
  const MutexLock lock(impl_->audit_mutex);
  // The newest floor: that of a published revision may be from before the last trim.
  const Reading reading{.db = impl_->db.get()};
  const auto floor = ReadAuditFloor(reading);
  const auto stored = reading.Get(keys::kApplied);
  if (!floor.ok() || !stored.ok() || !*stored) return;
  const auto applied = DecodeApplied(**stored);
  if (!applied.ok()) return;
  const uint64_t written = applied->audit_bytes;
  // An eighth of slack: trimming is rare.
  const bool too_much = written - floor->bytes > most_bytes + most_bytes / 8;
  const uint64_t must_go = too_much ? written - most_bytes : 0;
  const auto kept = [&](const AuditRevision& revision, uint64_t size) {
    return revision.bytes - size >= must_go && revision.wall_ms >= before_wall_ms;
  };
  {
    const std::string to = "j0";
    const rocksdb::Slice upper(to);
    const auto oldest = reading.Range(keys::Audit(floor->revision + 1), &upper);
    if (!oldest->Valid()) return;
    const auto revision = DecodeAudit(oldest->value().ToStringView());
    if (!revision || kept(*revision, oldest->key().size() + oldest->value().size())) return;
  }
  const uint64_t first = FirstAudited(reading, floor->revision, impl_->applied.load(), kept);
  const std::string end = keys::Audit(first);
  const rocksdb::Slice upper(end);
  auto last = reading.Range("j/", &upper);
  last->SeekToLast();
  if (!last->Valid() || !last->key().starts_with("j/")) return;
  const auto gone = DecodeAudit(last->value().ToStringView());
  if (!gone) return;
  rocksdb::WriteBatch batch;
  batch.DeleteRange("j/", end);
  batch.Put(keys::kAuditFloor, EncodeAuditFloor({gone->at.number, gone->bytes, gone->hash}));
  impl_->db->Write(impl_->WriteOptions(), &batch);
}

}  // namespace datawire::directory
