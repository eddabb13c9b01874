#include "history_checker.h"

#include <algorithm>
#include <istream>
#include <ostream>
#include <set>
#include <sstream>
#include <tuple>

namespace datawire::harness {
namespace {

using Op = HistoryOp;
using Ops = std::map<std::string, std::vector<const Op*>>;

constexpr char kNothing[] = "-";
constexpr size_t kMostDefects = 20;  // of one kind: the first ones tell

class Defects {
 public:
  void Add(const std::string& what) {
    if (++count_ <= kMostDefects) lines_.push_back(what);
  }
  void EndKind() { count_ = 0; }
  std::vector<std::string> Take() { return std::move(lines_); }

 private:
  size_t count_ = 0;
  std::vector<std::string> lines_;
};

std::string Named(const Op& op) {
  const char* kind = op.kind == Op::kRegister   ? "register "
                     : op.kind == Op::kWithdraw ? "withdraw"
                                                : "read ";
  return op.key + " " + kind + op.value + " at " + op.at.ToString();
}

// What ended before another began has the smaller revision; a read may have an equal one.
void CheckOrder(const History& history, Defects& defects) {
  std::vector<const Op*> begun, ended;
  for (const Op& op : history.ops)
    if (op.end == Op::kOk && op.at != Revision{}) begun.push_back(&op);
  ended = begun;
  std::sort(begun.begin(), begun.end(),
            [](const Op* a, const Op* b) { return a->begun < b->begun; });
  std::sort(ended.begin(), ended.end(),
            [](const Op* a, const Op* b) { return a->ended < b->ended; });
  const Op* latest = nullptr;
  auto next = ended.begin();
  for (const Op* op : begun) {
    for (; next != ended.end() && (*next)->ended < op->begun; ++next)
      if (latest == nullptr || (*next)->at > latest->at) latest = *next;
    if (latest == nullptr) continue;
    if (op->at < latest->at || (op->at == latest->at && op->kind != Op::kRead))
      defects.Add("revisions: " + Named(*op) + " began after the end of " + Named(*latest));
  }
  defects.EndKind();
}

void CheckOneChange(const Ops& by_key, Defects& defects) {
  for (const auto& [key, ops] : by_key) {
    std::map<Revision, const Op*> changes;
    for (const Op* op : ops) {
      if (op->end != Op::kOk || op->kind == Op::kRead || op->at == Revision{}) continue;
      const auto [other, fresh] = changes.emplace(op->at, op);
      if (!fresh) defects.Add("revisions: " + Named(*op) + " and " + Named(*other->second));
    }
  }
  defects.EndKind();
}

void CheckWatched(const History& history, Defects& defects) {
  for (size_t i = 0; i < history.watched.size(); ++i) {
    const auto& [from, to] = history.watched[i];
    const std::string range = "watched " + from.ToString() + " to " + to.ToString();
    if (to < from) defects.Add(range + ": backwards");
    if (i > 0 && history.watched[i - 1].second != from)
      defects.Add(range + ": a gap after " + history.watched[i - 1].second.ToString());
  }
  const auto inside = [&](Revision at) {
    return std::any_of(history.watched.begin(), history.watched.end(),
                       [at](const auto& range) { return range.first < at && at <= range.second; });
  };
  for (size_t i = 0; i < history.events.size(); ++i) {
    const HistoryEvent& event = history.events[i];
    if (i > 0 && event.at < history.events[i - 1].at)
      defects.Add("event " + event.key + " at " + event.at.ToString() + " came after " +
                  history.events[i - 1].at.ToString());
    if (!inside(event.at))
      defects.Add("event " + event.key + " at " + event.at.ToString() + " is in no watched range");
  }
  defects.EndKind();
}

using Events = std::map<std::pair<std::string, Revision>, const HistoryEvent*>;

// Each event has a cause, and follows from the one before it.
Events CheckEvents(const History& history, const Ops& by_key, Defects& defects) {
  std::map<std::string, std::string> now;
  Events out;
  for (const HistoryEvent& event : history.events) {
    const std::string name = "event " + event.key + " " +
                             (event.value.empty() ? "went" : event.value) + " at " +
                             event.at.ToString();
    if (!out.emplace(std::pair(event.key, event.at), &event).second) defects.Add(name + ": twice");
    std::string& value = now[event.key];
    if (event.value.empty() && value.empty()) defects.Add(name + ": it was not there");
    value = event.value;
    const auto ops = by_key.find(event.key);
    const auto caused = [&event](const Op* op) {
      if (op->end == Op::kRefused || op->end == Op::kNone) return false;
      return event.value.empty() ? op->kind == Op::kWithdraw
                                 : op->kind == Op::kRegister && op->value == event.value;
    };
    if (ops == by_key.end() || std::none_of(ops->second.begin(), ops->second.end(), caused))
      defects.Add(name + ": nobody did that");
  }
  defects.EndKind();
  return out;
}

void CheckTold(const History& history, const Events& events, Defects& defects) {
  if (history.watched.empty()) return;
  const Revision from = history.watched.front().first, to = history.watched.back().second;
  for (const Op& op : history.ops) {
    if (op.end != Op::kOk || op.kind == Op::kRead || op.at <= from || op.at > to) continue;
    const auto event = events.find({op.key, op.at});
    if (event == events.end())
      defects.Add("watched, not told: " + Named(op));
    else if (event->second->value != op.value)
      defects.Add("watched: " + Named(op) + ", told as '" + event->second->value + "'");
  }
  defects.EndKind();
}

bool ReadRevision(std::istream& in, Revision* out) {
  char colon = 0;
  return (in >> out->epoch >> colon >> out->number) && colon == ':';
}

bool ReadCall(std::istream& in, std::map<std::string, Op>& open) {
  std::string id, kind;
  Op op;
  if (!(in >> id >> op.begun >> op.key >> kind)) return false;
  if (kind == "withdraw") {
    op.kind = Op::kWithdraw;
  } else if (kind == "register") {
    op.kind = Op::kRegister;
    if (!(in >> op.value)) return false;
  } else if (kind != "read") {
    return false;
  }
  return open.emplace(id, std::move(op)).second;
}

bool ReadEnd(std::istream& in, const std::string& what, std::map<std::string, Op>& open,
             History* out) {
  std::string id;
  uint64_t time = 0;
  if (!(in >> id >> time)) return false;
  const auto found = open.find(id);
  if (found == open.end()) return false;
  Op& op = found->second;
  op.ended = time;
  op.end = what == "ok"        ? Op::kOk
           : what == "none"    ? Op::kNone
           : what == "refused" ? Op::kRefused
                               : Op::kCut;
  if ((what == "ok" || what == "none") && !ReadRevision(in, &op.at)) return false;
  if (what == "ok" && op.kind == Op::kRead) {
    if (!(in >> op.value)) return false;
    if (op.value == kNothing) op.value.clear();
  }
  out->ops.push_back(std::move(op));
  open.erase(found);
  return true;
}

bool ReadLine(const std::string& line, std::map<std::string, Op>& open, History* out) {
  std::istringstream in(line);
  std::string what;
  in >> what;
  if (what == "call") return ReadCall(in, open);
  if (what == "ok" || what == "none" || what == "refused" || what == "cut")
    return ReadEnd(in, what, open, out);
  if (what == "event") {
    HistoryEvent event;
    if (!ReadRevision(in, &event.at) || !(in >> event.key >> event.value)) return false;
    if (event.value == kNothing) event.value.clear();
    out->events.push_back(std::move(event));
    return true;
  }
  Revision from, to;
  if (what != "watched" || !ReadRevision(in, &from) || !ReadRevision(in, &to)) return false;
  out->watched.emplace_back(from, to);
  return true;
}

}  // namespace

Result<History> ReadHistory(std::istream& in) {
  History out;
  std::map<std::string, Op> open;
  std::string line;
  for (size_t number = 1; std::getline(in, line); ++number) {
    if (in.eof()) break;  // without its end
    if (!ReadLine(line, open, &out))
      return Status(Code::kInvalid, "line " + std::to_string(number) + ": " + Shown(line));
  }
  for (auto& [id, op] : open) out.ops.push_back(std::move(op));
  return out;
}

void WriteHistory(const History& history, std::ostream& out) {
  static constexpr const char* kKinds[] = {"register", "withdraw", "read"};
  static constexpr const char* kEnds[] = {"", "ok", "none", "refused", "cut"};
  const auto shown = [](const std::string& value) { return value.empty() ? kNothing : value; };
  for (size_t id = 0; id < history.ops.size(); ++id) {
    const Op& op = history.ops[id];
    out << "call " << id << ' ' << op.begun << ' ' << op.key << ' ' << kKinds[op.kind];
    if (op.kind == Op::kRegister) out << ' ' << op.value;
    out << '\n';
    if (op.end == Op::kOpen) continue;
    out << kEnds[op.end] << ' ' << id << ' ' << op.ended;
    if (op.end == Op::kOk || op.end == Op::kNone) out << ' ' << op.at.ToString();
    if (op.end == Op::kOk && op.kind == Op::kRead) out << ' ' << shown(op.value);
    out << '\n';
  }
  for (const auto& event : history.events)
    out << "event " << event.at.ToString() << ' ' << event.key << ' ' << shown(event.value) << '\n';
  for (const auto& [from, to] : history.watched)
    out << "watched " << from.ToString() << ' ' << to.ToString() << '\n';
}

std::vector<std::string> CheckHistory(const History& history) {
  Ops by_key;
  for (const Op& op : history.ops) by_key[op.key].push_back(&op);
  Defects defects;
  for (const auto& [key, ops] : by_key)
    if (const std::string defect = CheckLinearizable(ops); !defect.empty())
      defects.Add(key + ": " + defect);
  defects.EndKind();
  CheckOrder(history, defects);
  CheckOneChange(by_key, defects);
  CheckWatched(history, defects);
  const Events events = CheckEvents(history, by_key, defects);
  CheckTold(history, events, defects);
  return defects.Take();
}

}  // namespace datawire::harness
