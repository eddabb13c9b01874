#include "engine/etcd/follower.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "datawire/record/v1/record.pb.h"
#include "engine/etcd/transaction.h"
#include "view/encoding.h"
#include "view/keys.h"

namespace datawire::directory::etcd {

namespace {

// What an import writes at its end is no news to who imported.
Status CheckAuthority(const Record& authority, uint64_t epoch) {
  record::v1::Authority value;
  if (!value.ParseFromString(authority.value) || value.epoch() != epoch)
    return {Code::kFenced, "the epoch of the cluster was raised"};
  if (value.format() > kFormat) return {Code::kFenced, "a newer program has raised etcd's format"};
  return {};
}

}  // namespace

std::string EndOf(std::string prefix) {
  prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

bool IsFollowed(std::string_view key) {
  return std::any_of(std::begin(kFollowed), std::end(kFollowed),
                     [key](const char* prefix) { return key.starts_with(prefix); });
}

Result<std::vector<Followed>> Follower::Take(const api::WatchResponse& response) {
  if (response.canceled()) {
    if (response.compact_revision() > 0)
      return Status(Code::kAborted, "etcd has compacted up to revision " +
                                        std::to_string(response.compact_revision()) +
                                        ", this node is at " + std::to_string(next_ - 1));
    return Status(Code::kUnavailable, "etcd ended the watch: " + response.cancel_reason());
  }
  std::vector<Followed> out;
  if (response.created()) return out;
  for (const api::Event& event : response.events()) {
    const auto at = static_cast<uint64_t>(event.kv().mod_revision());
    if (at < next_ && (out.empty() || at != out.back().batch.at.number)) continue;  // seen before
    if (out.empty() || at != out.back().batch.at.number) {
      if (at != next_)
        return Status(Code::kAborted, "the watch left out revisions " + std::to_string(next_) +
                                          " to " + std::to_string(at - 1));
      out.emplace_back().batch.at = {epoch_, at};
      next_ = at + 1;
    }
    Record record = FromKeyValue(event.kv());
    if (record.key == keys::kAuthority) DW_RETURN_IF_ERROR(CheckAuthority(record, epoch_));
    if (!IsFollowed(record.key)) {
      out.back().slots.push_back(std::move(record));
    } else if (event.type() == api::Event::DELETE) {
      out.back().batch.erased.push_back(std::move(record.key));
    } else {
      out.back().batch.puts.push_back(std::move(record));
    }
  }
  // It says that all up to there was sent.
  if (response.events_size() == 0 && static_cast<uint64_t>(response.header().revision()) >= next_)
    return Status(Code::kUnavailable, "the watch lost its place: etcd is at revision " +
                                          std::to_string(response.header().revision()) +
                                          ", this node waits for " + std::to_string(next_));
  return out;
}

}  // namespace datawire::directory::etcd
