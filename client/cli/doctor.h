#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "datawire/directory/v1/directory.pb.h"
#include "datawire/result.h"

namespace datawire::cli {

namespace pb = ::datawire::directory::v1;

/// What one server said, and how it looked from here. Value.
struct Examined {
  std::string server;
  Result<pb::StatusResponse> status;
  std::chrono::milliseconds took{0};  ///< of the call
  int64_t here_wall_ms = 0;           ///< this machine's clock in the middle of it
};

enum class Verdict { kOk, kWarn, kFail };
std::string_view VerdictName(Verdict verdict);

/// One line of `dw doctor`. Value.
struct Finding {
  Verdict verdict = Verdict::kOk;
  std::string check;   ///< server, health, clock, version, files, disc, cluster, node, etcd
  std::string server;  ///< empty: all of them, or this machine
  std::string what;
  std::string remedy;  ///< when it is not ok
};

/// Pure. `version` and `files_here` (the limit of open files) are those of this program.
std::vector<Finding> Diagnose(const std::vector<Examined>& servers, const std::string& version,
                              uint64_t files_here);

/// Pure. Of the nodes of a cluster and its etcd, as one of them says.
std::vector<Finding> DiagnoseCluster(const pb::MembersResponse& members);

}  // namespace datawire::cli
