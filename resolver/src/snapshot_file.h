#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "datawire/result.h"
#include "snapshot.h"

namespace datawire::resolver {

/// The machine's clocks now.
Moment PresentMoment();

/// kNotFound: there is none; kInvalid: no regular file, or larger than a snapshot can be.
Result<std::string> ReadSnapshotFile(const std::string& path);

/// Replaces `path` by `bytes`, mode 0600; whoever reads it, also after a crash at any point, finds
/// the old file or the new. kConflict: another process is saving to it. `step` is told what is
/// done next.
Status WriteSnapshotFile(const std::string& path, std::string_view bytes,
                         const std::function<void(std::string_view next)>& step = {});

}  // namespace datawire::resolver
