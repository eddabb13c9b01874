#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "core/quotas.h"
#include "datawire/endpoint_url.h"
#include "datawire/result.h"
#include "datawire/tls_files.h"

namespace datawire::directory {

/// What the program was told, checked. Value.
struct Config {
  std::string data;  ///< directory of the store; empty with `dev`
  bool init = false;
  bool dev = false;
  bool insecure = false;
  TlsFiles tls;  ///< checked; none: plaintext
  std::string node_id;
  std::string cluster_id;         ///< for `init`; empty: a random one
  std::string import_file;        ///< an export to make the data from
  std::string restore;            ///< a snapshot to make the data from
  std::vector<std::string> etcd;  ///< HOST:PORT of each member; empty: the embedded engine
  bool etcd_tls = false;          ///< its members are spoken to with `tls`
  std::string advertise;          ///< HOST:PORT at which other nodes reach this one
  bool raise_epoch = false;
  uint64_t epoch = 0;                 ///< for `import_file` and `restore`; 0: the backup's + 1
  uint64_t audit_bytes = 0;           ///< of the audit log that are kept
  std::chrono::seconds audit_age{0};  ///< and for how long
  HostPort listen, http_listen;
  QuotaOptions quotas;
};

/// A command line understood: run with `config`, or print `text` and end with exit code 0.
struct Invocation {
  Config config;
  std::string text;
};

/// Flags, and the keys of the file that --config names; a flag wins over its key. kInvalid with one
/// line that shows the value and the rule.
Result<Invocation> ParseCommandLine(int argc, const char* const* argv);

}  // namespace datawire::directory
