#include <signal.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "datawire/wire.h"
#include "random_bytes.h"
#include "render.h"
#include "tether.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLook{200};  // between looks for a signal or a result
constexpr milliseconds kByeMost{2000};

std::string RegisteredText(const RegistrationSpec& spec, bool is_static, const Revision& revision,
                           Format format) {
  switch (format) {
    case Format::kName:
      return spec.address.text() + "\n";
    case Format::kShort:
      return spec.url.text() + "\n";
    case Format::kJson:
    case Format::kJsonLines: {
      const nlohmann::ordered_json value = {{"address", spec.address.text()},
                                            {"url", spec.url.text()},
                                            {"static", is_static},
                                            {"revision", ToJson(revision)}};
      return format == Format::kJson ? Pretty(value) : Line(value) + "\n";
    }
    default:
      return "registered " + spec.address.text() + " " + spec.url.text() + "\n";
  }
}

pb::RegisterRequest StaticRequest(const RegistrationSpec& spec) {
  pb::RegisterRequest request;
  request.set_op_id(RandomBytes(16));
  auto* registration = request.add_registrations();
  registration->set_address(spec.address.text());
  auto* endpoint = registration->mutable_endpoint();
  endpoint->set_url(spec.url.text());
  endpoint->set_match(spec.subtree ? pb::MATCH_SUBTREE : pb::MATCH_EXACT);
  endpoint->set_priority(spec.priority);
  endpoint->set_weight(spec.weight);
  endpoint->set_region(spec.region);
  endpoint->set_zone(spec.zone);
  endpoint->mutable_labels()->insert(spec.labels.begin(), spec.labels.end());
  return request;
}

// What the tether's thread tells the verb's.
struct Acknowledgement {
  std::mutex mutex;
  std::condition_variable came;
  std::optional<Result<Revision>> result;

  std::optional<Result<Revision>> Wait(milliseconds wait) {
    std::unique_lock lock(mutex);
    came.wait_for(lock, wait, [this] { return result.has_value(); });
    return result;
  }
};

Result<int> Hold(Session& session, const RegistrationSpec& spec) {
  const Arguments& arguments = session.arguments;
  // Fails at once, or after --wait, when no directory is there; later ones are waited for.
  DW_RETURN_IF_ERROR(session.api.GetStatus().status());
  session.console.CatchSignals();
  DW_ASSIGN(
      auto tether,
      TetherClient::Open({.directory = session.servers, .ttl = arguments.ttl, .program = "dw"}));
  Console& console = session.console;
  tether->SetObserver([&console](const std::string& line) { console.Tell(line); });
  auto acknowledgement = std::make_shared<Acknowledgement>();
  tether->Register(spec, [acknowledgement](const Result<Revision>& result) {
    std::lock_guard lock(acknowledgement->mutex);
    acknowledgement->result = result;
    acknowledgement->came.notify_all();
  });
  std::optional<Result<Revision>> result;
  for (milliseconds waited{0}; !result && waited < arguments.timeout + arguments.wait;
       waited += kLook) {
    if (console.signal() != 0) break;
    result = acknowledgement->Wait(kLook);
  }
  if (result && !result->ok()) return result->status();
  if (!result && console.signal() == 0)
    return Status(Code::kTimeout, spec.address.text() + ": the registration was not acknowledged " +
                                      "within the time given");
  bool open = true;
  if (result) open = console.Print(RegisteredText(spec, false, **result, arguments.format));
  while (open && console.signal() == 0) console.Wait(kLook);
  tether->Close(kByeMost);
  return console.signal() == SIGINT ? kExitInterrupted : 0;
}

}  // namespace

Result<int> Register(Session& session) {
  const Arguments& arguments = session.arguments;
  DW_ASSIGN(Address address, Address::Parse(arguments.words[0]));
  DW_ASSIGN(EndpointUrl url, EndpointUrl::Parse(arguments.words[1]));
  const RegistrationSpec spec{.address = std::move(address),
                              .url = std::move(url),
                              .subtree = arguments.subtree,
                              .priority = arguments.priority,
                              .weight = arguments.weight,
                              .region = arguments.region,
                              .zone = arguments.zone,
                              .labels = arguments.labels};
  pb::RegisterRequest request = StaticRequest(spec);
  DW_RETURN_IF_ERROR(Canonicalize(request.mutable_registrations(0)->mutable_endpoint()));
  if (!arguments.is_static) return Hold(session, spec);
  DW_ASSIGN(const auto response, session.api.Register(request));
  session.console.Print(
      RegisteredText(spec, true, FromWire(response.revision()), arguments.format));
  return 0;
}

}  // namespace datawire::cli
