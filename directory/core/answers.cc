#include "core/answers.h"

#include <google/protobuf/io/coded_stream.h>

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr int kVarint = 0, kDelimited = 2;

void AppendVarint(uint64_t value, std::string* out) {
  uint8_t bytes[10];
  const uint8_t* end = google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(value, bytes);
  out->append(reinterpret_cast<const char*>(bytes), end - bytes);
}

void AppendNumber(int field, uint64_t value, std::string* out) {
  if (value == 0) return;
  AppendVarint(field << 3 | kVarint, out);
  AppendVarint(value, out);
}

}  // namespace

void AppendField(int field, std::string_view bytes, std::string* out) {
  AppendVarint(field << 3 | kDelimited, out);
  AppendVarint(bytes.size(), out);
  out->append(bytes);
}

void AppendAnswer(int field, const Address& address, const Match& match, Revision at,
                  uint64_t age_ms, std::string* out) {
  using pb::Answer;
  const auto ttl = std::chrono::milliseconds(
      match.row->status == AnswerStatus::kFound ? limits::kPositiveTtl : limits::kNegativeTtl);
  std::string head;
  AppendField(Answer::kAddressFieldNumber, address.text(), &head);
  if (match.matched) AppendField(Answer::kMatchedFieldNumber, match.matched->text(), &head);
  pb::Revision revision;
  ToWire(at, &revision);
  AppendField(Answer::kRevisionFieldNumber, revision.SerializeAsString(), &head);
  AppendNumber(Answer::kAgeMsFieldNumber, age_ms, &head);
  AppendNumber(Answer::kTtlMsFieldNumber, ttl.count(), &head);
  AppendVarint(Answer::kRowFieldNumber << 3 | kDelimited, &head);
  AppendVarint(match.row->bytes.size(), &head);
  AppendVarint(field << 3 | kDelimited, out);
  AppendVarint(head.size() + match.row->bytes.size(), out);
  out->append(head);
  out->append(match.row->bytes);
}

size_t AnswerBytesAtMost(const Address& address, const Match& match) {
  constexpr size_t kNumbers = 96;  // tags, lengths, revision, age and TTL
  return address.text().size() + (match.matched ? match.matched->text().size() : 0) +
         match.row->bytes.size() + kNumbers;
}

}  // namespace datawire::directory
