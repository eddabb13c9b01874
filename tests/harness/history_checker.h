#pragma once

#include <cstdint>
#include <iosfwd>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "datawire/result.h"
#include "datawire/revision.h"

namespace datawire::harness {

/// One operation on one registration key, as its client saw it. Value.
struct HistoryOp {
  enum Kind { kRegister, kWithdraw, kRead } kind = kRead;
  enum End {
    kOpen,     ///< no word of it: it takes effect at any time, or never
    kOk,       ///< a read: `value` is what it saw, empty: nothing there
    kNone,     ///< a withdraw found nothing to withdraw
    kRefused,  ///< it had no effect
    kCut       ///< it took effect before `ended`, or never
  } end = kOpen;
  std::string key, value;
  uint64_t begun = 0, ended = std::numeric_limits<uint64_t>::max();
  Revision at;  ///< with kOk and kNone; {0, 0}: not told
};

/// What a watcher got: a key's value, empty: it went.
struct HistoryEvent {
  Revision at;
  std::string key, value;
};

/// What clients and a watcher saw of one directory; `begun` and `ended` are on one clock. Value.
struct History {
  std::vector<HistoryOp> ops;
  std::vector<HistoryEvent> events;                    ///< as they came
  std::vector<std::pair<Revision, Revision>> watched;  ///< (from, to]: `events` has all of it
};

/// Lines of words:
///   `call ID TIME KEY register VALUE`, `... withdraw`, `... read`   an operation begins
///   `ok ID TIME REVISION [VALUE]`   a read says what it saw, `-`: nothing
///   `none ID TIME REVISION`, `refused ID TIME`, `cut ID TIME`
///   `event REVISION KEY VALUE`, `watched FROM TO`
/// The last line may lack its end: the writer was killed.
Result<History> ReadHistory(std::istream& in);
void WriteHistory(const History& history, std::ostream& out);

/// The ops of one key in some order that respects their times and gives each the result it had:
/// Wing & Gong's search, with the configurations remembered that led nowhere (Lowe 2017). Empty if
/// there is one, else what could not be placed. A key begins without a value.
std::string CheckLinearizable(const std::vector<const HistoryOp*>& ops);

/// All of it, one line a defect, empty if there is none: each key linearizable (so nothing
/// acknowledged is lost), revisions in the order of time and each with at most one change of a key,
/// the watched ranges without gap, each change in them told once, in order, with its value.
std::vector<std::string> CheckHistory(const History& history);

}  // namespace datawire::harness
