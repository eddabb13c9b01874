#pragma once

#include <functional>
#include <memory>

#include "core/ground.h"
#include "core/long_job.h"

namespace datawire::directory {

/// The AuditTail verb: a page of the log, read from disc, bounded in what it looks at.
/// Thread-safe.
Result<pb::AuditTailResponse> AuditTail(const Ground& ground, const pb::AuditTailRequest& request);

/// The AuditVerify verb. Thread-safe.
class AuditCheckVerb {
 public:
  explicit AuditCheckVerb(std::shared_ptr<Ground> ground) : ground_(std::move(ground)) {}

  void Verify(const pb::AuditVerifyRequest& request, std::function<bool()> go_on,
              std::function<void(Result<pb::AuditVerifyResponse>)> done);
  /// Ends what verifies; later ones are refused.
  void Stop() { job_.Stop(); }

 private:
  const std::shared_ptr<Ground> ground_;
  LongJob job_{"the audit log is being verified already"};
};

}  // namespace datawire::directory
