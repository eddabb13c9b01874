#pragma once

#include <chrono>
#include <memory>

#include "engine/log.h"

namespace datawire::directory {

class View;

/// The log of one machine, in the view's own RocksDB: one writer thread forms groups, checks guards
/// on the state before the group, stages through the view into one WriteBatch together with the
/// revision, writes it with a sync, publishes, answers. It takes what is queued; after a write it
/// waits, at most `gather`, until as many have joined as it just answered (decisions/0005).
/// After a failed write or sync nothing is acknowledged, what was in it has kOutcomeUnknown, later
/// ops are refused, and the store must be reopened. A lack of space refuses ops that do not free
/// some (kOverloaded); it ends by itself. `view` outlives it.
Result<std::unique_ptr<Log>> OpenEmbedded(
    View& view, BootClock::duration gather = std::chrono::microseconds(250));

}  // namespace datawire::directory
