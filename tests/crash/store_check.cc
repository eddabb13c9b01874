#include "store_check.h"

#include <rocksdb/db.h>

#include "view/audit.h"
#include "view/reading.h"

namespace datawire::directory {
namespace {

using Stored = std::map<std::string, std::string>;

bool Begins(const std::string& key, std::string_view with) {
  return key.starts_with(with);
}

// The row without the revision of its last change, which only time tells.
std::string Content(const std::string& stored) {
  const auto row = RowFromStored(stored);
  pb::Row message;
  if (row == nullptr || !message.ParseFromString(row->bytes)) return "does not parse";
  message.clear_modified();
  return message.ShortDebugString() + " hash " + std::to_string(row->hash);
}

/// Everything derived, computed anew from the records, and compared.
class Anew {
 public:
  explicit Anew(View& view) : view_(view), stored_(Dump(view)) {}
  std::vector<std::string> Run() {
    if (Status status = ReadRegistrations(); !status.ok()) return {status.ToString()};
    if (Status status = ReadPolicies(); !status.ok()) return {status.ToString()};
    Rows('r', rows_);
    Rows('u', subtrees_);
    Prefix("x/", index_);
    Domains();
    Counts();
    Revisions();
    Audit();
    return std::move(defects_);
  }

 private:
  struct Place {
    Address address;
    RowState row;
  };

  Status ReadRegistrations() {
    const Reading reading{&view_.db(), nullptr, nullptr};
    return EachRegistration(reading, "d/", "d0", [this](Registered& item) {
      if (!item.registration.has_ended() && !item.registration.session_id().empty())
        index_.insert(keys::Index(item.registration.session_id(), item.key));
      if (!Listed(item.standing)) return true;
      ++listed_;
      const auto add = [&](char kind, std::map<std::string, Place>& rows) {
        const std::string key =
            kind == 'r' ? keys::Row(item.address) : keys::SubtreeRow(item.address);
        rows.try_emplace(key, Place{item.address, {}})
            .first->second.row.Insert(
                EntryOf(item.registration, item.instance, item.standing, item.created),
                Live(item.standing));
      };
      add('r', rows_);
      if (item.registration.endpoint().match() == pb::MATCH_SUBTREE) add('u', subtrees_);
      return true;
    });
  }

  Status ReadPolicies() {
    Status bad;
    DW_RETURN_IF_ERROR(view_.Scan("p/", "p0", [&](const Record& stored) {
      record::AddressPolicy policy;
      const auto address = Address::FromKey(std::string_view(stored.key).substr(2));
      if (!address.ok() || !policy.ParseFromString(stored.value)) bad = CorruptValue(stored.key);
      if (!bad.ok() || policy.has_ended()) return bad.ok();
      rows_.try_emplace(keys::Row(*address), Place{*address, {}})
          .first->second.row.set_policy(PolicyOf(policy));
      const auto below = subtrees_.find(keys::SubtreeRow(*address));
      if (below != subtrees_.end()) below->second.row.set_policy(PolicyOf(policy));
      return true;
    }));
    return bad;
  }

  void Rows(char kind, std::map<std::string, Place>& rows) {
    std::set<std::string> names;
    for (auto& [key, place] : rows) {
      names.insert(key);
      const auto stored = stored_.find(key);
      if (stored == stored_.end()) continue;
      const std::string anew = place.row.Encode(RowBasis(kind, place.address), view_.Applied());
      if (Content(stored->second) != Content(anew))
        defects_.push_back("row " + Shown(key) + " is " + Content(stored->second) +
                           ", its records say " + Content(anew));
    }
    Prefix(std::string(1, kind) + "/", names);
  }

  // The keys with a prefix are these.
  void Prefix(const std::string& prefix, const std::set<std::string>& wanted) {
    for (const std::string& key : wanted)
      if (!stored_.contains(key)) defects_.push_back("missing: " + Shown(key));
    for (auto it = stored_.lower_bound(prefix); it != stored_.end() && Begins(it->first, prefix);
         ++it)
      if (!wanted.contains(it->first))
        defects_.push_back("follows from nothing: " + Shown(it->first));
  }

  void Domains() {
    std::map<std::string, DomainState> domains;
    for (const auto& [key, place] : rows_) ++domains[keys::Domain(place.address.domain())].rows;
    for (const auto& [key, place] : subtrees_)
      ++domains[keys::Domain(place.address.domain())]
            .subtrees[static_cast<uint8_t>(place.address.depth())];
    std::set<std::string> names;
    for (const auto& [key, state] : domains) {
      names.insert(key);
      const auto stored = stored_.find(key);
      if (stored != stored_.end() && stored->second != EncodeDomain(state))
        defects_.push_back("domain " + Shown(key) + " counts " + Shown(stored->second) +
                           ", its rows say " + Shown(EncodeDomain(state)));
    }
    Prefix("y/", names);
  }

  void Counts() {
    size_t sessions = 0;
    for (const auto& [key, value] : stored_) sessions += Begins(key, "s/");
    const View::Counts counts = view_.counts();
    const auto compare = [this](const char* what, uint64_t stored, uint64_t anew) {
      if (stored != anew)
        defects_.push_back("counted " + std::to_string(stored) + ' ' + what + ", there are " +
                           std::to_string(anew));
    };
    compare("registrations", counts.registrations, listed_);
    compare("addresses", counts.addresses, rows_.size());
    compare("sessions", counts.sessions, sessions);
  }

  void Revisions() {
    const std::set<uint64_t> numbers = RevisionsIn(view_);
    if (!numbers.empty() && *numbers.rbegin() > view_.Applied().number)
      defects_.push_back("something of revision " + std::to_string(*numbers.rbegin()) +
                         ", the store is at " + view_.Applied().ToString());
  }

  // The chain of the audit log is whole, and each record that is there has its entry.
  void Audit() {
    const Reading reading{.db = &view_.db()};
    const auto check = VerifyAudit(reading, {}, [] { return true; });
    if (!check.ok() || check->broken)
      defects_.push_back("audit log: " + (check.ok() ? "broken at " + check->broken->at.ToString() +
                                                           ", " + check->broken->why
                                                     : check.status().ToString()));
    if (!check.ok()) return;
    for (const auto& [key, value] : stored_) {
      const auto record = DecodeRecord(key, value);
      if (!keys::IsRecord(key) || !record.ok() || record->modified <= check->floor) continue;
      const auto audit = stored_.find(keys::Audit(record->modified));
      if (audit == stored_.end() || audit->second.find(key) == std::string::npos)
        defects_.push_back("no audit entry: " + Shown(key) + " of revision " +
                           std::to_string(record->modified));
    }
  }

  View& view_;
  const Stored stored_;
  std::map<std::string, Place> rows_, subtrees_;  // by store key
  std::set<std::string> index_;
  size_t listed_ = 0;
  std::vector<std::string> defects_;
};

}  // namespace

std::map<std::string, std::string> Dump(View& view) {
  std::map<std::string, std::string> out;
  const std::unique_ptr<rocksdb::Iterator> it(view.db().NewIterator({}));
  for (it->SeekToFirst(); it->Valid(); it->Next())
    if (it->key() != keys::kHistoryFloor && !it->key().starts_with("h/"))
      out[it->key().ToString()] = it->value().ToString();
  if (!it->status().ok()) out["unreadable"] = it->status().ToString();
  return out;
}

std::set<uint64_t> RevisionsIn(View& view) {
  std::set<uint64_t> out;
  const std::unique_ptr<rocksdb::Iterator> it(view.db().NewIterator({}));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const std::string key = it->key().ToString();
    if (Begins(key, "h/") || Begins(key, "j/"))
      out.insert(Reader(std::string_view(key).substr(2)).U64());
    if (!keys::IsRecord(key)) continue;
    const auto record = DecodeRecord(key, it->value().ToStringView());
    if (record.ok()) out.insert({record->created, record->modified});
  }
  out.erase(0);
  return out;
}

std::vector<std::string> Contradictions(View& view) {
  return Anew(view).Run();
}

}  // namespace datawire::directory
