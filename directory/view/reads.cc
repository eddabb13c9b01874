// Records, snapshots, history and sweep queues of the view.
#include "datawire/selector.h"
#include "view/impl.h"

namespace datawire::directory {
namespace {

// Rows of `prefix` and below: its own key, then its key and \0. Nothing else sorts in between.
std::pair<std::string, std::string> RowRange(const std::optional<Address>& prefix) {
  if (!prefix) return {"r/", "r0"};
  return {keys::Row(*prefix), keys::Row(*prefix) + '\1'};
}

Status EachRecord(const Reading& reading, const std::string& from, const std::string& to,
                  const std::function<bool(const Record&)>& each) {
  const rocksdb::Slice upper(to);
  auto it = reading.Range(from, &upper);
  for (; it->Valid(); it->Next()) {
    DW_ASSIGN(const Record record, DecodeRecord(it->key().ToString(), it->value().ToStringView()));
    if (!each(record)) return {};
  }
  return FromRocks(it->status(), "scanning");
}

class Held final : public View::Snapshot {
 public:
  explicit Held(std::shared_ptr<const PublishedPoint> point) : point_(std::move(point)) {}
  Revision at() const override { return point_->at; }

  Result<std::vector<Item>> Rows(const std::optional<Address>& prefix, const std::string& after,
                                 size_t most) const override {
    auto [from, to] = RowRange(prefix);
    if (!after.empty()) from = std::max(from, "r/" + after + '\0');
    const rocksdb::Slice upper(to);
    const Reading reading = point_->reading();
    std::vector<Item> out;
    auto it = reading.Range(from, &upper);
    for (; it->Valid() && out.size() < most; it->Next()) {
      DW_ASSIGN(Address address, Address::FromKey(it->key().ToStringView().substr(2)));
      auto row = RowFromStored(it->value().ToStringView());
      if (!row) return CorruptValue(it->key().ToStringView());
      DW_ASSIGN(const std::optional<std::string> below, reading.Get(keys::SubtreeRow(address)));
      out.push_back({std::move(address), std::move(row), below.has_value()});
    }
    DW_RETURN_IF_ERROR(FromRocks(it->status(), "listing"));
    return out;
  }

  Status Registrations(const std::optional<Address>& prefix, const std::string& after, size_t most,
                       std::vector<std::string>* events, std::string* next) const override {
    std::string from = "d/", to = "d0";
    if (prefix) {
      // What is below sorts before the address's own registrations: \0 before \1.
      from = "d/" + prefix->Key() + '\0';
      to = keys::RegistrationsTo(*prefix);
    }
    if (!after.empty()) from = std::max(from, after + '\0');
    std::string last;
    next->clear();
    size_t found = 0;
    DW_RETURN_IF_ERROR(EachRegistration(point_->reading(), from, to, [&](Registered& r) {
      if (found == most) {
        *next = last;
        return false;
      }
      last = r.key;
      if (!Listed(r.standing)) return true;
      ++found;
      events->push_back(EventOf(pb::Event::KIND_PUT, r.address, r.instance, r.registration,
                                StateOf(r.standing), r.created)
                            .SerializeAsString());
      return true;
    }));
    if (!next->empty()) return {};
    return PolicyEvents(prefix, std::max(after, last), most - found, events, next);
  }

  Status Records(const std::string& from, const std::string& to,
                 const std::function<bool(const Record&)>& each) const override {
    return EachRecord(point_->reading(), from, to, each);
  }

  Status Static(std::string after, size_t most, std::vector<pb::ExportedRegistration>* out,
                std::string* next) const override {
    const std::string from = after.empty() ? "d/" : std::move(after) + '\0';
    std::string last;
    next->clear();
    size_t seen = 0;
    return EachRegistration(point_->reading(), from, "d0", [&](Registered& r) {
      if (seen++ == most) {
        *next = last;
        return false;
      }
      last = r.key;
      if (!Listed(r.standing) || !r.registration.session_id().empty()) return true;
      pb::ExportedRegistration& exported = out->emplace_back();
      exported.set_address(r.address.text());
      *exported.mutable_endpoint() = r.registration.endpoint();
      exported.set_created(r.created);
      exported.set_identity(r.registration.identity());
      return true;
    });
  }

  Status Policies(const std::string& after, size_t most, std::vector<pb::ExportedPolicy>* out,
                  std::string* next) const override {
    next->clear();
    return EachPolicy(std::nullopt, after, most, next,
                      [out](const Address& address, const record::AddressPolicy& policy) {
                        pb::ExportedPolicy& exported = out->emplace_back();
                        exported.set_address(address.text());
                        exported.set_policy(policy.policy());
                        exported.set_identity(policy.identity());
                      });
  }

 private:
  Status PolicyEvents(const std::optional<Address>& prefix, const std::string& after, size_t most,
                      std::vector<std::string>* events, std::string* next) const {
    return EachPolicy(prefix, after, most, next,
                      [events](const Address& address, const record::AddressPolicy& policy) {
                        events->push_back(EventOf(address, policy).SerializeAsString());
                      });
  }

  // Those after `after`, or after the last registration, whose key sorts before any policy's.
  template <typename Each>
  Status EachPolicy(const std::optional<Address>& prefix, const std::string& after, size_t most,
                    std::string* next, const Each& each) const {
    std::string from = "p/", to = "p0", last = after;
    if (prefix) {
      from = keys::Policy(*prefix);
      to = from + '\1';
    }
    if (!after.empty()) from = std::max(from, after + '\0');
    const rocksdb::Slice upper(to);
    const Reading reading = point_->reading();
    auto it = reading.Range(from, &upper);
    for (size_t found = 0; it->Valid(); it->Next()) {
      DW_ASSIGN(const Record stored,
                DecodeRecord(it->key().ToString(), it->value().ToStringView()));
      DW_ASSIGN(const Address address, Address::FromKey(std::string_view(stored.key).substr(2)));
      record::AddressPolicy policy;
      if (!policy.ParseFromString(stored.value)) return CorruptValue(stored.key);
      if (found == most) {
        *next = last;
        return {};
      }
      last = stored.key;
      if (policy.has_ended()) continue;
      ++found;
      each(address, policy);
    }
    return FromRocks(it->status(), "reading policies");
  }

  const std::shared_ptr<const PublishedPoint> point_;
};

}  // namespace

Result<std::optional<Record>> View::Get(const std::string& key) const {
  const auto known = impl_->recent->Find(key);
  if (!known) return Reading{.db = impl_->db.get()}.GetRecord(key);
  if (!*known) return std::optional<Record>();
  DW_ASSIGN(Record record, DecodeRecord(key, **known));
  return std::optional<Record>(std::move(record));
}

Status View::Scan(const std::string& from, const std::string& to,
                  const std::function<bool(const Record&)>& each) const {
  return EachRecord(Reading{impl_->db.get(), nullptr, nullptr}, from, to, each);
}

Result<std::vector<std::string>> View::RegistrationsOf(const std::string& session_id) const {
  const std::string prefix = keys::IndexPrefix(session_id), end = keys::After(prefix);
  const rocksdb::Slice upper(end);
  std::vector<std::string> out;
  auto it = Reading{impl_->db.get(), nullptr, nullptr}.Range(prefix, &upper);
  for (; it->Valid(); it->Next()) out.push_back("d/" + it->key().ToString().substr(prefix.size()));
  DW_RETURN_IF_ERROR(FromRocks(it->status(), "reading a session's registrations"));
  return out;
}

Result<uint64_t> View::RegistrationsHeldBy(const std::string& principal) const {
  const std::string key = keys::Principal(principal);
  std::optional<std::string> stored;
  if (auto known = impl_->recent->Find(key)) {
    stored = *std::move(known);
  } else {
    DW_ASSIGN(stored, Reading{.db = impl_->db.get()}.Get(key));
  }
  return stored ? Reader(*stored).U64() : 0;
}

std::unique_ptr<View::Snapshot> View::Hold() const {
  return std::make_unique<Held>(impl_->Point());
}

// ---- history

Result<Revision> View::HistoryBegins() const {
  const auto point = impl_->Point();
  DW_ASSIGN(const std::optional<std::string> stored, point->reading().Get(keys::kHistoryFloor));
  HistoryFloor floor;
  if (stored) {
    DW_ASSIGN(floor, DecodeFloor(*stored));
  }
  return Revision{point->at.epoch, floor.revision};
}

Result<std::vector<std::pair<Revision, std::string>>> View::History(Revision after,
                                                                    size_t most_bytes) const {
  const auto point = impl_->Point();
  const Reading reading = point->reading();
  DW_ASSIGN(const std::optional<std::string> stored, reading.Get(keys::kHistoryFloor));
  HistoryFloor floor;
  if (stored) {
    DW_ASSIGN(floor, DecodeFloor(*stored));
  }
  if (after.epoch != point->at.epoch || after.number < floor.revision || after > point->at)
    return Status(Code::kAborted, "history does not hold what follows revision " +
                                      after.ToString() + ", it reaches from " +
                                      Revision{point->at.epoch, floor.revision}.ToString() +
                                      " to " + point->at.ToString());
  std::vector<std::pair<Revision, std::string>> out;
  const std::string from = keys::History(after.number + 1), to = "h0";
  const rocksdb::Slice upper(to);
  size_t bytes = 0;
  auto it = reading.Range(from, &upper);
  for (; it->Valid() && (out.empty() || bytes < most_bytes); it->Next()) {
    Reader key(it->key().ToStringView().substr(2)), value(it->value().ToStringView());
    const uint64_t number = key.U64();
    value.U64();
    if (!key.ok() || !value.ok()) return CorruptValue(it->key().ToStringView());
    bytes += value.rest().size();
    if (!out.empty() && bytes > most_bytes) break;
    out.emplace_back(Revision{point->at.epoch, number}, value.rest());
  }
  DW_RETURN_IF_ERROR(FromRocks(it->status(), "reading history"));
  impl_->Stop("history");
  return out;
}

void View::TrimHistory(uint64_t up_to) {
  const MutexLock lock(impl_->history_mutex);
  impl_->Trim(std::min(up_to, impl_->applied.load()));
}

// One range deletion for all, in one batch with the floor that says so.
void View::Impl::Trim(uint64_t up_to) {
  if (up_to <= floor.revision) return;
  HistoryFloor now{up_to, floor.bytes};
  const std::string first = "h/", end = keys::History(up_to + 1);
  const rocksdb::Slice upper(end);
  {
    rocksdb::ReadOptions read;
    read.iterate_upper_bound = &upper;
    std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(read));
    it->SeekToLast();
    if (it->Valid() && it->key().starts_with(first))
      now.bytes = Reader(it->value().ToStringView()).U64();
    else if (!it->status().ok())
      return;
  }
  rocksdb::WriteBatch batch;
  batch.DeleteRange(first, end);
  batch.Put(keys::kHistoryFloor, EncodeFloor(now));
  if (db->Write(WriteOptions(), &batch).ok()) floor = now;
}

void View::Impl::KeepHistoryBound(uint64_t history_bytes) {
  const MutexLock lock(history_mutex);
  // An eighth of slack: trimming is rare.
  if (history_bytes - floor.bytes <= options.history_bytes + options.history_bytes / 8) return;
  const uint64_t wanted = history_bytes - options.history_bytes;  // at least so much must go
  uint64_t low = floor.revision, high = state.at.number;
  const std::string to = "h0";
  const rocksdb::Slice upper(to);
  auto it = Reading{db.get(), nullptr, nullptr}.Range(keys::History(low), &upper);
  while (low < high) {  // the first revision whose sum reaches `wanted`
    const uint64_t middle = low + (high - low) / 2;
    it->Seek(keys::History(middle + 1));
    const bool beyond = !it->Valid() || Reader(it->value().ToStringView()).U64() > wanted;
    if (beyond)
      high = middle;
    else
      low = middle + 1;
  }
  Trim(std::min(low + 1, state.at.number));
}

// ---- sweeping

std::vector<Due> View::Impl::DueFrom(keys::Queue queue, uint64_t* from, uint64_t up_to,
                                     size_t most) const {
  std::vector<Due> out;
  const std::string to = keys::After(std::string("w/") + static_cast<char>(queue));
  const rocksdb::Slice upper(to);
  const MutexLock lock(sweep_mutex);
  auto it = Reading{db.get(), nullptr, nullptr}.Range(keys::Sweep(queue, *from, ""), &upper);
  bool first = true;
  for (; it->Valid() && out.size() < most; it->Next()) {
    Reader key(it->key().ToStringView().substr(3));
    Due due;
    due.since = key.U64();
    due.key = std::string(key.rest());
    due.modified = Reader(it->value().ToStringView()).U64();
    if (std::exchange(first, false)) *from = due.since;
    if (due.since > up_to) break;
    out.push_back(std::move(due));
  }
  return out;
}

std::vector<Due> View::DueTombstones(uint64_t up_to, size_t most) const {
  return impl_->DueFrom(keys::Queue::kTombstones, &impl_->tombstones_from, up_to, most);
}

std::vector<Due> View::DueLastEndpoints(uint64_t up_to, size_t most) const {
  return impl_->DueFrom(keys::Queue::kLastEndpoints, &impl_->last_endpoints_from, up_to, most);
}

}  // namespace datawire::directory
