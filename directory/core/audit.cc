#include "core/audit.h"

#include <charconv>

#include "core/held_snapshots.h"
#include "datawire/record/v1/record.pb.h"
#include "datawire/wire.h"
#include "view/audit.h"

namespace datawire::directory {
namespace {

using Facts = pb::AuditEntry::Facts;
using Stored = record::Audit::Entry;

constexpr size_t kScanBytes = 4 << 20;  // a page looks at no more, whatever it asks for
constexpr size_t kIdBytes = 16;

// ---- an entry as it is shown

/// Who did it: `by` is an identity, or else the peer, or else a node.
void SetWho(const std::string& by, const std::string& peer, pb::AuditEntry* out) {
  out->set_by(by);
  out->set_peer(peer);
  if (!peer.empty() && by != peer) out->set_identity(by);
}

void SetWho(const Peer& peer, pb::AuditEntry* out) {
  out->set_identity(peer.identity);
  out->set_peer(peer.address);
  out->set_by(NameOf(peer));
}

template <typename Ended>
void SetEnd(const Ended& ended, pb::AuditEntry* out) {
  SetWho(ended.by(), ended.peer(), out);
  out->set_reason(ended.reason());
  out->set_at_wall_ms(ended.at_wall_ms());
}

void Show(const record::Registration& from, Facts* out) {
  *out->mutable_endpoint() = from.endpoint();
  out->set_draining(from.draining());
  out->set_ended(from.has_ended());
}

void Show(const record::AddressPolicy& from, Facts* out) {
  out->set_policy(from.policy());
  out->set_ended(from.has_ended());
}

void Show(const record::SessionMark& from, Facts* out) {
  out->set_mark(from.state());
}

void Show(const record::Session& from, Facts* out) {
  out->set_attach_number(from.attach_number());
  out->set_ttl_ms(from.ttl_ms());
  out->set_host(from.host());
  out->set_pid(from.pid());
  out->set_program(from.program());
  out->set_node(from.owner());
}

void Show(const record::SessionEnded&, Facts* out) {
  out->set_ended(true);
}

void Show(const record::NodeForgotten&, Facts* out) {
  out->set_ended(true);
}

/// Both sides of an entry; a side that was not there stays as it is by default.
template <typename Before, typename After>
struct Sides {
  Before before;
  After after;
  bool Read(const Stored& stored, pb::AuditEntry* out) {
    if (!before.ParseFromString(stored.before()) || !after.ParseFromString(stored.after()))
      return false;
    if (stored.has_before()) Show(before, out->mutable_before());
    if (stored.has_after()) Show(after, out->mutable_after());
    return true;
  }
};

bool ReadRegistration(const Stored& stored, pb::AuditEntry* out) {
  Sides<record::Registration, record::Registration> sides;
  const auto key = keys::ParseRegistration(stored.key());
  if (!key.ok() || !sides.Read(stored, out)) return false;
  out->set_address(key->first.text());
  const auto& after = sides.after;
  out->set_session_id((stored.has_after() ? after : sides.before).session_id());
  switch (out->verb()) {
    case pb::AUDIT_VERB_WITHDRAW:
    case pb::AUDIT_VERB_EXPIRE:
      SetEnd(after.ended(), out);
      out->set_op_id(after.ended().op_id());
      break;
    case pb::AUDIT_VERB_DRAIN:
    case pb::AUDIT_VERB_UNDRAIN:
      SetWho(after.drained_by(), after.drained_peer(), out);
      if (after.draining()) out->set_reason(pb::REASON_DRAINED);
      out->set_at_wall_ms(after.drained_wall_ms());
      out->set_op_id(after.drain_op_id());
      break;
    default:
      SetWho({after.peer(), after.identity()}, out);
      out->set_at_wall_ms(after.at_wall_ms());
      out->set_op_id(after.op_id());
      if (stored.has_before() && stored.has_after() && !sides.before.has_ended() &&
          sides.before.session_id() != after.session_id())
        out->set_reason(pb::REASON_REPLACED);
  }
  return true;
}

bool ReadPolicy(const Stored& stored, pb::AuditEntry* out) {
  Sides<record::AddressPolicy, record::AddressPolicy> sides;
  const auto address = Address::FromKey(std::string_view(stored.key()).substr(2));
  if (!address.ok() || !sides.Read(stored, out)) return false;
  out->set_address(address->text());
  const auto& after = sides.after;
  if (after.has_ended()) {
    SetEnd(after.ended(), out);
    out->set_op_id(after.ended().op_id());
  } else {
    SetWho({after.peer(), after.identity()}, out);
    out->set_at_wall_ms(after.at_wall_ms());
    out->set_op_id(after.op_id());
  }
  return true;
}

bool ReadSession(const Stored& stored, pb::AuditEntry* out) {
  out->set_session_id(stored.key().substr(2));
  if (stored.key()[0] == 'q') {
    Sides<record::SessionMark, record::SessionMark> sides;
    if (!sides.Read(stored, out)) return false;
    SetEnd(sides.after, out);
  } else if (stored.key()[0] == 't') {
    Sides<record::Session, record::SessionEnded> sides;
    if (!sides.Read(stored, out)) return false;
    SetEnd(sides.after, out);
  } else {
    Sides<record::Session, record::Session> sides;
    if (!sides.Read(stored, out)) return false;
    SetWho({sides.after.peer(), sides.after.identity()}, out);
    out->set_at_wall_ms(out->verb() == pb::AUDIT_VERB_RESUME_SESSION
                            ? sides.after.resumed_wall_ms()
                            : sides.after.opened_wall_ms());
  }
  return true;
}

bool ReadForgotten(const Stored& stored, pb::AuditEntry* out) {
  Sides<record::NodeForgotten, record::NodeForgotten> sides;
  if (!sides.Read(stored, out)) return false;
  out->set_node(stored.key().substr(2));
  SetWho(sides.after.by(), sides.after.peer(), out);
  out->set_at_wall_ms(sides.after.at_wall_ms());
  return true;
}

Result<pb::AuditEntry> ReadEntry(Revision at, const Stored& stored) {
  pb::AuditEntry out;
  ToWire(at, out.mutable_revision());
  out.set_verb(stored.verb());
  const char kind = stored.key().size() < 2 ? '\0' : stored.key()[0];
  const bool read = kind == 'd'   ? ReadRegistration(stored, &out)
                    : kind == 'p' ? ReadPolicy(stored, &out)
                    : kind == 'f' ? ReadForgotten(stored, &out)
                    : kind != 0   ? ReadSession(stored, &out)
                                  : false;
  if (!read)
    return Status(Code::kCorrupt, "an audit entry of revision " + at.ToString() +
                                      " cannot be read: dw audit verify tells more");
  return out;
}

// ---- a page

/// Between two entries: before number `entry` of a revision.
struct Place {
  uint64_t number = 0;
  int entry = 0;

  std::string Token() const { return std::to_string(number) + "-" + std::to_string(entry); }
  static Result<Place> Parse(const std::string& token) {
    Place out;
    const char* const end = token.data() + token.size();
    auto read = std::from_chars(token.data(), end, out.number);
    if (read.ec == std::errc() && read.ptr != end && *read.ptr == '-') {
      read = std::from_chars(read.ptr + 1, end, out.entry);
      if (read.ec == std::errc() && read.ptr == end && out.entry >= 0) return out;
    }
    return Status(Code::kInvalid, "page token " + Shown(token) + " is none that a page gave");
  }
};

class Tail {
 public:
  Tail(const Ground& ground, const pb::AuditTailRequest& request)
      : ground_(ground), request_(request), backwards_(request.newest_first()) {}

  Result<pb::AuditTailResponse> Run() {
    DW_ASSIGN(most_, PageSize(request_.page_size()));
    if (!request_.session_id().empty() && request_.session_id().size() != kIdBytes)
      return Status(Code::kInvalid, "session id is " +
                                        std::to_string(request_.session_id().size()) +
                                        " bytes, must be " + std::to_string(kIdBytes));
    if (!request_.address().empty()) {
      DW_ASSIGN(const Address address, Address::Parse(request_.address()));
      below_ = address.Key();
    }
    DW_RETURN_IF_ERROR(Begin());
    Status bad;
    bool out_of_bounds = false;
    DW_ASSIGN(const Revision after,
              ground_.view.ScanAudit(from_, backwards_, [&](const AuditRevision& revision) {
                if (Full() || scanned_ >= kScanBytes) {
                  out_of_bounds = true;
                  return false;
                }
                bad = Take(revision);
                return bad.ok() && !over_;
              }));
    DW_RETURN_IF_ERROR(bad);
    if (!backwards_ && !request_.page_token().empty() && from_ <= after.number)
      return Status(Code::kAborted, "the audit log reaches back to " + after.ToString() +
                                        " only, what follows " + request_.page_token() +
                                        " is gone");
    out_.set_more(out_of_bounds || partly_);
    out_.set_next_page_token(place_.Token());
    ToWire(after, out_.mutable_after());
    *out_.mutable_source() = ground_.source;
    return std::move(out_);
  }

 private:
  Status Begin() {
    const Place end{ground_.view.Applied().number + 1, 0};
    if (!request_.page_token().empty()) {
      DW_ASSIGN(place_, Place::Parse(request_.page_token()));
    } else {
      out_.set_end_token(end.Token());
      if (backwards_) {
        place_ = end;
      } else if (request_.since_wall_ms() > 0) {
        DW_ASSIGN(place_.number, ground_.view.AuditSince(request_.since_wall_ms()));
      }
    }
    from_ = place_.number;
    if (backwards_ && place_.entry == 0) from_ = place_.number == 0 ? 0 : place_.number - 1;
    return {};
  }

  bool Full() const {
    return static_cast<size_t>(out_.entries_size()) >= most_ || bytes_ >= limits::kBulkBytes / 2;
  }

  Status Take(const AuditRevision& revision) {
    scanned_ += revision.entries.size();
    const uint64_t number = revision.at.number;
    if (backwards_ && request_.since_wall_ms() > 0 &&
        revision.wall_ms < request_.since_wall_ms()) {  // nothing before it is younger
      over_ = true;
      return {};
    }
    record::Audit audit;
    if (!audit.ParseFromArray(revision.entries.data(), static_cast<int>(revision.entries.size())))
      return {Code::kCorrupt, "the audit entries of revision " + revision.at.ToString() +
                                  " cannot be read: dw audit verify tells more"};
    const int count = audit.entries_size();
    int next = place_.number == number ? std::min(place_.entry, count) : backwards_ ? count : 0;
    while (backwards_ ? next > 0 : next < count) {
      if (Full()) {
        place_ = {number, next};
        partly_ = true;
        return {};
      }
      DW_RETURN_IF_ERROR(Offer(revision.at, audit.entries(backwards_ ? next - 1 : next)));
      next += backwards_ ? -1 : 1;
    }
    place_ = backwards_ ? Place{number, 0} : Place{number + 1, 0};
    partly_ = false;
    return {};
  }

  Status Offer(Revision at, const Stored& stored) {
    if (below_ && !Below(stored.key())) return {};
    DW_ASSIGN(pb::AuditEntry entry, ReadEntry(at, stored));
    if (!request_.session_id().empty() && entry.session_id() != request_.session_id()) return {};
    if (entry.at_wall_ms() != 0 && entry.at_wall_ms() < request_.since_wall_ms()) return {};
    bytes_ += entry.ByteSizeLong();
    *out_.add_entries() = std::move(entry);
    return {};
  }

  // Of the address asked for, or one below it.
  bool Below(std::string_view key) const {
    if (!key.starts_with("d/") && !key.starts_with("p/")) return false;
    key.remove_prefix(2);
    if (!key.starts_with(*below_)) return false;
    key.remove_prefix(below_->size());
    return key.empty() || key.front() == '\0' || key.front() == '\1';
  }

  const Ground& ground_;
  const pb::AuditTailRequest& request_;
  const bool backwards_;
  std::optional<std::string> below_;  // address key
  size_t most_ = 0, bytes_ = 0, scanned_ = 0;
  uint64_t from_ = 0;
  Place place_;
  bool partly_ = false, over_ = false;
  pb::AuditTailResponse out_;
};

}  // namespace

Result<pb::AuditTailResponse> AuditTail(const Ground& ground, const pb::AuditTailRequest& request) {
  return Tail(ground, request).Run();
}

void AuditCheckVerb::Verify(const pb::AuditVerifyRequest& request, std::function<bool()> go_on,
                            std::function<void(Result<pb::AuditVerifyResponse>)> done) {
  std::optional<AuditSeen> seen;
  if (request.has_expect()) seen = {request.expect().number(), request.expect_hash()};
  if (seen && seen->hash.size() != sizeof(AuditHash))
    return done(Status(Code::kInvalid, "the hash expected is " + std::to_string(seen->hash.size()) +
                                           " bytes, must be " + std::to_string(sizeof(AuditHash))));
  job_.Start<pb::AuditVerifyResponse>(
      [this, seen, go_on = std::move(go_on)]() -> Result<pb::AuditVerifyResponse> {
        DW_ASSIGN(const AuditCheck check,
                  ground_->view.VerifyAudit(seen, [&] { return !job_.stopping() && go_on(); }));
        pb::AuditVerifyResponse out;
        ToWire(ground_->At(check.floor), out.mutable_after());
        ToWire(check.last, out.mutable_last());
        out.set_last_hash(check.last_hash.data(), check.last_hash.size());
        out.set_revisions(check.revisions);
        out.set_entries(check.entries);
        *out.mutable_source() = ground_->source;
        if (!check.broken) return out;
        out.set_broken(true);
        ToWire(check.broken->at, out.mutable_broken_at());
        out.set_why(check.broken->why);
        return out;
      },
      std::move(done));
}

}  // namespace datawire::directory
