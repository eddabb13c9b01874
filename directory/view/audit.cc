#include "view/audit.h"

#include <google/protobuf/io/coded_stream.h>

#include <algorithm>
#include <set>

namespace datawire::directory {
namespace {

constexpr size_t kHashBytes = sizeof(AuditHash);

/// What changed and when, of one record. Value.
struct Told {
  pb::AuditVerb verb = pb::AUDIT_VERB_NONE;  // NONE: nothing of meaning did
  int64_t wall_ms = 0;
};

Told TellRegistration(const record::Registration* before, const record::Registration& after) {
  if (after.has_ended())
    return {after.ended().reason() == pb::REASON_LAST_EXPIRED ? pb::AUDIT_VERB_EXPIRE
                                                              : pb::AUDIT_VERB_WITHDRAW,
            after.ended().at_wall_ms()};
  if (before != nullptr && !before->has_ended() && before->draining() != after.draining() &&
      before->op_id() == after.op_id() && before->session_id() == after.session_id())
    return {after.draining() ? pb::AUDIT_VERB_DRAIN : pb::AUDIT_VERB_UNDRAIN,
            after.drained_wall_ms()};
  return {pb::AUDIT_VERB_REGISTER, after.at_wall_ms()};
}

Told TellPolicy(const record::AddressPolicy& after) {
  if (after.has_ended()) return {pb::AUDIT_VERB_UNSET_POLICY, after.ended().at_wall_ms()};
  return {pb::AUDIT_VERB_SET_POLICY, after.at_wall_ms()};
}

Told TellMark(const record::SessionMark& after) {
  switch (after.state()) {
    case pb::ENDPOINT_STATE_SUSPECT:
      return {pb::AUDIT_VERB_SUSPECT_SESSION, after.at_wall_ms()};
    case pb::ENDPOINT_STATE_DRAINING:
      return {pb::AUDIT_VERB_DRAIN_SESSION, after.at_wall_ms()};
    default:
      return {pb::AUDIT_VERB_CLEAR_SESSION, after.at_wall_ms()};
  }
}

/// The entries of one batch, encoded as they come: what they copy is copied once.
class Entries {
 public:
  Entries(const Batch& batch, const Reading& before, std::string* out)
      : batch_(batch), before_(before), out_(out) {}

  Status Run() {
    for (const Record& put : batch_.puts)
      if (put.key.starts_with("t/")) ended_.insert(put.key.substr(2));
    for (const Record& put : batch_.puts) DW_RETURN_IF_ERROR(Take(put.key, &put.value));
    for (const std::string& key : batch_.erased) DW_RETURN_IF_ERROR(Take(key, nullptr));
    return {};
  }
  uint64_t wall_ms() const { return static_cast<uint64_t>(std::max<int64_t>(wall_ms_, 0)); }

 private:
  Status Take(const std::string& key, const std::string* after) {
    switch (key[0]) {
      case 'd':
        return TakeRegistration(key, after);
      case 'p':
        return TakePolicy(key, after);
      case 's':
      case 'q':
      case 't':
        return TakeSession(key, after);
      case 'f':
        return TakeForgotten(key, after);
      default:
        return {};  // nothing derives from the others yet
    }
  }

  // As it was before the batch; null: it was not there. Valid until the next call.
  Result<const std::string*> Before(const std::string& key) {
    if (const auto given = batch_.before.find(key); given != batch_.before.end())
      return given->second ? &given->second->value : nullptr;
    DW_ASSIGN(read_, before_.GetRecord(key));
    return read_ ? &read_->value : nullptr;
  }

  Status TakeRegistration(const std::string& key, const std::string* after) {
    DW_ASSIGN(const std::string* before, Before(key));
    if (before != nullptr && !was_.ParseFromString(*before)) return CorruptValue(key);
    if (after != nullptr) {
      if (!is_.ParseFromString(*after)) return CorruptValue(key);
      Add(TellRegistration(before != nullptr ? &was_ : nullptr, is_), key, before, after);
      return {};
    }
    // The sweep takes what has ended, or whose session has.
    if (before == nullptr || was_.has_ended()) return {};
    const std::string kept = *before;
    if (!was_.session_id().empty()) {
      DW_ASSIGN(const std::string* session, Before(keys::Session(was_.session_id())));
      if (session == nullptr) return {};
    }
    Add({pb::AUDIT_VERB_ERASE, 0}, key, &kept, nullptr);
    return {};
  }

  Status TakePolicy(const std::string& key, const std::string* after) {
    DW_ASSIGN(const std::string* before, Before(key));
    record::AddressPolicy was, is;
    if (before != nullptr && !was.ParseFromString(*before)) return CorruptValue(key);
    if (after == nullptr) {
      if (before != nullptr && !was.has_ended())
        Add({pb::AUDIT_VERB_ERASE, 0}, key, before, nullptr);
      return {};
    }
    if (!is.ParseFromString(*after)) return CorruptValue(key);
    Add(TellPolicy(is), key, before, after);
    return {};
  }

  // Without the hash of its secret.
  static Status Strip(const std::string& key, const std::string& stored, record::Session* session,
                      std::string* out) {
    if (!session->ParseFromString(stored)) return CorruptValue(key);
    session->clear_secret_sha256();
    *out = session->SerializeAsString();
    return {};
  }

  Status TakeSession(const std::string& key, const std::string* after) {
    const std::string id = key.substr(2);
    const bool mark = key[0] == 'q';
    // An end is one entry: its tombstone, what was before it is the session.
    if (after == nullptr && (key[0] == 't' || ended_.contains(id))) return {};
    DW_ASSIGN(const std::string* before, Before(mark ? key : keys::Session(id)));
    if (mark) {
      record::SessionMark is;
      if (after != nullptr && !is.ParseFromString(*after)) return CorruptValue(key);
      if (after != nullptr || before != nullptr) Add(TellMark(is), key, before, after);
      return {};
    }
    record::Session session;
    std::string was, is;
    if (before != nullptr) DW_RETURN_IF_ERROR(Strip(key, *before, &session, &was));
    const std::string* shown = before != nullptr ? &was : nullptr;
    if (key[0] == 't') {
      record::SessionEnded ended;
      if (!ended.ParseFromString(*after)) return CorruptValue(key);
      Add({ended.reason() == pb::REASON_EXPIRED ? pb::AUDIT_VERB_EXPIRE_SESSION
                                                : pb::AUDIT_VERB_END_SESSION,
           ended.at_wall_ms()},
          key, shown, after);
    } else if (after != nullptr) {
      DW_RETURN_IF_ERROR(Strip(key, *after, &session, &is));
      if (before != nullptr)
        Add({pb::AUDIT_VERB_RESUME_SESSION, session.resumed_wall_ms()}, key, shown, &is);
      else
        Add({pb::AUDIT_VERB_OPEN_SESSION, session.opened_wall_ms()}, key, shown, &is);
    } else if (before != nullptr) {
      Add({pb::AUDIT_VERB_ERASE, 0}, key, shown, nullptr);
    }
    return {};
  }

  Status TakeForgotten(const std::string& key, const std::string* after) {
    if (after == nullptr) return {};
    DW_ASSIGN(const std::string* before, Before(key));
    record::NodeForgotten is;
    if (!is.ParseFromString(*after)) return CorruptValue(key);
    Add({pb::AUDIT_VERB_FORGET_NODE, is.at_wall_ms()}, key, before, after);
    return {};
  }

  // One record.v1.Audit.entries, field by field.
  void Add(const Told& told, const std::string& key, const std::string* before,
           const std::string* after) {
    using google::protobuf::io::CodedOutputStream;
    wall_ms_ = std::max(wall_ms_, told.wall_ms);
    const std::string* const fields[] = {&key, before, after};  // 2, 3, 4
    size_t size = 2;
    for (const std::string* field : fields)
      if (field != nullptr)
        size += 1 + CodedOutputStream::VarintSize32(field->size()) + field->size();
    AppendTagged(1, size);
    out_->push_back(1 << 3);
    out_->push_back(static_cast<char>(told.verb));
    for (int i = 0; i < 3; ++i) {
      if (fields[i] == nullptr) continue;
      AppendTagged(i + 2, fields[i]->size());
      *out_ += *fields[i];
    }
  }

  // Tag and length of a field of bytes.
  void AppendTagged(int number, size_t size) {
    uint8_t varint[5];
    const uint8_t* const end = google::protobuf::io::CodedOutputStream::WriteVarint32ToArray(
        static_cast<uint32_t>(size), varint);
    out_->push_back(static_cast<char>(number << 3 | 2));
    out_->append(reinterpret_cast<const char*>(varint), end - varint);
  }

  const Batch& batch_;
  const Reading& before_;
  std::string* const out_;
  std::set<std::string> ended_;  // sessions
  std::optional<Record> read_;
  record::Registration was_, is_;  // kept: parsing into them again allocates little
  int64_t wall_ms_ = 0;
};

constexpr size_t kHead = kHashBytes + 4 * 8;

void OverwriteU64(uint64_t number, size_t at, std::string* out) {
  std::string bytes;
  AppendU64(number, &bytes);
  out->replace(at, bytes.size(), bytes);
}

void SetHash(const AuditHash& hash, std::string* value) {
  std::copy(hash.begin(), hash.end(), value->begin());
}

}  // namespace

std::optional<AuditRevision> DecodeAudit(std::string_view stored) {
  Reader in(stored);
  AuditRevision out;
  out.hash = in.Hash();
  out.at.epoch = in.U64();
  out.at.number = in.U64();
  out.bytes = in.U64();
  out.wall_ms = static_cast<int64_t>(in.U64());
  out.entries = in.rest();
  if (!in.ok()) return std::nullopt;
  return out;
}

Result<std::string> StageAudit(const Batch& batch, const Reading& before, AppliedState* state) {
  std::string value(kHead, '\0');
  value.reserve(kHead + 256 * (batch.puts.size() + batch.erased.size()));
  Entries entries(batch, before, &value);
  DW_RETURN_IF_ERROR(entries.Run());
  if (value.size() == kHead) return std::string();
  state->audit_bytes += keys::Audit(0).size() + value.size();
  // A clock that was wrong for an hour must not make what is young look old.
  state->audit_wall_ms = std::max(state->audit_wall_ms, entries.wall_ms());
  SetHash(state->audit_hash, &value);
  size_t at = kHashBytes;
  for (const uint64_t number :
       {batch.at.epoch, batch.at.number, state->audit_bytes, state->audit_wall_ms}) {
    OverwriteU64(number, at, &value);
    at += 8;
  }
  state->audit_hash = DigestOf(value);
  SetHash(state->audit_hash, &value);
  return value;
}

Result<AuditFloor> ReadAuditFloor(const Reading& reading) {
  DW_ASSIGN(const std::optional<std::string> stored, reading.Get(keys::kAuditFloor));
  if (!stored) return AuditFloor();
  return DecodeAuditFloor(*stored);
}

uint64_t FirstAudited(const Reading& reading, uint64_t floor, uint64_t last,
                      const std::function<bool(const AuditRevision&, uint64_t size)>& kept) {
  const std::string to = "j0";
  const rocksdb::Slice upper(to);
  auto it = reading.Range(keys::Audit(floor + 1), &upper);
  uint64_t low = floor, high = last;  // what follows `high` is kept
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    it->Seek(keys::Audit(middle + 1));
    std::optional<AuditRevision> found;
    if (it->Valid()) found = DecodeAudit(it->value().ToStringView());
    if (!found || kept(*found, it->key().size() + it->value().size()))
      high = middle;
    else
      low = middle + 1;
  }
  return low + 1;
}

Result<AuditCheck> VerifyAudit(const Reading& reading, const std::optional<AuditSeen>& seen,
                               const std::function<bool()>& go_on) {
  DW_ASSIGN(const AuditFloor floor, ReadAuditFloor(reading));
  DW_ASSIGN(const std::optional<std::string> stored, reading.Get(keys::kApplied));
  if (!stored) return CorruptValue(keys::kApplied);
  DW_ASSIGN(const AppliedState applied, DecodeApplied(*stored));
  AuditCheck out{
      .floor = floor.revision, .last = {applied.at.epoch, floor.revision}, .last_hash = floor.hash};
  if (seen && seen->number < floor.revision)
    return Status(Code::kNotFound, "the audit log begins after revision " + out.last.ToString() +
                                       ": nothing tells its hash at " +
                                       std::to_string(seen->number) + " any more");
  const auto broken = [&out](Revision at, std::string why) {
    out.broken = {at, std::move(why)};
    return out;
  };
  bool met = !seen;
  const auto meets = [&] {
    if (!seen || seen->number != out.last.number) return true;
    met = true;
    return seen->hash == std::string_view(out.last_hash.data(), out.last_hash.size());
  };
  constexpr char kOtherHash[] = "its hash is not the one expected: the log was written anew";
  if (!meets()) return broken(out.last, kOtherHash);
  const std::string to = "j0";
  const rocksdb::Slice upper(to);
  uint64_t bytes = floor.bytes;
  std::string value;
  auto it = reading.Walk("j/", &upper);
  for (; it->Valid(); it->Next()) {
    if (!go_on()) return Status(Code::kCancelled, "the audit log is not verified to its end");
    const Revision at{applied.at.epoch, Reader(it->key().ToStringView().substr(2)).U64()};
    value.assign(it->value().data(), it->value().size());
    const auto revision = DecodeAudit(value);
    if (!revision) return broken(at, "its value is cut short");
    if (at.number <= floor.revision) return broken(at, "it is older than where the log begins");
    const AuditHash hash = revision->hash;
    bytes += it->key().size() + value.size();
    const bool same_size = revision->bytes == bytes;
    SetHash(out.last_hash, &value);
    if (DigestOf(value) != hash || revision->at.number != at.number || !same_size)
      return broken(at,
                    "its hash does not follow from the one before: it was changed, or what was "
                    "before it");
    record::Audit audit;
    if (!audit.ParseFromArray(revision->entries.data(), static_cast<int>(revision->entries.size())))
      return broken(at, "its entries cannot be read");
    out.last = revision->at;
    out.last_hash = hash;
    ++out.revisions;
    out.entries += audit.entries_size();
    if (!meets()) return broken(out.last, kOtherHash);
  }
  DW_RETURN_IF_ERROR(FromRocks(it->status(), "reading the audit log"));
  if (out.last_hash != applied.audit_hash)
    return broken(applied.at,
                  "the log ends with another hash than the store counts with: its last "
                  "entries were removed");
  if (!met)
    return broken({applied.at.epoch, seen->number},
                  "the log has no entry of it: it was written anew");
  return out;
}

}  // namespace datawire::directory
