#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "datawire/revision.h"
#include "view/encoding.h"
#include "view/reading.h"

namespace datawire::directory {

/// The audit log: each revision's accepted changes, chained by hash. Keys and bytes: FORMAT.md.

/// What a stored revision of the log holds. Value; `entries` lives as long as what was decoded.
struct AuditRevision {
  AuditHash hash{};  ///< of this one and, through the one before, of all before it
  Revision at;
  uint64_t bytes = 0;        ///< of the log ever written, with this one
  int64_t wall_ms = 0;       ///< the latest time noted up to here: it never goes back
  std::string_view entries;  ///< encoded record.v1.Audit
};
/// nullopt: it is cut short.
std::optional<AuditRevision> DecodeAudit(std::string_view stored);

/// The log's value for a batch whose records are not written to `before` yet, empty where nothing
/// of meaning changes; moves the chain in `state` on. Reads only `before`.
Result<std::string> StageAudit(const Batch& batch, const Reading& before, AppliedState* state);

Result<AuditFloor> ReadAuditFloor(const Reading& reading);

/// Number of the first revision in (floor, last] for which `kept` holds, as it must for all after
/// it; last + 1: there is none.
uint64_t FirstAudited(const Reading& reading, uint64_t floor, uint64_t last,
                      const std::function<bool(const AuditRevision&, uint64_t size)>& kept);

/// A revision at which somebody has seen the hash. Value.
struct AuditSeen {
  uint64_t number = 0;
  std::string hash;
};

/// What a walk along the chain found. Value.
struct AuditCheck {
  uint64_t floor = 0;  ///< entries up to and with this revision are gone
  Revision last;       ///< with an entry
  AuditHash last_hash{};
  uint64_t revisions = 0, entries = 0;
  struct Broken {
    Revision at;  ///< the first that is not as it was written
    std::string why;
  };
  std::optional<Broken> broken;
};
/// Reads the whole log. kNotFound: `seen` is trimmed away. `go_on` false ends it (kCancelled).
Result<AuditCheck> VerifyAudit(const Reading& reading, const std::optional<AuditSeen>& seen,
                               const std::function<bool()>& go_on);

}  // namespace datawire::directory
