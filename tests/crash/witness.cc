#include <algorithm>

#include "load.h"

namespace datawire::directory {

using harness::HistoryOp;

void Witness::Add(std::vector<HistoryOp> ops) {
  const std::lock_guard lock(mutex_);
  for (HistoryOp& op : ops) {
    told_ = std::max(told_, op.at);
    if (op.kind != HistoryOp::kRead) acknowledged_.insert(op.at.number);
    touched_.insert(op.key);
    by_key_[op.key].push_back(history_.ops.size());
    history_.ops.push_back(std::move(op));
  }
}

void Witness::Acknowledged(Revision at) {
  const std::lock_guard lock(mutex_);
  acknowledged_.insert(at.number);
  told_ = std::max(told_, at);
}

void Witness::Cut() {
  for (; ended_ < history_.ops.size(); ++ended_) {
    HistoryOp& op = history_.ops[ended_];
    if (op.end != HistoryOp::kOpen) continue;
    op.end = HistoryOp::kCut;
    op.ended = Now();
  }
}

std::vector<const HistoryOp*> Witness::OpsOf(const std::string& key) const {
  std::vector<const HistoryOp*> out;
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return out;
  for (const size_t i : found->second) out.push_back(&history_.ops[i]);
  return out;
}

}  // namespace datawire::directory
