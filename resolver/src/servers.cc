#include "servers.h"

#include <arpa/inet.h>

#include <cstdlib>
#include <fstream>
#include <random>

#include "datawire/address.h"
#include "datawire/endpoint_url.h"
#include "srv_lookup.h"
#include "tls/check.h"

namespace datawire {
namespace {

std::string_view Trim(std::string_view text) {
  const size_t from = text.find_first_not_of(" \t\r");
  if (from == std::string_view::npos) return {};
  return text.substr(from, text.find_last_not_of(" \t\r") - from + 1);
}

// A list `host:port[,host:port...]`, every item checked.
Result<std::vector<std::string>> ParseList(std::string_view list, std::string_view from) {
  std::vector<std::string> servers;
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view item = Trim(list.substr(0, comma));
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    if (item.empty()) continue;
    auto server = HostPort::Parse(item);
    if (!server.ok() || server->port == 0)
      return Status(Code::kInvalid, std::string(from) + ": directory server `" + std::string(item) +
                                        "` is not HOST:PORT");
    servers.push_back(server->ToString());
  }
  if (servers.empty())
    return Status(Code::kInvalid, std::string(from) + ": names no directory server (HOST:PORT)");
  return servers;
}

Result<std::string> ParseDomain(std::string_view domain, std::string_view from) {
  const auto address = Address::Parse("//" + std::string(domain));
  if (address.ok() && address->depth() == 0) return address->text().substr(2);
  return Status(Code::kInvalid, std::string(from) + ": " + Shown(domain) + " is no domain" +
                                    (address.ok() ? "" : ": " + address.status().message()));
}

Status CheckDnsServer(std::string_view text) {
  const auto server = HostPort::Parse(text);
  in6_addr address;
  if (server.ok() && server->port != 0 &&
      (::inet_pton(AF_INET, server->host.c_str(), &address) == 1 ||
       ::inet_pton(AF_INET6, server->host.c_str(), &address) == 1))
    return {};
  return {Code::kInvalid, "DNS server " + Shown(text) + " is not IP:PORT, such as 127.0.0.1:53"};
}

// The value of `key = ...` in a config file; empty if the file or the key is not there.
std::string FromFile(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::string_view text = Trim(std::string_view(line).substr(0, line.find('#')));
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos && Trim(text.substr(0, equals)) == key)
      return std::string(Trim(text.substr(equals + 1)));
  }
  return {};
}

}  // namespace

namespace resolver {

std::vector<std::string> ConfigFiles(std::string_view xdg_config_home, std::string_view home) {
  std::vector<std::string> files;
  if (!xdg_config_home.empty())
    files.push_back(std::string(xdg_config_home) + "/datawire/config");
  else if (!home.empty())  // what the XDG specification says of an unset variable
    files.push_back(std::string(home) + "/.config/datawire/config");
  files.push_back("/etc/datawire/config");
  return files;
}

Result<std::vector<std::string>> FindServers(const std::vector<std::string>& given,
                                             std::string_view variable,
                                             const std::vector<std::string>& files) {
  if (!given.empty()) {
    std::string list;
    for (const std::string& server : given) list += server + ",";
    return ParseList(list, "--directory");
  }
  if (!variable.empty()) return ParseList(variable, "$DATAWIRE_DIRECTORY");
  for (const std::string& file : files)
    if (const std::string list = FromFile(file, "directory"); !list.empty())
      return ParseList(list, file);
  return std::vector<std::string>{};
}

Result<std::string> FindDomain(std::string_view given, std::string_view variable,
                               const std::vector<std::string>& files) {
  if (!given.empty()) return ParseDomain(given, "domain");
  if (!variable.empty()) return ParseDomain(variable, "$DATAWIRE_DOMAIN");
  for (const std::string& file : files)
    if (const std::string domain = FromFile(file, "domain"); !domain.empty())
      return ParseDomain(domain, file);
  return std::string{};
}

Result<TlsFiles> FindTls(const TlsFiles& given, const TlsFiles& variables,
                         const std::vector<std::string>& files) {
  TlsFiles found = given.any() ? given : variables;
  for (auto file = files.begin(); !found.any() && file != files.end(); ++file)
    found = {FromFile(*file, "tls-cert"), FromFile(*file, "tls-key"), FromFile(*file, "tls-ca")};
  DW_RETURN_IF_ERROR(tls::CheckFiles(found));
  return found;
}

}  // namespace resolver

namespace {

std::string_view Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

std::vector<std::string> OwnConfigFiles() {
  return resolver::ConfigFiles(Variable("XDG_CONFIG_HOME"), Variable("HOME"));
}

}  // namespace

Result<DirectoryPlace> FindDirectory(const DirectoryPlace& given) {
  const auto files = OwnConfigFiles();
  DirectoryPlace found{.servers = {}, .domain = {}, .dns_server = given.dns_server};
  if (found.dns_server.empty()) found.dns_server = Variable("DATAWIRE_DNS");
  if (!found.dns_server.empty()) DW_RETURN_IF_ERROR(CheckDnsServer(found.dns_server));
  if (!given.servers.empty() || given.domain.empty()) {
    DW_ASSIGN(found.servers,
              resolver::FindServers(given.servers, Variable("DATAWIRE_DIRECTORY"), files));
  }
  if (!found.servers.empty()) return found;
  DW_ASSIGN(found.domain, resolver::FindDomain(given.domain, Variable("DATAWIRE_DOMAIN"), files));
  if (found.domain.empty()) found.servers = {"127.0.0.1:7400"};
  return found;
}

Result<std::vector<std::string>> LookUpServers(const DirectoryPlace& place,
                                               std::chrono::milliseconds timeout) {
  if (!place.servers.empty()) return place.servers;
  const auto reply = resolver::LookUpSrv(place.domain, place.dns_server, timeout);
  DW_ASSIGN(const auto servers, resolver::ServersOf(reply, place.domain, std::random_device{}()));
  std::vector<std::string> names;
  for (const resolver::Server& server : servers) names.push_back(server.name);
  return names;
}

Result<TlsFiles> FindTlsFiles(const TlsFiles& given) {
  const TlsFiles variables{std::string(Variable("DATAWIRE_TLS_CERT")),
                           std::string(Variable("DATAWIRE_TLS_KEY")),
                           std::string(Variable("DATAWIRE_TLS_CA"))};
  return resolver::FindTls(given, variables, OwnConfigFiles());
}

}  // namespace datawire
