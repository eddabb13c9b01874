#include "datawire/client.h"

namespace datawire {

std::string_view DeliveryEndName(DeliveryEnd end) {
  switch (end) {
    case DeliveryEnd::kAccepted:
      return "ACCEPTED";
    case DeliveryEnd::kRejected:
      return "REJECTED";
    case DeliveryEnd::kNotSent:
      return "NOT_SENT";
    case DeliveryEnd::kOutcomeUnknown:
      return "OUTCOME_UNKNOWN";
  }
  return "OUTCOME_UNKNOWN";
}

}  // namespace datawire
