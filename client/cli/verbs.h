#pragma once

#include <functional>
#include <vector>

#include "api.h"
#include "arguments.h"
#include "console.h"
#include "datawire/address.h"
#include "datawire/answer.h"

namespace datawire::cli {

/// What every verb works with.
struct Session {
  const Arguments& arguments;
  Console& console;
  std::vector<std::string> servers;  ///< of the directory; empty for what asks none
  TlsFiles tls;
  Api& api;
};

/// Each runs its verb to the end and returns the exit code; a Status becomes one line and its code.
Result<int> Resolve(Session& session);
Result<int> List(Session& session);
Result<int> Tree(Session& session);
Result<int> Watch(Session& session);
Result<int> Register(Session& session);
Result<int> Withdraw(Session& session);
Result<int> Explain(Session& session);
Result<int> ShowStatus(Session& session);
/// Of all nodes. Exit code 4 unless all are well.
Result<int> ShowCluster(Session& session);
/// compare: all replicas, exit code 4 unless they are equal. forget: a node that stopped for good.
Result<int> Cluster(Session& session);
Result<int> ShowCompletion(Session& session);
Result<int> Export(Session& session);
Result<int> Import(Session& session);
Result<int> Snapshot(Session& session);
Result<int> Audit(Session& session);
/// Of a resolver's snapshot file; asks no directory.
Result<int> ShowCache(Session& session);
Result<int> Doctor(Session& session);
Result<int> Bench(Session& session);
/// `dw bench link`.
Result<int> BenchLink(Session& session);
Result<int> ShowVersion(Session& session);
Result<int> SetOrShowPolicy(Session& session);
Result<int> Drain(Session& session);
Result<int> History(Session& session);
Result<int> Sessions(Session& session);
Result<int> Send(Session& session);
Result<int> Receive(Session& session);
Result<int> Request(Session& session);

/// The bytes of a session id from its 32 hex digits.
Result<std::string> ParseSessionId(const std::string& text);
/// The newest answers, asked for until each is `enough` or --wait is over.
Result<std::vector<Answer>> ResolveNow(Session& session, const std::vector<Address>& addresses,
                                       const std::function<bool(const Answer&)>& enough);
/// Whether a target of `send` and `request` is a URL, which no directory is asked for.
bool IsPhysical(std::string_view target);
/// Makes sure that somebody may take a message for `target`, as long as --wait allows: 0, or the
/// exit code, its reason told.
Result<int> FindPeer(Session& session);
/// The exit code of an answer, and why on stderr when it is not 0.
int Judge(Session& session, const Answer& answer);

}  // namespace datawire::cli
