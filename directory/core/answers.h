#pragma once

#include <string>

#include "core/ground.h"

namespace datawire::directory {

/// Appends `answer` as field `field` (a pb::Answer) of a message being encoded; the row's bytes are
/// spliced in as they are in the view.
void AppendAnswer(int field, const Address& address, const Match& match, Revision at,
                  uint64_t age_ms, std::string* out);
/// Appends a length-delimited field: a string, bytes or an encoded message.
void AppendField(int field, std::string_view bytes, std::string* out);
/// What AppendAnswer adds, or a little more.
size_t AnswerBytesAtMost(const Address& address, const Match& match);

}  // namespace datawire::directory
