#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <thread>

#include "amqp/tls.h"
#include "child.h"
#include "datawire/clock.h"
#include "datawire/wire.h"
#include "probe.h"
#include "random_bytes.h"
#include "render.h"
#include "tether.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLook{100};  // between looks for a signal or a result
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
  endpoint->set_identity(spec.identity);
  return request;
}

// What the tether's thread tells the verb's.
struct Acknowledgement {
  std::mutex mutex;
  std::optional<Result<Revision>> result;

  std::optional<Result<Revision>> Take() {
    std::lock_guard lock(mutex);
    return std::exchange(result, std::nullopt);
  }
};

// A session that holds one registration, as long as its port and its program want it.
class Holding {
 public:
  Holding(Session& session, const RegistrationSpec& spec, std::shared_ptr<amqp::Tls> tls)
      : arguments_(session.arguments), console_(session.console), spec_(spec) {
    if (arguments_.check)
      check_.emplace(*arguments_.check, arguments_.check_policy, spec.url, std::move(tls),
                     std::random_device()());
  }

  Result<int> Run(const TlsFiles& tls) {
    DW_ASSIGN(tether_, TetherClient::Open({.directory = arguments_.directory,
                                           .tls = tls,
                                           .ttl = arguments_.ttl,
                                           .program = "dw"}));
    tether_->SetObserver([this](const std::string& line) { console_.Tell(line); });
    if (!arguments_.command.empty()) {
      DW_ASSIGN(child_, Child::Start(arguments_.command));
    }
    Status status;
    while (status.ok() && console_.signal() == 0 && !(child_ && child_->Ended())) {
      status = Step();
      if (status.ok()) console_.Wait(kLook);
    }
    tether_->Close(kByeMost);
    if (child_) {
      // It learns of the end after its endpoint has gone.
      child_->Terminate();
      while (!child_->Ended()) std::this_thread::sleep_for(kLook);
    }
    if (!status.ok()) return status;
    if (console_.signal() != 0) return kExitInterrupted;
    return *child_->Ended();
  }

 private:
  Status Step() {
    const BootTime now = BootClock::now();
    const bool wanted = !check_ || check_->Up(now);
    if (wanted && !asked_) {
      if (withdrawn_)
        console_.Tell(spec_.url.text() + ": " + check_->in_a_row() + " answered; registered again");
      asked_ = now;
      acknowledgement_ = std::make_shared<Acknowledgement>();  // not that of a call before
      tether_->Register(spec_, [to = acknowledgement_](const Result<Revision>& result) {
        std::lock_guard lock(to->mutex);
        to->result = result;
      });
    } else if (!wanted && asked_) {
      console_.Tell(spec_.url.text() + ": " + check_->reason() + ", " + check_->in_a_row() +
                    "; withdrawn until it answers");
      tether_->Withdraw(spec_.address, spec_.url, [](const Result<Revision>&) {});
      asked_.reset();
      registered_ = false;
      withdrawn_ = true;
    } else if (!wanted && !withdrawn_ && !told_waiting_ && !check_->reason().empty()) {
      told_waiting_ = true;
      console_.Tell(spec_.url.text() + ": " + check_->reason() + "; registered once it answers");
    }
    if (!asked_) return {};
    const auto result = acknowledgement_->Take();
    if (result && !result->ok()) return result->status();
    if (result) {
      registered_ = true;
      Say(RegisteredText(spec_, false, **result, arguments_.format));
    }
    if (!registered_ && !once_ && now - *asked_ > arguments_.timeout + arguments_.wait)
      return Status(Code::kTimeout, spec_.address.text() +
                                        ": the registration was not acknowledged within the time "
                                        "given");
    once_ = once_ || registered_;
    return {};
  }

  // The stdout of a program is its own.
  void Say(std::string text) {
    if (!child_) {
      console_.Print(text);  // the registration is what we are here for, read or not
      return;
    }
    text.pop_back();
    console_.Tell(text);
  }

  const Arguments& arguments_;
  Console& console_;
  const RegistrationSpec& spec_;
  std::shared_ptr<Acknowledgement> acknowledgement_;  // of the last Register
  std::unique_ptr<TetherClient> tether_;
  std::optional<Child> child_;
  std::optional<HealthCheck> check_;
  std::optional<BootTime> asked_;
  bool registered_ = false, once_ = false, withdrawn_ = false, told_waiting_ = false;
};

Result<int> Hold(Session& session, const RegistrationSpec& spec) {
  DW_ASSIGN(std::shared_ptr<amqp::Tls> tls, amqp::Tls::Open(session.tls));
  // Fails at once, or after --wait, when no directory is there; later ones are waited for.
  DW_RETURN_IF_ERROR(session.api.GetStatus().status());
  session.console.CatchSignals();
  return Holding(session, spec, std::move(tls)).Run(session.tls);
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
                              .labels = arguments.labels,
                              .identity = arguments.identity};
  pb::RegisterRequest request = StaticRequest(spec);
  DW_RETURN_IF_ERROR(Canonicalize(request.mutable_registrations(0)->mutable_endpoint()));
  if (arguments.check && arguments.check->kind == CheckSpec::Kind::kAmqp && spec.url.secure() &&
      !session.tls.any())
    return Status(Code::kInvalid, "--check amqp of " + spec.url.text() +
                                      " speaks TLS: it wants --tls-cert, --tls-key and --tls-ca");
  if (!arguments.is_static) return Hold(session, spec);
  DW_ASSIGN(const auto response, session.api.Register(request));
  session.console.Print(
      RegisteredText(spec, true, FromWire(response.revision()), arguments.format));
  return 0;
}

}  // namespace datawire::cli
