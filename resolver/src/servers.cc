#include "servers.h"

#include <cstdlib>
#include <fstream>

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

// The value of `directory = ...` in a config file; empty if the file or the key is not there.
std::string FromFile(const std::string& path) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::string_view text = Trim(std::string_view(line).substr(0, line.find('#')));
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos && Trim(text.substr(0, equals)) == "directory")
      return std::string(Trim(text.substr(equals + 1)));
  }
  return {};
}

std::string_view OrEmpty(const char* value) {
  return value == nullptr ? std::string_view() : std::string_view(value);
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
    if (const std::string list = FromFile(file); !list.empty()) return ParseList(list, file);
  return std::vector<std::string>{"127.0.0.1:7400"};
}

}  // namespace resolver

Result<std::vector<std::string>> FindDirectoryServers(const std::vector<std::string>& given) {
  return resolver::FindServers(
      given, OrEmpty(std::getenv("DATAWIRE_DIRECTORY")),
      resolver::ConfigFiles(OrEmpty(std::getenv("XDG_CONFIG_HOME")), OrEmpty(std::getenv("HOME"))));
}

}  // namespace datawire
