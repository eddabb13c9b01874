#pragma once

#include <algorithm>
#include <string>

namespace datawire::directory {

inline constexpr int kEarlierOpIds = 8;  // writers that may cross a retry of the same record

/// `record` was written by this very op, or has replaced something that was: a retry that comes
/// late does not do its work twice. Record: a registration or a policy.
template <typename Record>
bool DoneBefore(const Record& record, const std::string& op_id) {
  const auto& earlier = record.earlier_op_ids();
  return record.op_id() == op_id || record.ended().op_id() == op_id ||
         std::find(earlier.begin(), earlier.end(), op_id) != earlier.end();
}

/// `record` replaces `replaced`, and knows its ops.
template <typename Record>
void RememberOps(const Record& replaced, Record* record) {
  auto* earlier = record->mutable_earlier_op_ids();
  *earlier = replaced.earlier_op_ids();
  *earlier->Add() = replaced.op_id();
  if (!replaced.ended().op_id().empty()) *earlier->Add() = replaced.ended().op_id();
  if (earlier->size() > kEarlierOpIds) earlier->DeleteSubrange(0, earlier->size() - kEarlierOpIds);
}

}  // namespace datawire::directory
