#include "datawire/wire.h"

#include <algorithm>

#include "datawire/limits.h"

namespace datawire {
namespace {

Status TooLong(std::string_view what, size_t bytes, size_t most) {
  return {Code::kInvalid, std::string(what) + " is " + std::to_string(bytes) + " bytes, at most " +
                              std::to_string(most)};
}

// Labels and localities reach terminals and metrics: printable ASCII without quotes only.
bool Plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return c > 0x20 && c < 0x7f && c != '"' && c != '\\'; });
}

Status CheckText(std::string_view what, std::string_view text, size_t most) {
  if (text.size() > most) return TooLong(what, text.size(), most);
  if (!Plain(text))
    return {Code::kInvalid, std::string(what) + " " + Shown(text) +
                                " holds a space, quote, backslash or unprintable character"};
  return {};
}

Status CheckNumbers(uint32_t priority, uint32_t weight) {
  if (priority > limits::kPriorityMost)
    return {Code::kInvalid, "priority " + std::to_string(priority) + " is out of range, at most " +
                                std::to_string(limits::kPriorityMost)};
  if (weight > limits::kWeightMost)
    return {Code::kInvalid, "weight " + std::to_string(weight) + " is out of range, at most " +
                                std::to_string(limits::kWeightMost)};
  return {};
}

Status CheckIdentity(const EndpointUrl& url, const std::string& identity) {
  if (identity.empty()) return {};
  DW_RETURN_IF_ERROR(CheckText("identity", identity, limits::kIdentityBytes));
  if (!identity.starts_with("spiffe://"))
    return {Code::kInvalid, "identity " + Shown(identity) + " is no SPIFFE ID (spiffe://...)"};
  if (!url.secure())
    return {Code::kInvalid, url.text() + " shows no certificate to name " + Shown(identity) +
                                ": an identity goes with amqps"};
  return {};
}

Status Corrupt(std::string what) {
  return {Code::kCorrupt, "answer refused: " + std::move(what)};
}

}  // namespace

Revision FromWire(const pb::Revision& revision) {
  return {revision.epoch(), revision.number()};
}

void ToWire(const Revision& revision, pb::Revision* out) {
  out->set_epoch(revision.epoch);
  out->set_number(revision.number);
}

Status FromWire(const pb::Refusal& refusal) {
  Status status(CodeFromNumber(refusal.code()), refusal.message());
  if (refusal.retry_after_ms() > 0)
    status.set_retry_after(std::chrono::milliseconds(refusal.retry_after_ms()));
  return status;
}

void ToWire(const Status& status, pb::Refusal* out) {
  out->set_code(static_cast<pb::Code>(status.code()));
  out->set_message(status.message());
  if (status.retry_after()) out->set_retry_after_ms(status.retry_after()->count());
}

Result<Endpoint> FromWire(const pb::Endpoint& in) {
  DW_ASSIGN(EndpointUrl url, EndpointUrl::Parse(in.url()));
  DW_RETURN_IF_ERROR(CheckNumbers(in.priority(), in.weight()));
  if (!pb::EndpointState_IsValid(in.state()))
    return Status(Code::kInvalid, "endpoint state " + std::to_string(in.state()) + " is unknown");
  Endpoint out{.url = std::move(url),
               .state = static_cast<EndpointState>(in.state()),
               .priority = in.priority(),
               .weight = in.weight(),
               .region = in.region(),
               .zone = in.zone(),
               .labels = {in.labels().begin(), in.labels().end()},
               .is_static = in.static_(),
               .created = in.created(),
               .identity = in.identity()};
  return out;
}

void ToWire(const Endpoint& endpoint, pb::Match match, pb::Endpoint* out) {
  out->set_url(endpoint.url.text());
  out->set_state(static_cast<pb::EndpointState>(endpoint.state));
  out->set_priority(endpoint.priority);
  out->set_weight(endpoint.weight);
  out->set_region(endpoint.region);
  out->set_zone(endpoint.zone);
  out->mutable_labels()->insert(endpoint.labels.begin(), endpoint.labels.end());
  out->set_static_(endpoint.is_static);
  out->set_created(endpoint.created);
  out->set_match(match);
  out->set_identity(endpoint.identity);
}

Result<Answer> FromWire(const pb::Answer& in) {
  auto address = Address::Parse(in.address());
  if (!address.ok()) return Corrupt(address.status().message());
  const pb::Row& row = in.row();
  Answer out{.address = std::move(address).value(),
             .status = static_cast<AnswerStatus>(row.status()),
             .policy = static_cast<Policy>(row.policy()),
             .revision = FromWire(in.revision()),
             .modified = FromWire(row.modified()),
             .age = std::chrono::milliseconds(in.age_ms()),
             .ttl = std::chrono::milliseconds(in.ttl_ms()),
             .source = "directory",
             .total = row.total(),
             .hash = row.hash()};
  if (!pb::AnswerStatus_IsValid(row.status()) || !pb::Policy_IsValid(row.policy()))
    return Corrupt("unknown status or policy");
  if (!in.matched().empty()) {
    auto matched = Address::Parse(in.matched());
    if (!matched.ok()) return Corrupt(matched.status().message());
    if (!out.address.IsWithin(*matched))
      return Corrupt(matched->text() + " is no ancestor of " + out.address.text());
    out.matched = std::move(matched).value();
  }
  if (static_cast<size_t>(row.endpoints_size()) > limits::kAnswerEndpoints)
    return Corrupt(std::to_string(row.endpoints_size()) + " endpoints, at most " +
                   std::to_string(limits::kAnswerEndpoints));
  constexpr auto kDay = std::chrono::hours(24);
  // Compared as they came: the greatest numbers would be negative durations, ages from the future.
  if (in.ttl_ms() > static_cast<uint64_t>(std::chrono::milliseconds(kDay).count()) ||
      in.age_ms() > static_cast<uint64_t>(std::chrono::milliseconds(365 * kDay).count()))
    return Corrupt("absurd TTL or age");
  bool up = false;
  out.endpoints.reserve(row.endpoints_size());
  for (const pb::Endpoint& e : row.endpoints()) {
    auto endpoint = FromWire(e);
    if (!endpoint.ok()) return Corrupt(endpoint.status().message());
    up = up || endpoint->state == EndpointState::kUp;
    out.endpoints.push_back(std::move(endpoint).value());
  }
  if ((out.status == AnswerStatus::kFound) != up)
    return Corrupt("status " + std::string(AnswerStatusName(out.status)) +
                   " contradicts its endpoints");
  out.stale = out.age > limits::kStaleAge;
  return out;
}

Status Canonicalize(pb::EndpointSpec* spec) {
  DW_ASSIGN(EndpointUrl url, EndpointUrl::Parse(spec->url()));
  spec->set_url(url.text());
  if (!pb::Match_IsValid(spec->match()))
    return {Code::kInvalid, "match " + std::to_string(spec->match()) + " is unknown"};
  if (!spec->has_weight()) spec->set_weight(limits::kWeightDefault);
  DW_RETURN_IF_ERROR(CheckNumbers(spec->priority(), spec->weight()));
  DW_RETURN_IF_ERROR(CheckText("region", spec->region(), limits::kLocalityBytes));
  DW_RETURN_IF_ERROR(CheckText("zone", spec->zone(), limits::kLocalityBytes));
  if (spec->labels_size() > static_cast<int>(limits::kLabels))
    return {Code::kInvalid, "endpoint has " + std::to_string(spec->labels_size()) +
                                " labels, at most " + std::to_string(limits::kLabels)};
  for (const auto& [key, value] : spec->labels()) {
    if (key.empty()) return {Code::kInvalid, "endpoint label with an empty key"};
    DW_RETURN_IF_ERROR(CheckText("label key", key, limits::kLabelKeyBytes));
    DW_RETURN_IF_ERROR(CheckText("label value", value, limits::kLabelValueBytes));
  }
  return CheckIdentity(url, spec->identity());
}

}  // namespace datawire
