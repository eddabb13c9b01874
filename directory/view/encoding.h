#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "datawire/result.h"
#include "view/view.h"

namespace google::protobuf {
class MessageLite;
}

namespace datawire::directory {

/// Stored values, as FORMAT.md has them. Integers are big-endian.
inline constexpr uint32_t kFormat = 1;

using Sha256Digest = std::array<char, 32>;
Sha256Digest DigestOf(std::string_view bytes);
/// Of the audit's chain up to a revision; zeros before the first.
using AuditHash = Sha256Digest;

void AppendU16(uint16_t value, std::string* out);
void AppendU32(uint32_t value, std::string* out);
void AppendU64(uint64_t value, std::string* out);

/// Takes a value apart; after a read past the end ok() is false and everything reads as zero.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  uint8_t U8() { return static_cast<uint8_t>(Number(1)); }
  uint16_t U16() { return static_cast<uint16_t>(Number(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }
  std::string_view Bytes(size_t count);
  AuditHash Hash();
  std::string_view rest() const { return in_; }
  bool ok() const { return ok_; }

 private:
  uint64_t Number(size_t bytes);
  std::string_view in_;
  bool ok_ = true;
};

std::string EncodeRecord(const Record& record);
Result<Record> DecodeRecord(std::string key, std::string_view stored);

/// Value of m/applied: what moves with every revision.
struct AppliedState {
  Revision at;
  uint64_t registrations = 0, addresses = 0, sessions = 0;
  uint64_t history_bytes = 0;  ///< ever written; the floor's figure taken off gives what is kept
  uint64_t audit_bytes = 0;    ///< as well
  uint64_t audit_wall_ms = 0;  ///< the latest time that an entry ever noted
  AuditHash audit_hash{};      ///< of the last revision with an entry
};
std::string EncodeApplied(const AppliedState& state);
Result<AppliedState> DecodeApplied(std::string_view stored);

/// Value of m/history: events up to and with this revision are gone.
struct HistoryFloor {
  uint64_t revision = 0;
  uint64_t bytes = 0;  ///< AppliedState::history_bytes as it was there
};
std::string EncodeFloor(const HistoryFloor& floor);
Result<HistoryFloor> DecodeFloor(std::string_view stored);

/// Value of m/audit: entries up to and with this revision are gone.
struct AuditFloor {
  uint64_t revision = 0;
  uint64_t bytes = 0;  ///< AppliedState::audit_bytes as it was there
  AuditHash hash{};    ///< of the last of them
};
std::string EncodeAuditFloor(const AuditFloor& floor);
Result<AuditFloor> DecodeAuditFloor(std::string_view stored);

/// Value of k/: what became of a registration whose session has ended.
struct OrphanState {
  bool kept = false;   ///< the last endpoint: listed as suspect; else only waits to be swept
  uint64_t since = 0;  ///< revision
};
std::string EncodeOrphan(const OrphanState& state);
Result<OrphanState> DecodeOrphan(std::string_view stored);

/// Value of y/: how many rows a domain has, and at which depths subtrees.
struct DomainState {
  uint32_t rows = 0;
  std::map<uint8_t, uint32_t> subtrees;  ///< depth to count, none of them 0
  uint64_t depths() const;               ///< bit n: depth n has subtrees
};
std::string EncodeDomain(const DomainState& state);
Result<DomainState> DecodeDomain(std::string_view stored);

/// The same bytes for equal messages on every machine (maps sorted).
std::string Deterministic(const google::protobuf::MessageLite& message);

Status CorruptValue(std::string_view key);

}  // namespace datawire::directory
