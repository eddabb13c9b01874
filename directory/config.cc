#include "config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <span>
#include <string_view>

#include "tls/check.h"

namespace datawire::directory {
namespace {

constexpr size_t kIdBytes = 63;

/// CLI11's texts, made one line.
std::string OneLine(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// CLI11 says `INI was not able to parse KEY`, with `.++` behind the name of a section, or
/// `KEY: This option is not allowed in a configuration file`.
Status BadKey(const std::string& file, std::string_view text) {
  const size_t colon = text.find(": ");
  std::string_view key =
      colon != std::string_view::npos ? text.substr(0, colon) : text.substr(text.rfind(' ') + 1);
  if (key.ends_with(".++")) key.remove_suffix(3);
  return Status(Code::kInvalid, "config file " + Shown(file) + ": " + Shown(key) +
                                    " is not a key; the keys are the flags that --help shows, "
                                    "without dashes in front, and there are no sections");
}

Status CheckId(std::string_view flag, const std::string& value) {
  const bool clean = std::all_of(value.begin(), value.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-_.").find(c) != std::string_view::npos;
  });
  if (clean && !value.empty() && value.size() <= kIdBytes) return Status::Ok();
  return Status(Code::kInvalid, std::string(flag) + " " + Shown(value) + ": 1 to " +
                                    std::to_string(kIdBytes) + " characters of A-Z a-z 0-9 - _ .");
}

Result<HostPort> Listener(std::string_view flag, const std::string& value, const Config& config) {
  auto parsed = HostPort::Parse(value);
  if (!parsed.ok()) {
    return Status(Code::kInvalid, std::string(flag) + ": " + parsed.status().message());
  }
  if (!parsed->loopback() && !config.tls.any() && !config.insecure) {
    return Status(Code::kInvalid,
                  std::string(flag) + " " + Shown(value) +
                      " is not a loopback address: without certificates only 127.0.0.0/8, [::1] or "
                      "localhost; give it --tls-cert, --tls-key and --tls-ca, or add --insecure");
  }
  return parsed;
}

/// `512M`: a number, and a unit behind it. 1 to 2^40 of the smallest one.
Result<uint64_t> WithUnit(std::string_view flag, const std::string& value,
                          std::span<const std::pair<char, uint64_t>> units, std::string_view rule) {
  uint64_t number = 0;
  const char* const end = value.data() + value.size();
  const auto read = std::from_chars(value.data(), end, number);
  const char unit = read.ptr == end ? '\0' : *read.ptr;
  constexpr uint64_t kMost = 1ull << 40;
  for (const auto& [letter, factor] : units)
    if (letter == unit && end - read.ptr <= 1 && read.ec == std::errc() && number > 0 &&
        number <= kMost / factor)
      return number * factor;
  return Status(Code::kInvalid,
                std::string(flag) + " " + Shown(value) + " is not " + std::string(rule));
}

/// Data is made in one way, or found.
Status CheckMaking(const Config& config) {
  std::string_view made;
  for (const auto& [set, flag] :
       {std::pair{config.init, "--init"}, std::pair{!config.import_file.empty(), "--import"},
        std::pair{!config.restore.empty(), "--restore"}}) {
    if (!set) continue;
    if (!made.empty()) {
      return Status(Code::kInvalid, std::string(made) + " and " + flag +
                                        " exclude each other: each makes the data directory");
    }
    made = flag;
  }
  if (config.epoch != 0 && (made.empty() || config.init)) {
    return Status(Code::kInvalid,
                  "--epoch " + std::to_string(config.epoch) +
                      " goes with --import or --restore only: a data directory keeps its own");
  }
  return Status::Ok();
}

/// `HOST:PORT,http://HOST:PORT`: what etcd's own flags look like is taken, too.
Status CheckEngine(const std::string& engine, const std::string& endpoints, Config* config) {
  const bool etcd = engine == "etcd";
  if (!etcd && engine != "embedded")
    return Status(Code::kInvalid,
                  "--engine " + Shown(engine) + " is unknown: it is embedded or etcd");
  if (etcd == endpoints.empty())
    return Status(Code::kInvalid, etcd ? "--engine etcd wants --etcd-endpoints: the HOST:PORT of "
                                         "each member, with commas between"
                                       : "--etcd-endpoints goes with --engine etcd only");
  if (!etcd) {
    if (config->raise_epoch)
      return Status(Code::kInvalid, "--raise-epoch goes with --engine etcd only");
    if (!config->advertise.empty())
      return Status(Code::kInvalid, "--advertise goes with --engine etcd only");
    return Status::Ok();
  }
  if (config->dev) return Status(Code::kInvalid, "--engine etcd and --dev exclude each other");
  if (!config->restore.empty())
    return Status(Code::kInvalid,
                  "--restore makes an embedded directory: restore etcd by its own means, then "
                  "start once with --raise-epoch");
  if (config->raise_epoch && (config->init || !config->import_file.empty()))
    return Status(Code::kInvalid,
                  "--raise-epoch is for a cluster that is there: not with --init "
                  "or --import");
  for (size_t from = 0; from <= endpoints.size();) {
    const size_t to = std::min(endpoints.find(',', from), endpoints.size());
    std::string one = endpoints.substr(from, to - from);
    const bool https = one.starts_with("https://");
    if (!config->etcd.empty() && https != config->etcd_tls)
      return Status(Code::kInvalid, "--etcd-endpoints " + Shown(endpoints) +
                                        ": all of them begin with https://, or none does");
    config->etcd_tls = https;
    for (const std::string_view scheme : {"http://", "https://"})
      if (one.starts_with(scheme)) one.erase(0, scheme.size());
    auto parsed = HostPort::Parse(one);
    if (!parsed.ok())
      return Status(Code::kInvalid, "--etcd-endpoints: " + parsed.status().message());
    config->etcd.push_back(parsed->ToString());
    from = to + 1;
  }
  if (config->etcd_tls && !config->tls.any())
    return Status(Code::kInvalid, "--etcd-endpoints " + Shown(endpoints) +
                                      ": https:// wants --tls-cert, --tls-key and --tls-ca");
  if (config->advertise.empty()) return Status::Ok();
  if (const auto parsed = HostPort::Parse(config->advertise); !parsed.ok())
    return Status(Code::kInvalid, "--advertise: " + parsed.status().message());
  return Status::Ok();
}

Status Check(const std::string& listen, const std::string& http_listen, const std::string& engine,
             const std::string& etcd_endpoints, Config* config) {
  if (config->dev) {
    for (const auto& [set, flag] :
         {std::pair{!config->data.empty(), "--data"}, std::pair{config->init, "--init"},
          std::pair{config->insecure, "--insecure"},
          std::pair{!config->cluster_id.empty(), "--cluster-id"},
          std::pair{!config->import_file.empty(), "--import"},
          std::pair{!config->restore.empty(), "--restore"}}) {
      if (!set) continue;
      return Status(Code::kInvalid, std::string(flag) +
                                        " and --dev exclude each other: --dev brings its own "
                                        "temporary data, cluster id and loopback addresses");
    }
  } else if (config->data.empty()) {
    return Status(Code::kInvalid,
                  "--data is missing: name the data directory (with --init the first time), or try "
                  "--dev");
  }
  DW_RETURN_IF_ERROR(CheckMaking(*config));
  if (config->tls.any() && config->insecure)
    return Status(
        Code::kInvalid,
        "--insecure and --tls-cert exclude each other: it says to serve without certificates");
  DW_RETURN_IF_ERROR(tls::CheckFiles(config->tls));
  DW_RETURN_IF_ERROR(CheckEngine(engine, etcd_endpoints, config));
  if (!config->cluster_id.empty()) {
    if (!config->init) {
      return Status(Code::kInvalid, "--cluster-id " + Shown(config->cluster_id) +
                                        " goes with --init only: a data directory keeps its own");
    }
    DW_RETURN_IF_ERROR(CheckId("--cluster-id", config->cluster_id));
  }
  DW_RETURN_IF_ERROR(CheckId("--node-id", config->node_id));
  DW_ASSIGN(config->listen, Listener("--listen", listen, *config));
  DW_ASSIGN(config->http_listen, Listener("--http-listen", http_listen, *config));
  if (config->listen == config->http_listen && config->listen.port != 0) {
    return Status(Code::kInvalid, "--listen and --http-listen are both " + Shown(listen) +
                                      ": each needs a port of its own");
  }
  return Status::Ok();
}

}  // namespace

Result<Invocation> ParseCommandLine(int argc, const char* const* argv) {
  Invocation invocation;
  Config& config = invocation.config;
  std::string listen = "127.0.0.1:7400", http_listen = "127.0.0.1:7403";
  std::string audit_bytes = "1G", audit_age = "30d";
  std::string engine = "embedded", etcd_endpoints;
  config.node_id = "node-1";

  CLI::App app{
      "The Datawire directory: maps logical addresses to live endpoints.\n"
      "Every flag is a key of the config file: data = \"/var/lib/datawire\"",
      "datawire-directory"};
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_help_flag("--help,-h", "Print this help and exit")->configurable(false);
  app.set_version_flag("--version", "datawire-directory " DATAWIRE_VERSION,
                       "Print the version and exit")
      ->configurable(false);
  app.set_config("--config", "", "Read flags from a file: key = value, one a line")
      ->type_name("FILE")
      ->configurable(false);
  app.add_option("--data", config.data, "Directory of the data")->type_name("DIR");
  app.add_flag("--init", config.init,
               "Create the data directory: refuses one that is initialised already");
  app.add_option("--import", config.import_file,
                 "Create the data directory from an export: keeps its cluster id, raises the epoch")
      ->type_name("FILE");
  app.add_option("--restore", config.restore,
                 "Create the data directory from a snapshot: as --import, with its sessions")
      ->type_name("DIR");
  app.add_option("--epoch", config.epoch,
                 "With --import and --restore: the new epoch (the backup's + 1); a greater one "
                 "than was ever in "
                 "use if this backup served before")
      ->type_name("NUMBER");
  app.add_flag("--dev", config.dev,
               "Try it out: temporary data, loopback, cluster id dev; gone at exit");
  app.add_option("--node-id", config.node_id, "Name of this server in answers")
      ->type_name("ID")
      ->capture_default_str();
  app.add_option("--cluster-id", config.cluster_id, "With --init: the cluster's id (random)")
      ->type_name("ID");
  app.add_option("--engine", engine,
                 "What orders changes and keeps them: embedded (one machine) or etcd (a cluster)")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--etcd-endpoints", etcd_endpoints,
                 "Members of the etcd that the cluster has for itself; with https:// in front the "
                 "certificates below are used")
      ->type_name("HOST:PORT[,...]");
  app.add_option("--advertise", config.advertise,
                 "Where other nodes reach this one (where it listens)")
      ->type_name("HOST:PORT");
  app.add_flag("--raise-epoch", config.raise_epoch,
               "Once, by one node, after etcd was restored from a backup: what anybody knows from "
               "before counts as older");
  app.add_option("--listen", listen, "Native API (gRPC); port 0: any free one")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--http-listen", http_listen,
                 "Metrics and health, always plain HTTP; port 0: any free one")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--audit-bytes", audit_bytes,
                 "How much of the audit log is kept: a number with K, M, G or none")
      ->type_name("SIZE")
      ->capture_default_str();
  app.add_option("--audit-age", audit_age, "And for how long: a number with d, h, m or s")
      ->type_name("DURATION")
      ->capture_default_str();
  app.add_option("--tls-cert", config.tls.cert,
                 "Serve with TLS, to clients with a certificate only: the own certificate and what "
                 "leads to its CA, in PEM; renewed files are taken without a restart")
      ->type_name("FILE");
  app.add_option("--tls-key", config.tls.key, "Its key")->type_name("FILE");
  app.add_option("--tls-ca", config.tls.ca, "The CAs of clients (and of etcd)")->type_name("FILE");
  app.add_flag("--insecure", config.insecure,
               "Listen beyond loopback without certificates: anybody can read and write");
  const auto quota = [&app](const char* flag, size_t& most, const char* what) {
    app.add_option(flag, most, std::string("One principal may hold so many ") + what)
        ->check(CLI::PositiveNumber)
        ->type_name("NUMBER")
        ->capture_default_str();
  };
  quota("--quota-registrations", config.quotas.registrations,
        "registrations; it is the identity in a client's certificate, without certificates a "
        "client IP, and loopback has no quota");
  quota("--quota-sessions", config.quotas.sessions, "sessions");
  quota("--quota-watches", config.quotas.watches, "Watch streams");
  quota("--quota-streams", config.quotas.streams, "tethers and Subscribe streams");
  app.footer("Exit codes: 0 stopped by SIGTERM or SIGINT, 1 wrong input or not able to serve.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    invocation.text = app.help();
    return invocation;
  } catch (const CLI::CallForVersion& version) {
    invocation.text = std::string(version.what()) + "\n";
    return invocation;
  } catch (const CLI::ConfigError& error) {
    return BadKey(app["--config"]->as<std::string>(), error.what());
  } catch (const CLI::FileError&) {
    return Status(Code::kInvalid, "--config " + Shown(app["--config"]->as<std::string>()) +
                                      " cannot be read: name a file of lines key = value");
  } catch (const CLI::Error& error) {
    return Status(Code::kInvalid, OneLine(error.what()) + " (see --help)");
  }
  DW_RETURN_IF_ERROR(Check(listen, http_listen, engine, etcd_endpoints, &config));
  constexpr std::pair<char, uint64_t> kSizes[] = {
      {'\0', 1}, {'K', 1 << 10}, {'M', 1 << 20}, {'G', 1 << 30}};
  constexpr std::pair<char, uint64_t> kSpans[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  DW_ASSIGN(config.audit_bytes, WithUnit("--audit-bytes", audit_bytes, kSizes,
                                         "a whole number with K, M, G or nothing behind it: 512M"));
  DW_ASSIGN(const uint64_t age, WithUnit("--audit-age", audit_age, kSpans,
                                         "a whole number with d, h, m or s behind it: 30d"));
  config.audit_age = std::chrono::seconds(age);
  return invocation;
}

}  // namespace datawire::directory
