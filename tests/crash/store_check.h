#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "view/view.h"

namespace datawire::directory {

/// What contradicts itself in a store, one line each: rows, indexes, domains and counts that are
/// not those which follow from its records; records, history or audit newer than its revision; an
/// audit log that is no chain, or lacks the entry of a record.
std::vector<std::string> Contradictions(View& view);

/// Revision numbers of which the store still has something: a record made or changed then, events.
std::set<uint64_t> RevisionsIn(View& view);

/// All that is stored, but for what trimming the history moves. Key to value.
std::map<std::string, std::string> Dump(View& view);

}  // namespace datawire::directory
