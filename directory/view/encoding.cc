#include "view/encoding.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message_lite.h>
#include <openssl/evp.h>

#include <algorithm>

#include "datawire/assert.h"

namespace datawire::directory {
namespace {

void AppendNumber(uint64_t value, int bytes, std::string* out) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
    out->push_back(static_cast<char>(value >> shift));
}

}  // namespace

Sha256Digest DigestOf(std::string_view bytes) {
  // Fetched once: looking the algorithm up costs more than the hash.
  static const EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  Sha256Digest out;
  DW_ASSERT(::EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(out.data()),
                         nullptr, sha256, nullptr) == 1);
  return out;
}

void AppendU16(uint16_t value, std::string* out) {
  AppendNumber(value, 2, out);
}
void AppendU32(uint32_t value, std::string* out) {
  AppendNumber(value, 4, out);
}
void AppendU64(uint64_t value, std::string* out) {
  AppendNumber(value, 8, out);
}

uint64_t Reader::Number(size_t bytes) {
  uint64_t value = 0;
  for (char c : Bytes(bytes)) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

std::string_view Reader::Bytes(size_t count) {
  if (count > in_.size()) {
    ok_ = false;
    in_ = {};
    return {};
  }
  const std::string_view out = in_.substr(0, count);
  in_.remove_prefix(count);
  return out;
}

AuditHash Reader::Hash() {
  AuditHash out{};
  const std::string_view bytes = Bytes(out.size());
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return out;
}

Status CorruptValue(std::string_view key) {
  return {Code::kCorrupt, "the stored value of " + Shown(key) + " cannot be read"};
}

std::string EncodeRecord(const Record& record) {
  std::string out;
  out.reserve(16 + record.value.size());
  AppendU64(record.created, &out);
  AppendU64(record.modified, &out);
  out += record.value;
  return out;
}

Result<Record> DecodeRecord(std::string key, std::string_view stored) {
  Reader in(stored);
  Record out;
  out.created = in.U64();
  out.modified = in.U64();
  if (!in.ok()) return CorruptValue(key);
  out.key = std::move(key);
  out.value = std::string(in.rest());
  return out;
}

std::string EncodeApplied(const AppliedState& state) {
  std::string out;
  for (uint64_t n : {state.at.epoch, state.at.number, state.registrations, state.addresses,
                     state.sessions, state.history_bytes, state.audit_bytes, state.audit_wall_ms})
    AppendU64(n, &out);
  out.append(state.audit_hash.data(), state.audit_hash.size());
  return out;
}

Result<AppliedState> DecodeApplied(std::string_view stored) {
  Reader in(stored);
  AppliedState out;
  out.at.epoch = in.U64();
  out.at.number = in.U64();
  out.registrations = in.U64();
  out.addresses = in.U64();
  out.sessions = in.U64();
  out.history_bytes = in.U64();
  if (in.ok() && in.rest().empty()) return out;  // written before there was an audit log
  out.audit_bytes = in.U64();
  out.audit_wall_ms = in.U64();
  out.audit_hash = in.Hash();
  if (!in.ok()) return CorruptValue("m/applied");
  return out;
}

std::string EncodeFloor(const HistoryFloor& floor) {
  std::string out;
  AppendU64(floor.revision, &out);
  AppendU64(floor.bytes, &out);
  return out;
}

Result<HistoryFloor> DecodeFloor(std::string_view stored) {
  Reader in(stored);
  HistoryFloor out;
  out.revision = in.U64();
  out.bytes = in.U64();
  if (!in.ok()) return CorruptValue("m/history");
  return out;
}

std::string EncodeAuditFloor(const AuditFloor& floor) {
  std::string out;
  AppendU64(floor.revision, &out);
  AppendU64(floor.bytes, &out);
  out.append(floor.hash.data(), floor.hash.size());
  return out;
}

Result<AuditFloor> DecodeAuditFloor(std::string_view stored) {
  Reader in(stored);
  AuditFloor out;
  out.revision = in.U64();
  out.bytes = in.U64();
  out.hash = in.Hash();
  if (!in.ok()) return CorruptValue("m/audit");
  return out;
}

std::string EncodeOrphan(const OrphanState& state) {
  std::string out(1, state.kept ? 'k' : 'd');
  AppendU64(state.since, &out);
  return out;
}

Result<OrphanState> DecodeOrphan(std::string_view stored) {
  Reader in(stored);
  OrphanState out;
  out.kept = in.U8() == 'k';
  out.since = in.U64();
  if (!in.ok()) return CorruptValue("k/");
  return out;
}

uint64_t DomainState::depths() const {
  uint64_t out = 0;
  for (const auto& [depth, count] : subtrees) out |= 1ull << depth;
  return out;
}

std::string EncodeDomain(const DomainState& state) {
  std::string out;
  AppendU32(state.rows, &out);
  for (const auto& [depth, count] : state.subtrees) {
    out.push_back(static_cast<char>(depth));
    AppendU32(count, &out);
  }
  return out;
}

Result<DomainState> DecodeDomain(std::string_view stored) {
  Reader in(stored);
  DomainState out;
  out.rows = in.U32();
  while (in.ok() && !in.rest().empty()) {
    const uint8_t depth = in.U8();
    out.subtrees[depth] = in.U32();
  }
  if (!in.ok()) return CorruptValue("y/");
  return out;
}

std::string Deterministic(const google::protobuf::MessageLite& message) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return out;
}

}  // namespace datawire::directory
