#include "view/row.h"

#include <absl/container/flat_hash_set.h>

#include <algorithm>
#include <tuple>

#include "datawire/limits.h"
#include "datawire/selector.h"
#include "view/encoding.h"

namespace datawire::directory {
namespace {

namespace pb = ::datawire::directory::v1;

constexpr uint8_t kRowVersion = 1;
constexpr uint8_t kShadowed = 1;
constexpr size_t kMostEntries = limits::kAnswerEndpoints;
// Tag and length of each endpoint, and the scalar fields (twice: WithOwnPolicy), leave this much.
constexpr size_t kMostBytes = limits::kAnswerBytes - 128 - 4 * kMostEntries;
constexpr char kUrlTag = 0x0a;        // Endpoint.url = 1
constexpr char kPolicyTag = 0x10;     // Row.policy = 2
constexpr char kEndpointsTag = 0x32;  // Row.endpoints = 6

bool Before(const RowEntry& a, const RowEntry& b) {
  return std::tie(a.state, a.priority, a.instance) < std::tie(b.state, b.priority, b.instance);
}

size_t ReadVarint(std::string_view* in) {
  size_t value = 0;
  for (int shift = 0; shift < 35 && !in->empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(in->front());
    in->remove_prefix(1);
    value |= static_cast<size_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  return value;
}

void AppendVarint(size_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// The head of a stored row, before its entries.
struct Head {
  uint8_t version = 0, status = 0;
  std::optional<Policy> policy;
  uint64_t hash = 0;
  Revision modified;
  uint32_t total = 0, live = 0, up = 0;
  uint16_t entries = 0, scalar_bytes = 0;
  uint32_t side_bytes = 0;  // entry table and shadow
};

Head ReadHead(Reader* in) {
  Head head;
  head.version = in->U8();
  const uint8_t both = in->U8();
  head.status = both & 15;
  if (both >> 4 != 0) head.policy = static_cast<Policy>((both >> 4) - 1);
  head.hash = in->U64();
  head.modified.epoch = in->U64();
  head.modified.number = in->U64();
  head.total = in->U32();
  head.live = in->U32();
  head.up = in->U32();
  head.entries = in->U16();
  head.scalar_bytes = in->U16();
  head.side_bytes = in->U32();
  return head;
}

}  // namespace

std::string_view RowEntry::url() const {
  std::string_view in = endpoint;
  if (in.empty() || in.front() != kUrlTag) return {};
  in.remove_prefix(1);
  const size_t size = ReadVarint(&in);
  return in.substr(0, size);
}

Result<RowState> RowState::Decode(std::string_view stored) {
  Reader in(stored);
  const Head head = ReadHead(&in);
  Reader side(in.Bytes(head.side_bytes));
  in.Bytes(head.scalar_bytes);
  std::string_view listed = in.rest();
  RowState out;
  out.total_ = head.total;
  out.live_ = head.live;
  out.up_ = head.up;
  out.hash_ = head.hash;
  out.policy_ = head.policy;
  out.modified_ = head.modified;
  out.entries_.resize(head.entries);
  std::vector<std::pair<RowEntry*, size_t>> shadowed;
  for (RowEntry& entry : out.entries_) {
    entry.state = static_cast<EndpointState>(side.U8());
    entry.priority = side.U32();
    const uint8_t flags = side.U8();
    entry.instance = std::string(side.Bytes(side.U8()));
    const uint32_t size = side.U32();
    out.bytes_ += size;
    if (flags & kShadowed) {
      shadowed.emplace_back(&entry, size);
      continue;
    }
    listed.remove_prefix(std::min<size_t>(1, listed.size()));
    if (ReadVarint(&listed) != size || size > listed.size()) return CorruptValue("r/");
    entry.endpoint = std::string(listed.substr(0, size));
    listed.remove_prefix(size);
  }
  for (auto& [entry, size] : shadowed) entry->endpoint = std::string(side.Bytes(size));
  if (!in.ok() || !side.ok() || head.version != kRowVersion) return CorruptValue("r/");
  return out;
}

// Entries are always the first ones in the order. So an entry that would go to the end is not taken
// while others wait outside: one of them may come before it.
void RowState::Place(RowEntry entry) {
  auto at = std::lower_bound(entries_.begin(), entries_.end(), entry, Before);
  if (at == entries_.end() && unlisted() > 1) return;
  bytes_ += entry.endpoint.size();
  entries_.insert(at, std::move(entry));
  while (entries_.size() > kMostEntries || bytes_ > kMostBytes) {
    bytes_ -= entries_.back().endpoint.size();
    entries_.pop_back();
  }
}

void RowState::Insert(RowEntry entry, bool live) {
  ++total_;
  if (live) ++live_;
  if (entry.state == EndpointState::kUp) ++up_;
  Place(std::move(entry));
}

void RowState::Remove(const std::string& instance, EndpointState state, bool live) {
  --total_;
  if (live) --live_;
  if (state == EndpointState::kUp) --up_;
  const auto at = std::find_if(entries_.begin(), entries_.end(),
                               [&](const RowEntry& e) { return e.instance == instance; });
  if (at == entries_.end()) return;
  bytes_ -= at->endpoint.size();
  entries_.erase(at);
}

bool RowState::WantsRefill() const {
  return unlisted() > 0 && entries_.size() < kMostEntries / 2 && bytes_ < kMostBytes / 2;
}

void RowState::BeginRefill() {
  entries_.clear();
  bytes_ = 0;
  cut_.reset();
}

// Nothing at or after the first entry that was left out is taken: what is held stays a beginning of
// the order, also where a smaller entry would still fit.
void RowState::Offer(RowEntry entry) {
  if (cut_ && !Before(entry, *cut_)) return;
  bytes_ += entry.endpoint.size();
  entries_.insert(std::lower_bound(entries_.begin(), entries_.end(), entry, Before),
                  std::move(entry));
  while (entries_.size() > kMostEntries || bytes_ > kMostBytes) {
    bytes_ -= entries_.back().endpoint.size();
    cut_ = std::move(entries_.back());
    entries_.pop_back();
  }
}

std::string RowState::Encode(uint64_t basis, Revision at) {
  std::string table, shadow, listed;
  absl::flat_hash_set<std::string_view> urls;
  for (const RowEntry& entry : entries_) {
    const bool first = urls.insert(entry.url()).second;
    table.push_back(static_cast<char>(entry.state));
    AppendU32(entry.priority, &table);
    table.push_back(static_cast<char>(first ? 0 : kShadowed));
    table.push_back(static_cast<char>(entry.instance.size()));
    table += entry.instance;
    AppendU32(static_cast<uint32_t>(entry.endpoint.size()), &table);
    if (!first) {
      shadow += entry.endpoint;
      continue;
    }
    listed.push_back(kEndpointsTag);
    AppendVarint(entry.endpoint.size(), &listed);
    listed += entry.endpoint;
  }
  pb::Row row;
  row.set_status(up_ > 0 ? pb::ANSWER_STATUS_FOUND : pb::ANSWER_STATUS_NO_ENDPOINT);
  row.set_total(total_);
  std::string counted(1, static_cast<char>(row.status()));
  AppendU32(total_, &counted);
  const uint8_t policy = policy_ ? static_cast<uint8_t>(*policy_) + 1 : 0;
  if (policy_) {
    row.set_policy(static_cast<pb::Policy>(*policy_));
    counted.push_back(static_cast<char>(policy));
  }
  const uint64_t hash = StableHash(listed, StableHash(counted, basis));
  if (hash != hash_) modified_ = at;
  hash_ = hash;
  row.mutable_modified()->set_epoch(modified_.epoch);
  row.mutable_modified()->set_number(modified_.number);
  row.set_hash(hash);
  const std::string scalars = row.SerializeAsString();

  std::string out;
  out.reserve(64 + table.size() + shadow.size() + scalars.size() + listed.size());
  out.push_back(static_cast<char>(kRowVersion));
  out.push_back(static_cast<char>(row.status() | policy << 4));
  AppendU64(hash, &out);
  AppendU64(modified_.epoch, &out);
  AppendU64(modified_.number, &out);
  AppendU32(total_, &out);
  AppendU32(live_, &out);
  AppendU32(up_, &out);
  AppendU16(static_cast<uint16_t>(entries_.size()), &out);
  AppendU16(static_cast<uint16_t>(scalars.size()), &out);
  AppendU32(static_cast<uint32_t>(table.size() + shadow.size()), &out);
  return out.append(table).append(shadow).append(scalars).append(listed);
}

std::shared_ptr<const Row> RowFromStored(std::string_view stored) {
  Reader in(stored);
  const Head head = ReadHead(&in);
  in.Bytes(head.side_bytes);
  if (!in.ok() || head.version != kRowVersion) return nullptr;
  auto row = std::make_shared<Row>();
  row->bytes = std::string(in.rest());
  row->status = static_cast<AnswerStatus>(head.status);
  row->hash = head.hash;
  row->modified = head.modified;
  row->registered = head.total > 0;
  return row;
}

// Of fields that come twice the later counts (protobuf's rule), so the endpoints are copied as they
// are.
std::shared_ptr<const Row> WithOwnPolicy(const Row& row, const Row& own) {
  pb::Row policy;
  policy.ParseFromString(own.bytes);
  auto out = std::make_shared<Row>(row);
  std::string basis;
  AppendU64(own.hash, &basis);
  out->hash = StableHash(basis, row.hash);
  out->modified = std::max(row.modified, own.modified);
  pb::Row over;
  over.mutable_modified()->set_epoch(out->modified.epoch);
  over.mutable_modified()->set_number(out->modified.number);
  over.set_hash(out->hash);
  out->bytes += over.SerializeAsString();
  out->bytes.push_back(kPolicyTag);  // written for 0, too: it overrides
  AppendVarint(policy.policy(), &out->bytes);
  return out;
}

std::shared_ptr<const Row> NotFoundRow() {
  static const std::shared_ptr<const Row> kRow = [] {
    auto row = std::make_shared<Row>();
    row->status = AnswerStatus::kNotFound;
    row->hash = StableHash("NOT_FOUND");
    pb::Row message;
    message.set_status(pb::ANSWER_STATUS_NOT_FOUND);
    message.set_hash(row->hash);
    row->bytes = message.SerializeAsString();
    return row;
  }();
  return kRow;
}

uint64_t RowBasis(char kind, const Address& address) {
  return StableHash(address.text(), StableHash(std::string_view(&kind, 1)));
}

}  // namespace datawire::directory
