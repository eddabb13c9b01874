#include "view/stager.h"

#include <algorithm>

#include "view/audit.h"
#include "view/principal.h"

namespace datawire::directory {
namespace {

bool IsSubtree(const record::Registration& r) {
  return r.endpoint().match() == pb::MATCH_SUBTREE;
}

// Index, queues, history and audit are only walked.
bool ReadByKey(std::string_view key) {
  return std::string_view("xwhjm").find(key.front()) == std::string_view::npos;
}

bool SameMark(const SessionFacts& a, const SessionFacts& b) {
  if (a.mark.has_value() != b.mark.has_value()) return false;
  return !a.mark || (a.mark->state() == b.mark->state() && a.mark->reason() == b.mark->reason());
}

}  // namespace

Stager::Stager(rocksdb::DB& db, rocksdb::WriteBatchWithIndex& out, const Batch& batch,
               const AppliedState& before, Recent* recent)
    : reading_{.db = &db, .batch = &out},
      before_(recent ? Reading{.db = &db, .recent = recent} : reading_),
      out_(out),
      batch_(batch) {
  staged_.at = batch.at;
  staged_.applied = before;
  if (batch.complete) staged_.applied.at = batch.at;
  staged_.published = std::make_shared<Published>();
  staged_.published->at = batch.at;
  staged_.published->resync = batch.listing && batch.complete;
}

Status Stager::Run() {
  DW_RETURN_IF_ERROR(LoadBatch());
  if (!batch_.listing) {
    DW_ASSIGN(std::string audit, StageAudit(batch_, before_, &staged_.applied));
    if (!audit.empty()) Put(keys::Audit(batch_.at.number), std::move(audit));
  }
  WriteRecords();
  for (auto claim = claims_.begin(); claim != claims_.end();) {
    const Address address = *claim->second.address;
    const std::string to = keys::RegistrationsTo(address);
    std::vector<Claim*> of_address;
    for (; claim != claims_.end() && claim->first < to; ++claim)
      of_address.push_back(&claim->second);
    DW_RETURN_IF_ERROR(StageAddress(address, std::move(of_address)));
  }
  for (auto& [key, policy] : policies_)
    if (!policy.staged) DW_RETURN_IF_ERROR(StageAddress(policy.address, {}));
  DW_RETURN_IF_ERROR(StageDomains());
  DW_RETURN_IF_ERROR(StagePrincipals());
  DW_RETURN_IF_ERROR(StageEndedSessions());
  if (history_.events_size() > 0 && !batch_.listing) {
    staged_.published->events = history_.SerializeAsString();
    const std::string key = keys::History(batch_.at.number);
    staged_.applied.history_bytes += key.size() + staged_.published->events.size();
    std::string value;
    AppendU64(staged_.applied.history_bytes, &value);
    Put(key, value + staged_.published->events);
  }
  Put(keys::kApplied, EncodeApplied(staged_.applied));
  return FromRocks(write_, "staging");
}

// ---- what was

Status Stager::LoadBatch() {
  for (const std::string& key : batch_.erased)
    if (key.starts_with("s/") || key.starts_with("q/") || key.starts_with("t/"))
      DW_RETURN_IF_ERROR(LoadSessionChange(key, nullptr));
  for (const Record& put : batch_.puts)
    if (put.key.starts_with("l/")) staged_.published->records.push_back(put);
  for (const Record& put : batch_.puts)
    if (put.key.starts_with("s/") || put.key.starts_with("q/") || put.key.starts_with("t/"))
      DW_RETURN_IF_ERROR(LoadSessionChange(put.key, &put));
  for (const std::string& key : batch_.erased)
    if (key.starts_with("p/")) DW_RETURN_IF_ERROR(LoadPolicy(key, nullptr));
  for (const Record& put : batch_.puts)
    if (put.key.starts_with("p/")) DW_RETURN_IF_ERROR(LoadPolicy(put.key, &put));
  for (const std::string& key : batch_.erased) {
    if (!key.starts_with("d/")) continue;
    DW_ASSIGN(Claim * claim, LoadClaim(key));
    claim->in_batch = true;
    claim->after.reset();
  }
  for (const Record& put : batch_.puts) {
    if (!put.key.starts_with("d/")) continue;
    DW_ASSIGN(Claim * claim, LoadClaim(put.key));
    claim->in_batch = true;
    claim->after.emplace();
    if (!claim->after->ParseFromString(put.value)) return CorruptValue(put.key);
    claim->created = put.created;
    claim->modified = put.modified;
    if (!claim->after->session_id().empty())
      DW_RETURN_IF_ERROR(LoadSession(claim->after->session_id()).status());
  }
  std::vector<std::string> touched;
  for (const auto& [id, session] : sessions_)
    if (session.touched) touched.push_back(id);
  for (const std::string& id : touched) DW_RETURN_IF_ERROR(LoadSessionClaims(id));
  return {};
}

Status Stager::LoadPolicy(const std::string& key, const Record* put) {
  DW_ASSIGN(Address address, Address::FromKey(std::string_view(key).substr(2)));
  PolicyChange change{std::move(address), {}, {}};
  DW_ASSIGN(const std::optional<Record> stored, reading_.GetRecord(key));
  if (stored) {
    change.modified_before = stored->modified;
    if (!change.before.emplace().ParseFromString(stored->value)) return CorruptValue(key);
  }
  if (put) {
    change.modified = put->modified;
    if (!change.after.emplace().ParseFromString(put->value)) return CorruptValue(key);
  }
  policies_.emplace(key.substr(2), std::move(change));
  return {};
}

Result<Stager::Session*> Stager::LoadSession(const std::string& id) {
  if (auto known = sessions_.find(id); known != sessions_.end()) return &known->second;
  Session session;
  DW_ASSIGN(session.before, ReadSession(before_, id));
  session.after = session.before;
  DW_ASSIGN(std::optional<Record> ended, before_.GetRecord(keys::SessionEnded(id)));
  if (ended) {
    session.ended_modified = ended->modified;
    session.ended.emplace();
    if (!session.ended->ParseFromString(ended->value)) return CorruptValue(ended->key);
  }
  return &sessions_.emplace(id, std::move(session)).first->second;
}

Status Stager::LoadSessionChange(const std::string& key, const Record* put) {
  DW_ASSIGN(Session * session, LoadSession(key.substr(2)));
  if (put != nullptr) staged_.published->records.push_back(*put);
  if (put == nullptr && key[0] == 's') staged_.published->sessions_gone.push_back(key.substr(2));
  if (key[0] == 's') {
    session->after.live = put != nullptr;
  } else if (key[0] == 'q') {
    session->after.mark.reset();
    if (put && !session->after.mark.emplace().ParseFromString(put->value)) return CorruptValue(key);
  } else {
    if (session->ended_modified != 0)
      Erase(keys::Sweep(keys::Queue::kTombstones, session->ended_modified, key));
    session->ended.reset();
    session->ended_modified = put ? put->modified : 0;
    if (put && !session->ended.emplace().ParseFromString(put->value)) return CorruptValue(key);
    session->index_changed = put != nullptr;
  }
  session->touched =
      session->before.live != session->after.live || !SameMark(session->before, session->after);
  return {};
}

Result<Stager::Claim*> Stager::LoadClaim(const std::string& key) {
  if (auto known = claims_.find(key); known != claims_.end()) return &known->second;
  Claim claim;
  claim.key = key;
  DW_ASSIGN(auto parsed, keys::ParseRegistration(key));
  claim.address = std::move(parsed.first);
  claim.instance = std::move(parsed.second);
  std::optional<Record> read;
  const auto given = batch_.before.find(key);
  if (given == batch_.before.end()) {
    DW_ASSIGN(read, before_.GetRecord(key));
  }
  const std::optional<Record>& stored = given == batch_.before.end() ? read : given->second;
  if (stored) {
    claim.created = claim.created_before = stored->created;
    claim.modified = claim.modified_before = stored->modified;
    if (!claim.before.emplace().ParseFromString(stored->value)) return CorruptValue(key);
    claim.after = claim.before;
    SessionFacts facts;
    if (const std::string& id = claim.before->session_id(); !id.empty()) {
      DW_ASSIGN(Session * session, LoadSession(id));
      facts = session->before;
      // k/ is there only while the session is not.
      std::optional<std::string> orphan;
      if (!facts.live) {
        DW_ASSIGN(orphan, before_.Get(keys::Orphan(key)));
      }
      if (orphan) {
        DW_ASSIGN(claim.orphan, DecodeOrphan(*orphan));
      }
    }
    claim.was = StandingOf(*claim.before, facts, claim.orphan);
  }
  return &claims_.emplace(key, std::move(claim)).first->second;
}

Status Stager::LoadSessionClaims(const std::string& id) {
  const std::string prefix = keys::IndexPrefix(id), end = keys::After(prefix);
  const rocksdb::Slice upper(end);
  std::vector<std::string> found;
  auto it = reading_.Range(prefix, &upper);
  for (; it->Valid() && it->key().compare(upper) < 0; it->Next())
    found.push_back("d/" + it->key().ToString().substr(prefix.size()));
  DW_RETURN_IF_ERROR(FromRocks(it->status(), "reading a session's registrations"));
  for (const std::string& key : found) DW_RETURN_IF_ERROR(LoadClaim(key).status());
  return {};
}

// Kept last endpoints of an address that this batch does not mention.
Status Stager::LoadKept(const Address& address, std::vector<Claim*>* claims) {
  const std::string from = keys::OrphansFrom(address), to = keys::OrphansTo(address);
  const rocksdb::Slice upper(to);
  std::vector<std::string> found;
  auto it = reading_.Range(from, &upper);
  for (; it->Valid() && it->key().compare(upper) < 0; it->Next()) {
    DW_ASSIGN(OrphanState orphan, DecodeOrphan(it->value().ToStringView()));
    std::string key = "d/" + it->key().ToString().substr(2);
    if (orphan.kept && !claims_.contains(key)) found.push_back(std::move(key));
  }
  DW_RETURN_IF_ERROR(FromRocks(it->status(), "reading kept endpoints"));
  for (const std::string& key : found) {
    DW_ASSIGN(Claim * claim, LoadClaim(key));
    claims->push_back(claim);
  }
  return {};
}

// ---- what follows

void Stager::WriteRecords() {
  for (const std::string& key : batch_.erased) Erase(key);
  for (const Record& put : batch_.puts) Put(put.key, EncodeRecord(put));
  for (auto& [id, session] : sessions_)
    staged_.applied.sessions += int{session.after.live} - int{session.before.live};
}

Status Stager::StageAddress(const Address& address, std::vector<Claim*> claims) {
  Rows rows;
  DW_ASSIGN(std::optional<std::string> stored, before_.Get(keys::Row(address)));
  rows.had_row = stored.has_value();
  if (stored) {
    DW_ASSIGN(rows.row, RowState::Decode(*stored));
  }
  if (rows.row.total() > rows.row.live()) DW_RETURN_IF_ERROR(LoadKept(address, &claims));
  const auto policy = policies_.find(address.Key());
  const bool below = policy != policies_.end() ||
                     std::any_of(claims.begin(), claims.end(), [](const Claim* claim) {
                       return (claim->before && IsSubtree(*claim->before)) ||
                              (claim->after && IsSubtree(*claim->after));
                     });
  if (below) {
    DW_ASSIGN(stored, before_.Get(keys::SubtreeRow(address)));
    rows.had_subtree = stored.has_value();
    if (stored) {
      DW_ASSIGN(rows.subtree, RowState::Decode(*stored));
    }
  }
  std::sort(claims.begin(), claims.end(),
            [](const Claim* a, const Claim* b) { return a->key < b->key; });
  if (policy != policies_.end()) StagePolicy(policy->second, rows);
  rows.subtree.set_policy(rows.row.policy());
  Decide(rows, claims);
  for (Claim* claim : claims) WriteDerived(*claim);
  DW_RETURN_IF_ERROR(PatchRows(address, rows, claims));
  WriteRow('r', address, rows.row, rows.had_row);
  if (below) WriteRow('u', address, rows.subtree, rows.had_subtree);
  for (const Claim* claim : claims) AddEvent(address, *claim);
  return {};
}

// The last-endpoint rule, for the address and, for subtree registrations, also for what is below
// it: an expiry leaves neither without an answer.
void Stager::Decide(const Rows& rows, std::vector<Claim*>& claims) {
  int64_t live = rows.row.live(), live_below = rows.subtree.live();
  int64_t up = 0, up_below = 0;
  for (Claim* claim : claims) {
    if (claim->after) {
      const std::string& id = claim->after->session_id();
      const auto session = sessions_.find(id);
      const bool known = session != sessions_.end();
      // A kept one that was registered anew stands by its new session alone.
      const bool anew = claim->before && claim->before->session_id() != id;
      const auto orphan = anew ? std::nullopt : claim->orphan;
      claim->is = StandingOf(*claim->after, known ? session->second.after : SessionFacts{}, orphan);
      // It was there: before the batch, or since an op of the batch.
      const bool lived =
          Live(claim->was) ||
          (claim->in_batch &&
           (batch_.listing ? EndedLast(*claim, claims) : known && session->second.before.live));
      claim->candidate = claim->is == Standing::kNone && !claim->after->has_ended() && lived &&
                         known && session->second.ended &&
                         session->second.ended->reason() == pb::REASON_EXPIRED;
    }
    if (Live(claim->was)) --live, live_below -= IsSubtree(*claim->before);
    if (Live(claim->is)) ++live, live_below += IsSubtree(*claim->after);
    if (claim->was == Standing::kUp) --up, up_below -= IsSubtree(*claim->before);
    if (claim->is == Standing::kUp) ++up, up_below += IsSubtree(*claim->after);
  }
  up += rows.row.up();
  up_below += rows.subtree.up();
  for (Claim* claim : claims) {
    if (!claim->after) continue;
    const bool below = IsSubtree(*claim->after);
    if (claim->candidate && (live == 0 || (below && live_below == 0))) {
      claim->is = Standing::kKept;
    } else if (claim->is == Standing::kKept && (below ? up_below : up) > 0) {
      claim->is = Standing::kNone;
      claim->superseded = true;
    }
  }
}

// Of a listed registration whose session has ended: nothing came or went at its address later, so
// that it was the last one.
bool Stager::EndedLast(const Claim& claim, const std::vector<Claim*>& claims) const {
  const auto ended = [this](const Claim& one) -> uint64_t {
    if (!one.after) return 0;
    const auto session = sessions_.find(one.after->session_id());
    return session == sessions_.end() ? 0 : session->second.ended_modified;
  };
  const uint64_t own = ended(claim);
  return std::none_of(claims.begin(), claims.end(), [&](const Claim* other) {
    return other != &claim && std::max(other->modified, ended(*other)) > own;
  });
}

void Stager::StagePolicy(PolicyChange& change, Rows& rows) {
  const auto policy_of = [](const std::optional<record::AddressPolicy>& policy) {
    return policy ? PolicyOf(*policy) : std::nullopt;
  };
  const std::string key = keys::Policy(change.address);
  change.staged = true;
  if (change.before && change.before->has_ended())
    Erase(keys::Sweep(keys::Queue::kTombstones, change.modified_before, key));
  if (change.after && change.after->has_ended())
    Enqueue(keys::Queue::kTombstones, change.modified, key, change.modified);
  rows.row.set_policy(policy_of(change.after));
  if (policy_of(change.before) != policy_of(change.after) && change.after)
    *history_.add_events() = EventOf(change.address, *change.after);
}

void Stager::WriteDerived(Claim& claim) {
  const auto session_of = [](const std::optional<record::Registration>& r) {
    return r && !r->has_ended() ? r->session_id() : std::string();
  };
  const std::string before = session_of(claim.before), after = session_of(claim.after);
  if (before != after && !before.empty()) {
    Erase(keys::Index(before, claim.key));
    sessions_.at(before).index_changed = true;
  }
  if (before != after && !after.empty()) Put(keys::Index(after, claim.key), "");
  MoveOrphan(claim);
  MoveTombstone(claim);
  staged_.applied.registrations += int{Listed(claim.is)} - int{Listed(claim.was)};
  if (Live(claim.was)) --principals_[PrincipalOf(claim.before->identity(), claim.before->peer())];
  if (Live(claim.is)) ++principals_[PrincipalOf(claim.after->identity(), claim.after->peer())];
}

void Stager::MoveOrphan(Claim& claim) {
  const auto queue_of = [](const OrphanState& orphan) {
    return orphan.kept ? keys::Queue::kLastEndpoints : keys::Queue::kTombstones;
  };
  std::optional<OrphanState> now;
  if (claim.after && !claim.after->has_ended() && !Live(claim.is)) {
    now = OrphanState{claim.is == Standing::kKept, batch_.at.number};
    if (batch_.listing) {
      const auto session = sessions_.find(claim.after->session_id());
      if (session != sessions_.end() && session->second.ended_modified != 0)
        now->since = session->second.ended_modified;
    }
    if (claim.orphan && claim.orphan->kept == now->kept) {
      if (!claim.in_batch) return;
      now->since = claim.orphan->since;
    }
  }
  if (claim.orphan) {
    Erase(keys::Sweep(queue_of(*claim.orphan), claim.orphan->since, claim.key));
    if (!now) Erase(keys::Orphan(claim.key));
  }
  if (!now) return;
  Put(keys::Orphan(claim.key), EncodeOrphan(*now));
  Enqueue(queue_of(*now), now->since, claim.key, claim.modified);
}

void Stager::MoveTombstone(Claim& claim) {
  if (!claim.in_batch) return;
  if (claim.before && claim.before->has_ended())
    Erase(keys::Sweep(keys::Queue::kTombstones, claim.modified_before, claim.key));
  if (claim.after && claim.after->has_ended())
    Enqueue(keys::Queue::kTombstones, claim.modified, claim.key, claim.modified);
}

Status Stager::PatchRows(const Address& address, Rows& rows, const std::vector<Claim*>& claims) {
  for (const Claim* claim : claims) {
    if (!claim->in_batch && claim->was == claim->is) continue;
    if (Listed(claim->was)) {
      rows.row.Remove(claim->instance, StateOf(claim->was), Live(claim->was));
      if (IsSubtree(*claim->before))
        rows.subtree.Remove(claim->instance, StateOf(claim->was), Live(claim->was));
    }
  }
  for (const Claim* claim : claims) {
    if (!claim->in_batch && claim->was == claim->is) continue;
    if (!Listed(claim->is)) continue;
    RowEntry entry = EntryOf(*claim->after, claim->instance, claim->is, claim->created);
    if (IsSubtree(*claim->after)) rows.subtree.Insert(entry, Live(claim->is));
    rows.row.Insert(std::move(entry), Live(claim->is));
  }
  if (rows.row.WantsRefill()) DW_RETURN_IF_ERROR(Refill(address, rows.row, false));
  if (rows.subtree.WantsRefill()) DW_RETURN_IF_ERROR(Refill(address, rows.subtree, true));
  return {};
}

Status Stager::Refill(const Address& address, RowState& row, bool subtree) {
  row.BeginRefill();
  return EachRegistration(reading_, keys::RegistrationsFrom(address),
                          keys::RegistrationsTo(address), [&](Registered& r) {
                            if (Listed(r.standing) && (!subtree || IsSubtree(r.registration)))
                              row.Offer(EntryOf(r.registration, r.instance, r.standing, r.created));
                            return true;
                          });
}

void Stager::WriteRow(char kind, const Address& address, RowState& row, bool had) {
  const bool below = kind == 'u';
  const bool empty = below ? row.total() == 0 : row.empty();  // a policy alone is for the address
  if (!had && empty) return;
  std::string key = below ? keys::SubtreeRow(address) : keys::Row(address);
  const int change = int{!empty} - int{had};
  DomainChange& domain = domains_[std::string(address.domain())];
  if (below && change != 0) domain.subtrees[static_cast<uint8_t>(address.depth())] += change;
  if (!below && change != 0) domain.rows += change, staged_.applied.addresses += change;
  const uint64_t hash = row.hash();
  if (empty) {
    Erase(std::move(key));
  } else {
    Put(std::move(key), row.Encode(RowBasis(kind, address), batch_.at));
    if (had && row.hash() == hash) return;  // only the counts behind it changed
  }
  auto& changes = staged_.published->addresses;
  if (changes.empty() || !(changes.back().address == address))
    changes.push_back({address, below});
  else
    changes.back().subtree |= below;
}

void Stager::AddEvent(const Address& address, const Claim& claim) {
  const bool gone = Listed(claim.was) && !Listed(claim.is);
  if (!gone && !Listed(claim.is)) return;
  if (!claim.in_batch && claim.was == claim.is) return;
  const auto& shown = gone ? claim.before : claim.after;
  pb::Event event =
      EventOf(gone ? pb::Event::KIND_GONE : pb::Event::KIND_PUT, address, claim.instance, *shown,
              StateOf(gone ? claim.was : claim.is), gone ? claim.created_before : claim.created);
  const auto session = sessions_.find(shown->session_id());
  const bool known = session != sessions_.end();
  const auto because = [&event](const auto& ended) {
    event.set_reason(ended.reason());
    event.set_by(ended.by());
    event.set_at_wall_ms(ended.at_wall_ms());
  };
  if (claim.superseded) {
    event.set_reason(pb::REASON_SUPERSEDED);
  } else if (gone && claim.after && claim.after->has_ended()) {
    because(claim.after->ended());
  } else if ((gone || claim.is == Standing::kKept) && known && session->second.ended) {
    because(*session->second.ended);
  } else if (!gone && claim.in_batch && Listed(claim.was) &&
             claim.before->session_id() != claim.after->session_id()) {
    event.set_reason(pb::REASON_REPLACED);
  } else if (!gone && claim.in_batch && Listed(claim.was) &&
             claim.before->draining() != claim.after->draining() &&
             claim.before->op_id() == claim.after->op_id()) {
    if (claim.after->draining()) event.set_reason(pb::REASON_DRAINED);
    event.set_by(claim.after->drained_by());
    event.set_at_wall_ms(claim.after->drained_wall_ms());
  } else if (!gone && known && session->second.after.mark) {
    const auto& mark = *session->second.after.mark;
    event.set_reason(mark.reason());
    if (!claim.in_batch) event.set_by(mark.by()), event.set_at_wall_ms(mark.at_wall_ms());
  } else if (!gone && !claim.in_batch) {  // up again: by its holder or an operator, nobody noted it
    event.clear_by();
    event.clear_at_wall_ms();
  }
  *history_.add_events() = std::move(event);
}

Status Stager::StageDomains() {
  for (const auto& [name, change] : domains_) {
    const bool moved =
        change.rows != 0 || std::any_of(change.subtrees.begin(), change.subtrees.end(),
                                        [](const auto& depth) { return depth.second != 0; });
    if (!moved) continue;
    const std::string key = keys::Domain(name);
    DW_ASSIGN(std::optional<std::string> stored, before_.Get(key));
    DomainState domain;
    if (stored) {
      DW_ASSIGN(domain, DecodeDomain(*stored));
    }
    domain.rows = static_cast<uint32_t>(domain.rows + change.rows);
    for (const auto& [depth, delta] : change.subtrees) {
      uint32_t& count = domain.subtrees[depth];
      count = static_cast<uint32_t>(count + delta);
      if (count == 0) domain.subtrees.erase(depth);
    }
    if (domain.rows == 0)
      Erase(key);
    else
      Put(key, EncodeDomain(domain));
  }
  return {};
}

Status Stager::StagePrincipals() {
  for (const auto& [name, change] : principals_) {
    if (name.empty() || change == 0) continue;
    const std::string key = keys::Principal(name);
    DW_ASSIGN(const std::optional<std::string> stored, before_.Get(key));
    const int64_t held = (stored ? static_cast<int64_t>(Reader(*stored).U64()) : 0) + change;
    if (held <= 0) {
      Erase(key);
      continue;
    }
    std::string value;
    AppendU64(static_cast<uint64_t>(held), &value);
    Put(key, std::move(value));
  }
  return {};
}

// t/ is due only after the last d/ of its session: as soon as the index of it is empty.
Status Stager::StageEndedSessions() {
  for (const auto& [id, session] : sessions_) {
    if (!session.index_changed || session.ended_modified == 0) continue;
    const std::string prefix = keys::IndexPrefix(id), end = keys::After(prefix);
    const rocksdb::Slice upper(end);
    auto it = reading_.Range(prefix, &upper);
    const bool some = it->Valid() && it->key().compare(upper) < 0;
    DW_RETURN_IF_ERROR(FromRocks(it->status(), "reading a session's registrations"));
    if (some) continue;
    Enqueue(keys::Queue::kTombstones, session.ended_modified, keys::SessionEnded(id),
            session.ended_modified);
  }
  return {};
}

void Stager::Enqueue(keys::Queue queue, uint64_t since, const std::string& key, uint64_t modified) {
  std::string value;
  AppendU64(modified, &value);
  Put(keys::Sweep(queue, since, key), std::move(value));
  staged_.queued.emplace_back(queue, since);
}

void Stager::Put(std::string key, std::string value) {
  if (auto status = out_.Put(key, value); !status.ok() && write_.ok()) write_ = status;
  if (ReadByKey(key)) staged_.written.emplace_back(std::move(key), std::move(value));
}

void Stager::Erase(std::string key) {
  if (auto status = out_.Delete(key); !status.ok() && write_.ok()) write_ = status;
  if (ReadByKey(key)) staged_.written.emplace_back(std::move(key), std::nullopt);
}

}  // namespace datawire::directory
