#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "datawire/address.h"
#include "datawire/result.h"

namespace datawire::directory {

/// Keys, as FORMAT.md has them; the only place that builds them.
namespace keys {
std::string Registration(const Address& address, const std::string& instance);
std::string RegistrationsFrom(const Address& address);  ///< range of one address
std::string RegistrationsTo(const Address& address);
std::string Session(const std::string& id);
std::string SessionMark(const std::string& id);
std::string SessionEnded(const std::string& id);
std::string Policy(const Address& address);
/// Address and instance of a `d/` key; kCorrupt otherwise.
Result<std::pair<Address, std::string>> ParseRegistration(const std::string& key);
/// The 16-byte instance of (identity, static or session, URL): record.proto.
std::string InstanceOf(const std::string& identity, bool is_static, const std::string& url);

// What only the view has.
inline constexpr char kAuthority[] = "m/epoch";
inline constexpr char kApplied[] = "m/applied";
inline constexpr char kHistoryFloor[] = "m/history";
inline constexpr char kAuditFloor[] = "m/audit";
std::string Row(const Address& address);         ///< r/: what the address itself matches
std::string SubtreeRow(const Address& address);  ///< u/: what addresses below it match
std::string Domain(std::string_view domain);     ///< y/
std::string Principal(std::string_view name);    ///< c/: registrations that it holds
/// x/: registrations of a session; `registration` is a d/ key.
std::string Index(const std::string& session, const std::string& registration);
std::string IndexPrefix(const std::string& session);
std::string Orphan(const std::string& registration);  ///< k/: its session has ended
std::string OrphansFrom(const Address& address);
std::string OrphansTo(const Address& address);
enum class Queue : char { kTombstones = 't', kLastEndpoints = 'l' };
std::string Sweep(Queue queue, uint64_t since, std::string_view key);  ///< w/
std::string History(uint64_t revision);                                ///< h/
std::string Audit(uint64_t revision);                                  ///< j/
/// True for keys that an op may write.
bool IsRecord(std::string_view key);
/// The first key after all that begin with `prefix`, which is not all \xff.
std::string After(std::string prefix);
}  // namespace keys

}  // namespace datawire::directory
