#include <nlohmann/json.hpp>

#include "datawire/limits.h"
#include "datawire/wire.h"
#include "random_bytes.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr milliseconds kReply{2000};  // beyond the wait for acknowledgements
constexpr milliseconds kAcknowledgedMost = std::chrono::minutes(10);

std::string WaitingText(const pb::DrainResponse& response) {
  std::string text;
  for (const std::string& peer : response.waiting()) text += (text.empty() ? "" : ", ") + peer;
  if (response.waiting_total() > static_cast<uint32_t>(response.waiting_size()))
    text += ", and " + std::to_string(response.waiting_total() - response.waiting_size()) + " more";
  return text;
}

void Show(Session& session, const std::string& what, const pb::DrainResponse& response) {
  const Arguments& arguments = session.arguments;
  const Revision revision = FromWire(response.revision());
  if (IsJson(arguments.format)) {
    Json waiting = Json::array();
    for (const std::string& peer : response.waiting()) waiting.push_back(peer);
    const Json value{{"target", what},
                     {"draining", !arguments.undo},
                     {"registrations", response.drained()},
                     {"revision", ToJson(revision)},
                     {"acknowledged",
                      arguments.acknowledged ? Json(response.waiting_total() == 0) : Json(nullptr)},
                     {"waiting", std::move(waiting)}};
    session.console.Print(arguments.format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else if (arguments.format == Format::kName || arguments.format == Format::kShort) {
    session.console.Print(what + "\n");
  } else {
    session.console.Print((arguments.undo ? "undone " : "draining ") + what + "  " +
                          std::to_string(response.drained()) + "  revision " + revision.ToString() +
                          "\n");
  }
}

}  // namespace

Result<int> Drain(Session& session) {
  const Arguments& arguments = session.arguments;
  const std::string& word = arguments.words[0];
  pb::DrainRequest request;
  request.set_op_id(RandomBytes(16));
  request.set_undo(arguments.undo);
  std::string what = word;
  if (word.starts_with("/")) {
    DW_ASSIGN(const Address address, Address::Parse(word));
    what = address.text();
    request.set_address(what);
  } else {
    const auto id = ParseSessionId(word);
    if (!id.ok())
      return Status(Code::kInvalid, Shown(word) +
                                        " is neither an address, //domain/path, nor a "
                                        "session id of 32 digits of 0-9 a-f");
    request.set_session_id(*id);
  }
  milliseconds timeout = arguments.timeout;
  if (arguments.acknowledged) {
    if (timeout > kAcknowledgedMost)
      return Status(Code::kInvalid, "--timeout is " + std::to_string(timeout.count()) +
                                        " ms, with --acknowledged at most 10m");
    request.set_acknowledged_within_ms(timeout.count());
    timeout += kReply;
  }
  DW_ASSIGN(const auto response, session.api.Drain(request, timeout));
  Show(session, what, response);
  if (response.waiting_total() == 0) return 0;
  session.console.Tell(what + ": not acknowledged within " +
                       std::to_string(arguments.timeout.count()) + " ms by " +
                       WaitingText(response));
  return MappingOf(Code::kTimeout).exit_code;
}

}  // namespace datawire::cli
