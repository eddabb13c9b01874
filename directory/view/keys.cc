#include "view/keys.h"

#include <openssl/sha.h>

namespace datawire::directory::keys {

std::string Registration(const Address& address, const std::string& instance) {
  return RegistrationsFrom(address) + instance;
}

std::string RegistrationsFrom(const Address& address) { return "d/" + address.Key() + '\1'; }

std::string RegistrationsTo(const Address& address) { return "d/" + address.Key() + '\2'; }

std::string Session(const std::string& id) { return "s/" + id; }

std::string SessionMark(const std::string& id) { return "q/" + id; }

std::string SessionEnded(const std::string& id) { return "t/" + id; }

Result<std::pair<Address, std::string>> ParseRegistration(const std::string& key) {
  const size_t end = key.find('\1');
  if (!key.starts_with("d/") || end == std::string::npos)
    return Status(Code::kCorrupt, "a registration key does not have the form d/<address>\\1<id>");
  DW_ASSIGN(Address address, Address::FromKey(std::string_view(key).substr(2, end - 2)));
  return std::pair(std::move(address), key.substr(end + 1));
}

std::string InstanceOf(const std::string& identity, bool is_static, const std::string& url) {
  std::string input = identity;
  input += '\0';
  input += is_static ? "static" : "session";
  input += '\0';
  input += url;
  unsigned char digest[SHA256_DIGEST_LENGTH];
  ::SHA256(reinterpret_cast<const unsigned char*>(input.data()), input.size(), digest);
  return std::string(reinterpret_cast<const char*>(digest), 16);
}

}  // namespace datawire::directory::keys
