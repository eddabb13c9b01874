#include "view/reading.h"

#include <absl/container/flat_hash_map.h>

#include "datawire/limits.h"

namespace datawire::directory {

Status FromRocks(const rocksdb::Status& status, std::string_view doing) {
  if (status.ok()) return {};
  std::string message(doing);
  message.append(": ").append(status.ToString());
  if (status.IsNoSpace() || status.subcode() == rocksdb::Status::kNoSpace)
    return {Code::kOverloaded, std::move(message)};
  if (status.IsCorruption()) return {Code::kCorrupt, std::move(message)};
  return {Code::kUnavailable, std::move(message)};
}

Result<std::optional<std::string>> Reading::Get(const std::string& key) const {
  if (recent) {
    if (auto known = recent->Find(key)) return *std::move(known);
  }
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  std::string found;
  const rocksdb::Status status =
      batch ? batch->GetFromBatchAndDB(db, options, key, &found) : db->Get(options, key, &found);
  if (!status.ok() && !status.IsNotFound()) return FromRocks(status, "reading " + Shown(key));
  std::optional<std::string> value;
  if (status.ok()) value = std::move(found);
  if (recent) recent->Set(key, value);
  return value;
}

Result<std::optional<Record>> Reading::GetRecord(const std::string& key) const {
  DW_ASSIGN(std::optional<std::string> stored, Get(key));
  if (!stored) return std::optional<Record>();
  DW_ASSIGN(Record record, DecodeRecord(key, *stored));
  return std::optional<Record>(std::move(record));
}

std::unique_ptr<rocksdb::Iterator> Reading::Range(const std::string& from,
                                                  const rocksdb::Slice* to) const {
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  options.iterate_upper_bound = to;
  std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(options));
  if (batch)
    it.reset(batch->NewIteratorWithBase(db->DefaultColumnFamily(), it.release(), &options));
  it->Seek(from);
  return it;
}

std::unique_ptr<rocksdb::Iterator> Reading::Walk(const std::string& from,
                                                 const rocksdb::Slice* to) const {
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  options.iterate_upper_bound = to;
  options.fill_cache = false;
  std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(options));
  it->Seek(from);
  return it;
}

EndpointState StateOf(Standing standing) {
  switch (standing) {
    case Standing::kUp:
      return EndpointState::kUp;
    case Standing::kDraining:
      return EndpointState::kDraining;
    default:
      return EndpointState::kSuspect;
  }
}

Result<SessionFacts> ReadSession(const Reading& reading, const std::string& id) {
  SessionFacts out;
  DW_ASSIGN(std::optional<std::string> session, reading.Get(keys::Session(id)));
  out.live = session.has_value();
  DW_ASSIGN(std::optional<Record> mark, reading.GetRecord(keys::SessionMark(id)));
  if (!mark) return out;
  out.mark.emplace();
  if (!out.mark->ParseFromString(mark->value)) return CorruptValue(mark->key);
  return out;
}

Standing StandingOf(const record::Registration& registration, const SessionFacts& session,
                    const std::optional<OrphanState>& orphan) {
  if (registration.has_ended()) return Standing::kNone;
  const Standing own = registration.draining() ? Standing::kDraining : Standing::kUp;
  if (registration.session_id().empty()) return own;
  if (!session.live) return orphan && orphan->kept ? Standing::kKept : Standing::kNone;
  if (!session.mark) return own;
  if (session.mark->state() == pb::ENDPOINT_STATE_SUSPECT) return Standing::kSuspect;
  return session.mark->state() == pb::ENDPOINT_STATE_DRAINING ? Standing::kDraining : own;
}

pb::Endpoint EndpointOf(const record::Registration& registration, EndpointState state,
                        uint64_t created) {
  const pb::EndpointSpec& spec = registration.endpoint();
  pb::Endpoint out;
  out.set_url(spec.url());
  out.set_state(static_cast<pb::EndpointState>(state));
  out.set_priority(spec.priority());
  out.set_weight(spec.has_weight() ? spec.weight() : limits::kWeightDefault);
  out.set_region(spec.region());
  out.set_zone(spec.zone());
  *out.mutable_labels() = spec.labels();
  out.set_static_(registration.session_id().empty());
  out.set_created(created);
  out.set_match(spec.match());
  out.set_identity(spec.identity());
  return out;
}

RowEntry EntryOf(const record::Registration& registration, const std::string& instance,
                 Standing standing, uint64_t created) {
  RowEntry out;
  out.state = StateOf(standing);
  out.priority = registration.endpoint().priority();
  out.instance = instance;
  out.endpoint = Deterministic(EndpointOf(registration, out.state, created));
  return out;
}

pb::Event EventOf(pb::Event::Kind kind, const Address& address, const std::string& instance,
                  const record::Registration& registration, EndpointState state, uint64_t created) {
  static constexpr char kHex[] = "0123456789abcdef";
  pb::Event out;
  out.set_kind(kind);
  out.set_address(address.text());
  for (unsigned char c : instance) {
    out.mutable_instance()->push_back(kHex[c >> 4]);
    out.mutable_instance()->push_back(kHex[c & 15]);
  }
  *out.mutable_endpoint() = EndpointOf(registration, state, created);
  out.set_by(registration.identity().empty() ? registration.peer() : registration.identity());
  out.set_at_wall_ms(registration.at_wall_ms());
  return out;
}

std::optional<Policy> PolicyOf(const record::AddressPolicy& policy) {
  if (policy.has_ended()) return std::nullopt;
  return static_cast<Policy>(policy.policy());
}

pb::Event EventOf(const Address& address, const record::AddressPolicy& policy) {
  pb::Event out;
  out.set_kind(pb::Event::KIND_POLICY);
  out.set_address(address.text());
  if (policy.has_ended()) {
    out.set_by(policy.ended().by());
    out.set_at_wall_ms(policy.ended().at_wall_ms());
    return out;
  }
  out.set_policy(policy.policy());
  out.set_by(policy.identity().empty() ? policy.peer() : policy.identity());
  out.set_at_wall_ms(policy.at_wall_ms());
  return out;
}

Status EachRegistration(const Reading& reading, const std::string& from, const std::string& to,
                        const std::function<bool(Registered&)>& each) {
  absl::flat_hash_map<std::string, SessionFacts> sessions;
  const rocksdb::Slice upper(to);
  auto it = reading.Range(from, &upper);
  // Seen with a batch on top: the bound of the base alone does not end the walk.
  for (; it->Valid() && it->key().compare(upper) < 0; it->Next()) {
    DW_ASSIGN(Record stored, DecodeRecord(it->key().ToString(), it->value().ToStringView()));
    DW_ASSIGN(auto parsed, keys::ParseRegistration(stored.key));
    Registered item{stored.key, std::move(parsed.second), std::move(parsed.first), {}, 0, {}};
    if (!item.registration.ParseFromString(stored.value)) return CorruptValue(stored.key);
    item.created = stored.created;
    const std::string& sid = item.registration.session_id();
    SessionFacts session;
    std::optional<OrphanState> orphan;
    if (!sid.empty() && !item.registration.has_ended()) {
      auto known = sessions.find(sid);
      if (known == sessions.end()) {
        DW_ASSIGN(SessionFacts facts, ReadSession(reading, sid));
        known = sessions.emplace(sid, std::move(facts)).first;
      }
      session = known->second;
      if (!session.live) {
        DW_ASSIGN(std::optional<std::string> value, reading.Get(keys::Orphan(stored.key)));
        if (value) {
          DW_ASSIGN(orphan, DecodeOrphan(*value));
        }
      }
    }
    item.standing = StandingOf(item.registration, session, orphan);
    if (!each(item)) return {};
  }
  return FromRocks(it->status(), "reading registrations");
}

}  // namespace datawire::directory
