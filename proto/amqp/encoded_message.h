#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "datawire/result.h"

namespace datawire::amqp {

/// What a sender adds to a message that is encoded already.
struct MessageFields {
  std::string_view message_id;   ///< empty: as it is
  bool correlate = false;        ///< correlation-id = message-id
  std::string_view reply_to;     ///< empty: as it is
  uint32_t more_deliveries = 0;  ///< added to delivery-count
  uint32_t ttl_ms = 0;           ///< 0: as it is
};

/// The message with these fields set, in its encoded form: a proton::message in between costs some
/// forty allocations. kInvalid for bytes that are no message (AMQP 1.0 parts 1.6, 3.2).
Result<std::vector<char>> WithFields(std::string_view encoded, const MessageFields& fields);

}  // namespace datawire::amqp
