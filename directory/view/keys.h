#pragma once

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
/// Address and instance of a `d/` key; kCorrupt otherwise.
Result<std::pair<Address, std::string>> ParseRegistration(const std::string& key);
/// The 16-byte instance of (identity, static or session, URL): record.proto.
std::string InstanceOf(const std::string& identity, bool is_static, const std::string& url);
}  // namespace keys

}  // namespace datawire::directory
