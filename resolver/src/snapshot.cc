#include "snapshot.h"

#include <openssl/sha.h>

#include <algorithm>
#include <boost/crc.hpp>

#include "datawire/wire.h"

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::string_view kMagic = "DWCACHE1";
constexpr milliseconds kAgeMost = std::chrono::hours(24 * 365);  // what FromWire takes
constexpr size_t kRecordMost = 1 << 20;
// Two clocks that are both right may differ by so much.
constexpr milliseconds kWallSlack = std::chrono::minutes(5);

uint32_t Crc32c(std::string_view bytes) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return crc.checksum();
}

std::string Sha256(std::string_view bytes) {
  std::string hash(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(hash.data()));
  return hash;
}

void PutNumber(uint64_t value, size_t bytes, std::string& out) {
  for (size_t i = 0; i < bytes; i++) out += static_cast<char>(value >> (8 * i));
}

void PutText(std::string_view text, std::string& out) {
  PutNumber(text.size(), 4, out);
  out += text;
}

void PutRecord(std::string_view payload, std::string& out) {
  PutNumber(payload.size(), 4, out);
  PutNumber(Crc32c(payload), 4, out);
  out += payload;
}

// Reads from the front; once something was missing, all that follows is empty and ok() false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  bool ok() const { return ok_; }
  size_t left() const { return left_.size(); }
  std::string_view Bytes(size_t count) {
    if (count > left_.size()) {
      ok_ = false;
      left_ = {};
      return {};
    }
    const std::string_view bytes = left_.substr(0, count);
    left_.remove_prefix(count);
    return bytes;
  }
  uint64_t Number(size_t bytes) {
    uint64_t value = 0;
    size_t i = 0;
    for (const unsigned char c : Bytes(bytes)) value |= uint64_t{c} << (8 * i++);
    return value;
  }
  std::string Text() { return std::string(Bytes(Number(4))); }

 private:
  std::string_view left_;
  bool ok_ = true;
};

void ToWire(const Answer& answer, pb::Answer* out) {
  out->set_address(answer.address.text());
  if (answer.matched) out->set_matched(answer.matched->text());
  datawire::ToWire(answer.revision, out->mutable_revision());
  out->set_age_ms(std::clamp(answer.age, milliseconds(0), kAgeMost).count());
  out->set_ttl_ms(answer.ttl.count());
  pb::Row* row = out->mutable_row();
  row->set_status(static_cast<pb::AnswerStatus>(answer.status));
  row->set_policy(static_cast<pb::Policy>(answer.policy));
  datawire::ToWire(answer.modified, row->mutable_modified());
  row->set_total(answer.total);
  row->set_hash(answer.hash);
  for (const Endpoint& endpoint : answer.endpoints)
    datawire::ToWire(endpoint, pb::MATCH_EXACT, row->add_endpoints());
}

Status Corrupt(size_t at, std::string_view what) {
  return {Code::kCorrupt,
          "not a whole snapshot: at byte " + std::to_string(at) + ": " + std::string(what)};
}

Status ReadHeader(std::string_view payload, SnapshotContent& out, uint64_t& count) {
  Reader reader(payload);
  out.cluster = reader.Text();
  out.revision = {reader.Number(8), 0};
  out.revision.number = reader.Number(8);
  out.saved.wall_ms = static_cast<int64_t>(reader.Number(8));
  out.saved.now = BootTime(nanoseconds(static_cast<int64_t>(reader.Number(8))));
  out.saved.boot = reader.Text();
  count = reader.Number(8);
  if (!reader.ok() || reader.left() > 0 || out.cluster.empty())
    return {Code::kCorrupt, "the header does not parse"};
  return {};
}

Result<SnapshotEntry> ReadEntry(std::string_view payload) {
  Reader reader(payload);
  const uint64_t received = reader.Number(8);
  pb::Answer wire;
  const std::string_view rest = reader.Bytes(reader.left());
  if (!reader.ok() || received > static_cast<uint64_t>(kAgeMost.count()) ||
      !wire.ParseFromArray(rest.data(), static_cast<int>(rest.size())))
    return Status(Code::kCorrupt, "the record does not parse");
  DW_ASSIGN(Answer answer, FromWire(wire));
  if (answer.status != AnswerStatus::kFound && answer.status != AnswerStatus::kNoEndpoint)
    return Status(Code::kCorrupt, "status " + std::string(AnswerStatusName(answer.status)) +
                                      " is not kept in snapshots");
  answer.source = "snapshot";
  return SnapshotEntry{std::move(answer), milliseconds(received)};
}

std::string Seconds(nanoseconds time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
}

}  // namespace

std::string EncodeSnapshot(const SnapshotContent& content) {
  std::string out(kMagic), payload;
  PutText(content.cluster, payload);
  PutNumber(content.revision.epoch, 8, payload);
  PutNumber(content.revision.number, 8, payload);
  PutNumber(static_cast<uint64_t>(content.saved.wall_ms), 8, payload);
  PutNumber(static_cast<uint64_t>(content.saved.now.time_since_epoch().count()), 8, payload);
  PutText(content.saved.boot, payload);
  PutNumber(content.entries.size(), 8, payload);
  PutRecord(payload, out);
  pb::Answer wire;
  for (const SnapshotEntry& entry : content.entries) {
    payload.clear();
    PutNumber(std::clamp(entry.received, milliseconds(0), kAgeMost).count(), 8, payload);
    wire.Clear();
    ToWire(entry.answer, &wire);
    wire.AppendToString(&payload);
    PutRecord(payload, out);
  }
  return out + Sha256(out);
}

Result<SnapshotContent> DecodeSnapshot(std::string_view bytes) {
  if (!bytes.starts_with(kMagic)) return Corrupt(0, "does not begin with DWCACHE1");
  if (bytes.size() < kMagic.size() + SHA256_DIGEST_LENGTH)
    return Corrupt(bytes.size(), "ends before its hash");
  const std::string_view hashed = bytes.substr(0, bytes.size() - SHA256_DIGEST_LENGTH);
  Reader reader(hashed.substr(kMagic.size()));
  SnapshotContent out;
  uint64_t count = 0;
  for (uint64_t i = 0; i <= count; i++) {
    const size_t at = hashed.size() - reader.left();
    const uint64_t size = reader.Number(4), crc = reader.Number(4);
    const std::string_view payload = reader.Bytes(std::min<uint64_t>(size, kRecordMost + 1));
    if (!reader.ok()) return Corrupt(at, "ends within a record");
    if (size > kRecordMost)
      return Corrupt(at, "a record of " + std::to_string(size) + " bytes, at most " +
                             std::to_string(kRecordMost));
    if (Crc32c(payload) != crc) return Corrupt(at, "the record's CRC is wrong");
    if (i == 0) {
      if (const Status status = ReadHeader(payload, out, count); !status.ok())
        return Corrupt(at, status.message());
      continue;
    }
    auto entry = ReadEntry(payload);
    if (!entry.ok()) return Corrupt(at, entry.status().message());
    out.entries.push_back(std::move(entry).value());
  }
  if (reader.left() > 0)
    return Corrupt(hashed.size() - reader.left(), "goes on after its last record");
  if (bytes.substr(hashed.size()) != Sha256(hashed))
    return Corrupt(hashed.size(), "the hash over all is wrong");
  return out;
}

Result<nanoseconds> SinceSaved(const Moment& saved, const Moment& present) {
  if (!saved.boot.empty() && saved.boot == present.boot) {
    const nanoseconds since = present.now - saved.now;
    if (since.count() >= 0) return since;
    return Status(Code::kInvalid, "saved " + Seconds(-since) + " in the future (CLOCK_BOOTTIME)");
  }
  // Bounds before anything is computed from a number that a file gave.
  constexpr int64_t kWallMost = int64_t{1} << 52;
  const int64_t wall = std::clamp<int64_t>(saved.wall_ms, -kWallMost, kWallMost);
  const milliseconds since(std::clamp<int64_t>(present.wall_ms, -kWallMost, kWallMost) - wall);
  if (since < -kWallSlack)
    return Status(Code::kInvalid, "saved " + std::to_string(-since.count() / 1000) +
                                      " s in the future (wall clock)");
  const milliseconds up = std::chrono::ceil<milliseconds>(present.now.time_since_epoch());
  return nanoseconds(std::min(std::max({since, up, milliseconds(0)}), kAgeMost));
}

Result<nanoseconds> Usable(const SnapshotContent& content, std::string_view cluster,
                           const Moment& present, milliseconds max_stale) {
  if (!cluster.empty() && cluster != content.cluster)
    return Status(Code::kConflict,
                  "is of cluster " + Shown(content.cluster) + ", not " + Shown(cluster));
  DW_ASSIGN(const nanoseconds since, SinceSaved(content.saved, present));
  if (since > max_stale)
    return Status(Code::kInvalid,
                  "was saved " + Seconds(since) + " ago, at most " + Seconds(max_stale));
  return since;
}

void SnapshotSchedule::Tried(BootTime now, nanoseconds took, bool saved, uint64_t changes) {
  constexpr int kShare = 20;
  not_before_ = now + std::max<nanoseconds>(kSnapshotApart, took * kShare);
  if (saved) changes_ = changes;
  Next(std::max(now, not_before_ - kSnapshotApart));
}

void SnapshotSchedule::Next(BootTime now) {
  const nanoseconds each = kSnapshotEach;
  each_at_ = now + nanoseconds(std::uniform_int_distribution<int64_t>(
                       each.count() * 8 / 10, each.count() * 12 / 10)(random_));
}

}  // namespace datawire::resolver
