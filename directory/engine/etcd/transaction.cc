#include "engine/etcd/transaction.h"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace datawire::directory::etcd {
namespace {

constexpr size_t kBytes = 1u << 20;  // etcd takes 1.5 MiB
constexpr int64_t kPage = 1000;      // records; etcd gives 45 k a second in such pages
constexpr size_t kOwn = 1;           // the slot

std::string Key(const std::string& key) {
  return kPrefix + key;
}

void AddRange(const std::string& key, google::protobuf::RepeatedPtrField<api::RequestOp>* out) {
  out->Add()->mutable_request_range()->set_key(key);
}

void AddPut(const std::string& key, const std::string& value, api::TxnRequest* out) {
  api::PutRequest* const put = out->add_success()->mutable_request_put();
  put->set_key(key);
  put->set_value(value);
}

void AddValueCompare(const std::string& key, const std::string& value, api::TxnRequest* out) {
  api::Compare* const compare = out->add_compare();
  compare->set_target(api::Compare::VALUE);
  compare->set_key(key);
  compare->set_value(value);
}

void AddGuard(const Guard& guard, api::TxnRequest* out) {
  api::Compare* const compare = out->add_compare();
  compare->set_key(Key(guard.key));
  switch (guard.is) {
    case Guard::kAbsent:
      compare->set_target(api::Compare::VERSION);
      compare->set_version(0);
      return;
    case Guard::kExists:
      compare->set_target(api::Compare::VERSION);
      compare->set_result(api::Compare::NOT_EQUAL);
      compare->set_version(0);
      return;
    case Guard::kModEquals:
    case Guard::kCreateEquals:
      // An absent key has revision 0 in etcd, and no guard of that number holds.
      const int64_t revision = guard.revision == 0 ? -1 : static_cast<int64_t>(guard.revision);
      if (guard.is == Guard::kModEquals) {
        compare->set_target(api::Compare::MOD);
        compare->set_mod_revision(revision);
      } else {
        compare->set_target(api::Compare::CREATE);
        compare->set_create_revision(revision);
      }
      return;
  }
}

size_t OperationsOf(const Op& op) {
  return std::max({op.guards.size(), op.changes.size(), size_t{1}});
}

size_t BytesOf(const Op& op) {
  size_t bytes = 64;
  for (const Guard& guard : op.guards) bytes += guard.key.size() + 32;
  for (const Change& change : op.changes) bytes += change.key.size() + change.value.size() + 32;
  return bytes;
}

const api::KeyValue* One(const api::TxnResponse& response, int i) {
  if (i >= response.responses_size()) return nullptr;
  const api::RangeResponse& range = response.responses(i).response_range();
  return range.kvs_size() > 0 ? &range.kvs(0) : nullptr;
}

}  // namespace

api::RangeRequest PageRequest(const std::string& from, const std::string& to, uint64_t at) {
  api::RangeRequest out;
  out.set_key(kPrefix + from);
  out.set_range_end(kPrefix + to);
  out.set_limit(kPage);
  out.set_revision(static_cast<int64_t>(at));
  return out;
}

// A comparison with the value of an absent key fails whatever it asks, so that this takes two.
api::TxnRequest JoinRequest(const NodeKeys& keys) {
  const auto join = [&keys](api::TxnRequest* out) {
    AddPut(keys.Run(), keys.incarnation, out);
    AddPut(keys.Slot(), keys.SlotValue(0), out);
  };
  api::TxnRequest out;
  api::Compare* const absent = out.add_compare();
  absent->set_target(api::Compare::VERSION);
  absent->set_key(keys.Run());
  absent->set_version(0);
  join(&out);
  api::TxnRequest* const former = out.add_failure()->mutable_request_txn();
  AddValueCompare(keys.Run(), keys.incarnation, former);
  former->mutable_compare(0)->set_result(api::Compare::NOT_EQUAL);
  join(former);
  return out;
}

Record FromKeyValue(const api::KeyValue& kv) {
  return {kv.key().substr(sizeof kPrefix - 1), kv.value(),
          static_cast<uint64_t>(kv.create_revision()), static_cast<uint64_t>(kv.mod_revision())};
}

std::optional<uint64_t> NodeKeys::NumberIn(const std::string& slot) const {
  if (!slot.starts_with(incarnation + " ")) return std::nullopt;
  uint64_t number = 0;
  const char* const from = slot.data() + incarnation.size() + 1;
  const auto read = std::from_chars(from, slot.data() + slot.size(), number);
  if (read.ec != std::errc()) return std::nullopt;
  return number;
}

bool Transaction::Fits(const Op& op) const {
  if (nested_.empty()) return true;
  if (kOwn + nested_.size() + 1 + std::max(largest_, OperationsOf(op)) > most_ ||
      bytes_ + BytesOf(op) > kBytes)
    return false;
  const auto written = [this](const auto& item) { return written_.contains(item.key); };
  return std::none_of(op.guards.begin(), op.guards.end(), written) &&
         std::none_of(op.changes.begin(), op.changes.end(), written) &&
         !written_.contains(op.read_on_failure);
}

void Transaction::Add(const Op& op) {
  api::TxnRequest& nested = nested_.emplace_back();
  for (const Guard& guard : op.guards) AddGuard(guard, &nested);
  for (const Change& change : op.changes) {
    if (change.erase)
      nested.add_success()->mutable_request_delete_range()->set_key(Key(change.key));
    else
      AddPut(Key(change.key), change.value, &nested);
    written_.insert(change.key);
  }
  if (!op.read_on_failure.empty()) AddRange(Key(op.read_on_failure), nested.mutable_failure());
  largest_ = std::max(largest_, OperationsOf(op));
  bytes_ += BytesOf(op);
}

api::TxnRequest Transaction::Build(const NodeKeys& keys,
                                   const std::optional<std::pair<uint64_t, uint64_t>>& slot) const {
  api::TxnRequest out;
  AddValueCompare(keys.Run(), keys.incarnation, &out);
  AddRange(keys.Run(), out.mutable_failure());
  if (slot) {
    AddValueCompare(keys.Slot(), keys.SlotValue(slot->first), &out);
    AddRange(keys.Slot(), out.mutable_failure());
    AddPut(keys.Slot(), keys.SlotValue(slot->second), &out);
  }
  for (const api::TxnRequest& nested : nested_) *out.add_success()->mutable_request_txn() = nested;
  return out;
}

Verdict Transaction::Read(const api::TxnResponse& response, const NodeKeys& keys, bool with_slot,
                          uint64_t number) {
  Verdict out;
  out.at = static_cast<uint64_t>(response.header().revision());
  if (response.succeeded()) {
    out.what = Verdict::kCommitted;
    for (int i = with_slot ? 1 : 0; i < response.responses_size(); ++i) {
      const api::TxnResponse& nested = response.responses(i).response_txn();
      OpResult& result = out.results.emplace_back();
      result.held = nested.succeeded();
      if (result.held) continue;
      if (const api::KeyValue* const kv = One(nested, 0)) result.read = FromKeyValue(*kv);
    }
    return out;
  }
  const api::KeyValue* const run = One(response, 0);
  if (run == nullptr || run->value() != keys.incarnation) return out;
  const api::KeyValue* const slot = One(response, 1);
  if (slot == nullptr) return out;
  const auto held = keys.NumberIn(slot->value());
  if (!held) return out;
  out.what = *held == number ? Verdict::kRepeated : Verdict::kEarlier;
  out.slot = *held;
  if (out.what == Verdict::kRepeated) out.at = static_cast<uint64_t>(slot->mod_revision());
  return out;
}

}  // namespace datawire::directory::etcd
