#include "engine/admission.h"

#include <string>

#include "datawire/limits.h"

namespace datawire::directory {

Status Admission::Admit(const Op& op, size_t queued) {
  using std::chrono::milliseconds;
  if (queued >= limits::kProposeQueue)
    return Status(Code::kOverloaded, "the write queue is full, " +
                                         std::to_string(limits::kProposeQueue) + " ops wait in it")
        .set_retry_after(milliseconds(100));
  const size_t takes = ChangesThatTake(op);
  if (takes > 0 && waiting_ + takes > limits::kRegisterQueue)
    return Status(Code::kOverloaded, "too many registrations at once: " + std::to_string(waiting_) +
                                         " wait to be written")
        .set_retry_after(milliseconds(250));
  waiting_ += takes;
  return {};
}

}  // namespace datawire::directory
