#include "view/keys.h"

#include "view/encoding.h"

namespace datawire::directory::keys {

std::string Registration(const Address& address, const std::string& instance) {
  return RegistrationsFrom(address) + instance;
}

std::string RegistrationsFrom(const Address& address) {
  return "d/" + address.Key() + '\1';
}

std::string RegistrationsTo(const Address& address) {
  return "d/" + address.Key() + '\2';
}

std::string Session(const std::string& id) {
  return "s/" + id;
}

std::string SessionMark(const std::string& id) {
  return "q/" + id;
}

std::string SessionEnded(const std::string& id) {
  return "t/" + id;
}

std::string Policy(const Address& address) {
  return "p/" + address.Key();
}

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
  return std::string(DigestOf(input).data(), 16);
}

std::string Row(const Address& address) {
  return "r/" + address.Key();
}

std::string SubtreeRow(const Address& address) {
  return "u/" + address.Key();
}

std::string Domain(std::string_view domain) {
  return "y/" + std::string(domain);
}

std::string Principal(std::string_view name) {
  return "c/" + std::string(name);
}

std::string IndexPrefix(const std::string& session) {
  // The length keeps one session's range apart from those of longer ids.
  return "x/" + std::string(1, static_cast<char>(session.size())) + session;
}

std::string Index(const std::string& session, const std::string& registration) {
  return IndexPrefix(session) + registration.substr(2);
}

std::string Orphan(const std::string& registration) {
  return "k/" + registration.substr(2);
}

std::string OrphansFrom(const Address& address) {
  return "k/" + address.Key() + '\1';
}

std::string OrphansTo(const Address& address) {
  return "k/" + address.Key() + '\2';
}

std::string Sweep(Queue queue, uint64_t since, std::string_view key) {
  std::string out = "w/";
  out += static_cast<char>(queue);
  AppendU64(since, &out);
  out += key;
  return out;
}

std::string History(uint64_t revision) {
  std::string out = "h/";
  AppendU64(revision, &out);
  return out;
}

std::string Audit(uint64_t revision) {
  std::string out = "j/";
  AppendU64(revision, &out);
  return out;
}

bool IsRecord(std::string_view key) {
  return key.size() > 2 && key[1] == '/' &&
         std::string_view("dsqtpnafblg").find(key[0]) != std::string_view::npos;
}

std::string After(std::string prefix) {
  while (prefix.back() == '\xff') prefix.pop_back();  // a session id may end so
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

}  // namespace datawire::directory::keys
