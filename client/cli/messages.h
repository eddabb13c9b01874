#pragma once

#include <string_view>

#include "datawire/client.h"
#include "verbs.h"

namespace datawire::cli {

ClientOptions ClientOptionsOf(const Session& session);

/// Whether `text` can be an amqp-value string of a message; kInvalid shows what stands against it.
Status CheckBody(std::string_view text);

}  // namespace datawire::cli
