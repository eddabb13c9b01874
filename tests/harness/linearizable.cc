#include <algorithm>
#include <map>
#include <set>

#include "history_checker.h"

namespace datawire::harness {
namespace {

using Op = HistoryOp;

constexpr size_t kMostConfigurations = 500'000;  // then it says that it does not know

bool IsOptional(const Op& op) {
  return op.end == Op::kOpen || op.end == Op::kCut;
}

std::string Shown(const Op& op) {
  std::string out = op.kind == Op::kRegister   ? "register " + op.value
                    : op.kind == Op::kWithdraw ? "withdraw"
                                               : "read";
  if (op.kind == Op::kRead) out += " -> " + (op.value.empty() ? "nothing" : op.value);
  if (op.end == Op::kNone) out += " -> nothing there";
  return out + " (" + std::to_string(op.begun) + " to " + std::to_string(op.ended) + ")";
}

/// A key's value as a number, 0: none. What an op makes of it; nothing if it could not have had its
/// result.
std::optional<uint32_t> Step(const Op& op, uint32_t value, uint32_t now) {
  switch (op.kind) {
    case Op::kRegister:
      return value;
    case Op::kWithdraw:
      if (op.end == Op::kOk && now == 0) return std::nullopt;
      if (op.end == Op::kNone && now != 0) return std::nullopt;
      return 0;
    case Op::kRead:
      if (now != value) return std::nullopt;
      return now;
  }
  return std::nullopt;
}

/// The search: calls and returns in a list by time, an op that is placed is taken out with both.
class Search {
 public:
  explicit Search(const std::vector<const Op*>& ops) {
    for (const Op* op : ops) {
      if (op->end == Op::kRefused) continue;
      if (op->kind == Op::kRead && IsOptional(*op)) continue;
      ops_.push_back(op);
    }
    for (const Op* op : ops_) values_.push_back(op->value.empty() ? 0 : NumberOf(op->value));
    names_.resize(numbers_.size() + 1);
    for (const auto& [name, number] : numbers_) names_[number] = name;
    Link();
  }
  std::string Run();

 private:
  static constexpr size_t kHead = 0;
  struct Node {
    size_t op = 0, before = 0, after = 0;
    bool is_return = false;
  };
  struct Placed {
    size_t node;
    uint32_t value_before;
    bool skipped;
  };

  uint32_t NumberOf(const std::string& value) {
    return numbers_.emplace(value, static_cast<uint32_t>(numbers_.size() + 1)).first->second;
  }
  void Link();
  void TakeOut(size_t node) {
    nodes_[nodes_[node].before].after = nodes_[node].after;
    nodes_[nodes_[node].after].before = nodes_[node].before;
  }
  void PutBack(size_t node) {
    nodes_[nodes_[node].before].after = node;
    nodes_[nodes_[node].after].before = node;
  }
  bool Place(size_t node, bool skip);
  bool Back(size_t* node);
  std::string Defect() const;

  std::vector<const Op*> ops_;
  std::vector<uint32_t> values_;  // by op
  std::map<std::string, uint32_t> numbers_;
  std::vector<std::string> names_;
  std::vector<Node> nodes_;
  std::vector<size_t> return_of_;  // by op; kHead: it has none
  size_t returns_ = 0;             // that are left

  uint32_t now_ = 0;
  std::vector<uint64_t> bits_;  // ops that are placed
  std::vector<Placed> placed_;
  std::set<std::pair<std::vector<uint64_t>, uint32_t>> seen_;
  // Where it came furthest.
  size_t deepest_ = 0, stuck_ = 0;
  uint32_t stuck_value_ = 0;
};

void Search::Link() {
  struct Moment {
    uint64_t time;
    bool is_return;
    size_t op;
  };
  std::vector<Moment> moments;
  for (size_t i = 0; i < ops_.size(); ++i) {
    moments.push_back({ops_[i]->begun, false, i});
    if (ops_[i]->end != Op::kOpen) moments.push_back({ops_[i]->ended, true, i});
  }
  // At one time calls come first: those ops overlap.
  std::stable_sort(moments.begin(), moments.end(), [](const Moment& a, const Moment& b) {
    return std::pair(a.time, a.is_return) < std::pair(b.time, b.is_return);
  });
  nodes_.resize(moments.size() + 1);
  return_of_.assign(ops_.size(), kHead);
  for (size_t i = 0; i < moments.size(); ++i) {
    nodes_[i + 1] = {moments[i].op, i, i + 2, moments[i].is_return};
    if (!moments[i].is_return) continue;
    return_of_[moments[i].op] = i + 1;
    ++returns_;
  }
  nodes_[kHead] = {0, moments.size(), moments.empty() ? kHead : 1, false};
  nodes_.back().after = kHead;
  bits_.assign(ops_.size() / 64 + 1, 0);
}

bool Search::Place(size_t node, bool skip) {
  const size_t op = nodes_[node].op;
  const auto next = skip ? now_ : Step(*ops_[op], values_[op], now_);
  if (!next) return false;
  bits_[op / 64] ^= 1ull << (op % 64);
  if (!seen_.emplace(bits_, *next).second) {
    bits_[op / 64] ^= 1ull << (op % 64);
    return false;
  }
  placed_.push_back({node, now_, skip});
  now_ = *next;
  TakeOut(node);
  if (return_of_[op] == kHead) return true;
  TakeOut(return_of_[op]);
  --returns_;
  return true;
}

// Undoes the last placement that has an alternative; `node` is where to go on.
bool Search::Back(size_t* node) {
  if (placed_.size() >= deepest_) {
    deepest_ = placed_.size();
    stuck_ = nodes_[*node].op;
    stuck_value_ = now_;
  }
  while (!placed_.empty()) {
    const Placed last = placed_.back();
    placed_.pop_back();
    const size_t op = nodes_[last.node].op;
    if (return_of_[op] != kHead) {
      PutBack(return_of_[op]);
      ++returns_;
    }
    PutBack(last.node);
    bits_[op / 64] ^= 1ull << (op % 64);
    now_ = last.value_before;
    *node = nodes_[last.node].after;
    // Cut: it may never have been. Open ones that never were are just left in the list.
    if (ops_[op]->end == Op::kCut && !last.skipped && Place(last.node, true))
      *node = nodes_[kHead].after;
    return true;
  }
  return false;
}

std::string Search::Defect() const {
  return "not linearizable: " + Shown(*ops_[stuck_]) + " cannot be: at best " +
         std::to_string(deepest_) + " of " + std::to_string(ops_.size()) +
         " operations fit before it, and leave " +
         (stuck_value_ == 0 ? "nothing" : names_[stuck_value_]);
}

std::string Search::Run() {
  size_t node = nodes_[kHead].after;
  while (returns_ > 0) {
    if (seen_.size() > kMostConfigurations)
      return "undecided after " + std::to_string(kMostConfigurations) + " configurations";
    if (node != kHead && !nodes_[node].is_return) {
      const bool cut = ops_[nodes_[node].op]->end == Op::kCut;
      if (Place(node, false) || (cut && Place(node, true)))
        node = nodes_[kHead].after;
      else
        node = nodes_[node].after;
    } else if (!Back(&node)) {
      return Defect();
    }
  }
  return "";
}

}  // namespace

std::string CheckLinearizable(const std::vector<const HistoryOp*>& ops) {
  return Search(ops).Run();
}

}  // namespace datawire::harness
