#pragma once

#include <memory>

#include "engine/log.h"

namespace datawire::directory {

class View;

/// The log of one machine, in the view's own RocksDB: one writer thread forms groups, checks guards
/// on the state before the group, stages through the view into one WriteBatch together with the
/// revision, writes it with a sync, publishes, answers. `view` outlives it.
/// `probe_every`: how often an idle engine proves by a synced write that it can still commit.
Result<std::unique_ptr<Log>> OpenEmbedded(View& view);

}  // namespace datawire::directory
