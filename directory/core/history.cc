#include "core/history.h"

#include <algorithm>

#include "datawire/record/v1/record.pb.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using Entry = pb::HistoryResponse::Entry;

constexpr size_t kReadAtOnce = 1 << 20;
constexpr size_t kMostEntries = 1'000;
constexpr int kAttempts = 3;  // history may be trimmed between its chunks

class Story {
 public:
  Story(const Ground& ground, const Address& address) : ground_(ground), address_(address) {}

  Status Tell() {
    Status told;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      entries_.clear();
      DW_ASSIGN(floor_, ground_.view.HistoryBegins());
      told = ReadHistory();
      if (told.code() != Code::kAborted) break;
    }
    DW_RETURN_IF_ERROR(told);
    return ReadRecords();
  }

  void Fill(pb::HistoryResponse* out) {
    std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return a.revision().number() < b.revision().number();
    });
    const size_t first = entries_.size() - std::min(entries_.size(), kMostEntries);
    for (size_t i = first; i < entries_.size(); ++i) *out->add_entries() = std::move(entries_[i]);
    ToWire(floor_, out->mutable_after());
  }

 private:
  Entry& Add(Revision at) {
    // A busy address has more events than are told: the oldest go.
    if (entries_.size() >= 2 * kMostEntries)
      entries_.erase(entries_.begin(), entries_.begin() + kMostEntries);
    Entry& entry = entries_.emplace_back();
    ToWire(at, entry.mutable_revision());
    return entry;
  }

  Status ReadHistory() {
    for (Revision after = floor_;;) {
      DW_ASSIGN(const auto chunk, ground_.view.History(after, kReadAtOnce));
      if (chunk.empty()) return {};
      for (const auto& [at, bytes] : chunk) {
        after = at;
        if (bytes.find(address_.text()) == std::string::npos) continue;
        record::v1::History history;
        if (!history.ParseFromString(bytes))
          return {Code::kCorrupt, "the history of revision " + at.ToString() + " does not parse"};
        for (auto& event : *history.mutable_events())
          if (event.address() == address_.text()) *Add(at).mutable_event() = std::move(event);
      }
    }
  }

  // What history does not tell any more.
  Status ReadRecords() {
    Status bad;
    const auto each = [&](const Record& record) {
      record::v1::Registration registration;
      const auto key = keys::ParseRegistration(record.key);
      if (!key.ok() || !registration.ParseFromString(record.value)) {
        bad = {Code::kCorrupt, "a registration record does not parse"};
        return false;
      }
      AddRecord(record, key->second, registration);
      return true;
    };
    DW_RETURN_IF_ERROR(ground_.view.Scan(keys::RegistrationsFrom(address_),
                                         keys::RegistrationsTo(address_), each));
    DW_RETURN_IF_ERROR(bad);
    DW_ASSIGN(const auto record, ground_.view.Get(keys::Policy(address_)));
    if (!record || record->modified > floor_.number) return {};
    record::v1::AddressPolicy policy;
    if (!policy.ParseFromString(record->value))
      return {Code::kCorrupt, "a policy record does not parse"};
    pb::Event& event = *Add(ground_.At(record->modified)).mutable_event();
    event.set_kind(pb::Event::KIND_POLICY);
    event.set_address(address_.text());
    if (!policy.has_ended()) event.set_policy(policy.policy());
    event.set_by(policy.has_ended() ? policy.ended().by()
                                    : NameOf({policy.peer(), policy.identity()}));
    event.set_at_wall_ms(policy.has_ended() ? policy.ended().at_wall_ms() : policy.at_wall_ms());
    return {};
  }

  void AddRecord(const Record& record, const std::string& instance,
                 const record::v1::Registration& registration) {
    pb::Event event;
    event.set_address(address_.text());
    event.set_instance(Hex(instance));
    const auto& spec = registration.endpoint();
    pb::Endpoint& endpoint = *event.mutable_endpoint();
    endpoint.set_url(spec.url());
    endpoint.set_priority(spec.priority());
    endpoint.set_weight(spec.has_weight() ? spec.weight() : limits::kWeightDefault);
    endpoint.set_region(spec.region());
    endpoint.set_zone(spec.zone());
    *endpoint.mutable_labels() = spec.labels();
    endpoint.set_static_(registration.session_id().empty());
    endpoint.set_created(record.created);
    endpoint.set_match(spec.match());
    endpoint.set_identity(spec.identity());
    if (record.created <= floor_.number) {
      event.set_by(NameOf({registration.peer(), registration.identity()}));
      event.set_at_wall_ms(registration.at_wall_ms());
      *Add(ground_.At(record.created)).mutable_event() = event;
    }
    if (!registration.has_ended() || record.modified > floor_.number) return;
    event.set_kind(pb::Event::KIND_GONE);
    event.set_reason(registration.ended().reason());
    event.set_by(registration.ended().by());
    event.set_at_wall_ms(registration.ended().at_wall_ms());
    *Add(ground_.At(record.modified)).mutable_event() = std::move(event);
  }

  const Ground& ground_;
  const Address& address_;
  Revision floor_;
  std::vector<Entry> entries_;
};

}  // namespace

Result<pb::HistoryResponse> History(const Ground& ground, const pb::HistoryRequest& request) {
  DW_ASSIGN(const Address address, Address::Parse(request.address()));
  Story story(ground, address);
  DW_RETURN_IF_ERROR(story.Tell());
  pb::HistoryResponse out;
  story.Fill(&out);
  *out.mutable_source() = ground.source;
  return out;
}

}  // namespace datawire::directory
