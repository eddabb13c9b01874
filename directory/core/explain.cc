#include "core/explain.h"

#include "core/answers.h"
#include "core/policy.h"
#include "datawire/wire.h"

namespace datawire::directory {
namespace {

using record::v1::Registration;
using Candidate = pb::ExplainResponse::Candidate;

constexpr int kCandidates = 1000;  // shown; the message stays under 1 MiB

/// What decides over one candidate besides its record.
struct Scene {
  const Ground& ground;
  const Tethers& tethers;
  const Address& asked;
  const std::optional<Address>& matched;
  const pb::Row& row;
};

std::string EndedText(const record::v1::Ended& ended) {
  std::string name = pb::Reason_Name(ended.reason());
  if (name.starts_with("REASON_")) name.erase(0, 7);
  return name + (ended.by().empty() ? "" : " by " + Shown(ended.by()));
}

const pb::Endpoint* InRow(const pb::Row& row, const std::string& url) {
  for (const pb::Endpoint& endpoint : row.endpoints())
    if (endpoint.url() == url) return &endpoint;
  return nullptr;
}

// Why the session behind a registration makes it other than up; empty when it does not.
std::string SessionText(const Scene& scene, const Registration& registration) {
  const std::string& id = registration.session_id();
  if (const auto record = scene.ground.view.Get(keys::SessionEnded(id)); record.ok() && *record) {
    record::v1::SessionEnded ended;
    if (ended.ParseFromString((*record)->value)) {
      record::v1::Ended as;
      as.set_reason(ended.reason());
      as.set_by(ended.by());
      return "its session ended: " + EndedText(as);
    }
  }
  if (const auto record = scene.ground.view.Get(keys::SessionMark(id)); record.ok() && *record) {
    record::v1::SessionMark mark;
    if (!mark.ParseFromString((*record)->value)) return "";
    if (mark.state() == pb::ENDPOINT_STATE_SUSPECT)
      return "its session is suspect: no heartbeats, and the brake on expiry is on";
    if (mark.state() == pb::ENDPOINT_STATE_DRAINING) return "its session is draining";
  }
  return "";
}

void Judge(const Scene& scene, const Address& at, const Registration& registration,
           Candidate* out) {
  const bool is_static = registration.session_id().empty();
  const std::string session = is_static ? "" : SessionText(scene, registration);
  const auto& spec = registration.endpoint();
  if (registration.has_ended()) {
    out->set_why("dropped: a tombstone, " + EndedText(registration.ended()));
  } else if (at != scene.asked && spec.match() != pb::MATCH_SUBTREE) {
    out->set_why("dropped: an exact registration answers for " + at.text() + " only");
  } else if (scene.matched != at) {
    out->set_why("dropped: " + (scene.matched ? scene.matched->text() : "nothing") +
                 " is the nearer match");
  } else if (const pb::Endpoint* endpoint = InRow(scene.row, spec.url())) {
    out->set_kept(true);
    out->mutable_endpoint()->set_state(endpoint->state());
    const bool last = session.starts_with("its session ended");
    out->set_why(session.empty() ? registration.draining() ? "kept: draining" : "kept: up"
                 : last          ? "kept as suspect, the last of its address; " + session
                                 : "kept; " + session);
  } else {
    out->set_why(session.empty() ? "dropped: an answer lists at most " +
                                       std::to_string(limits::kAnswerEndpoints) + " endpoints"
                                 : "dropped: " + session);
  }
}

Status AddCandidates(const Scene& scene, const Address& at, pb::ExplainResponse* out) {
  int seen = 0;
  Status bad;
  const auto each = [&](const Record& record) {
    Registration registration;
    const auto key = keys::ParseRegistration(record.key);
    if (!key.ok() || !registration.ParseFromString(record.value)) {
      bad = {Code::kCorrupt, "a registration record at " + at.text() + " does not parse"};
      return false;
    }
    ++seen;
    Candidate* candidate = out->add_candidates();
    candidate->set_at(at.text());
    candidate->set_instance(Hex(key->second));
    const auto& spec = registration.endpoint();
    auto* endpoint = candidate->mutable_endpoint();
    endpoint->set_url(spec.url());
    endpoint->set_priority(spec.priority());
    endpoint->set_weight(spec.weight());
    endpoint->set_region(spec.region());
    endpoint->set_zone(spec.zone());
    *endpoint->mutable_labels() = spec.labels();
    endpoint->set_match(spec.match());
    endpoint->set_identity(spec.identity());
    endpoint->set_created(record.created);
    endpoint->set_static_(registration.session_id().empty());
    const std::string who = scene.tethers.Describe(registration.session_id());
    candidate->set_session(registration.session_id().empty() ? "static"
                           : who.empty()                     ? "over"
                                                             : who);
    Judge(scene, at, registration, candidate);
    return out->candidates_size() < kCandidates;
  };
  DW_RETURN_IF_ERROR(
      scene.ground.view.Scan(keys::RegistrationsFrom(at), keys::RegistrationsTo(at), each));
  DW_RETURN_IF_ERROR(bad);
  out->add_steps("looked at " + at.text() + ": " + std::to_string(seen) + " records");
  return {};
}

Result<pb::GetPolicyResponse> PolicyOf(const Ground& ground, const Address& address) {
  pb::GetPolicyRequest request;
  request.set_address(address.text());
  return GetPolicy(ground, request);
}

}  // namespace

Result<pb::ExplainResponse> Explain(const Ground& ground, const Tethers& tethers,
                                    const pb::ExplainRequest& request) {
  DW_ASSIGN(const Address asked, Address::Parse(request.address()));
  std::vector<Match> matches;
  DW_ASSIGN(const Revision at, ground.view.Resolve(std::span(&asked, 1), &matches));
  std::string encoded;
  AppendAnswer(pb::ExplainResponse::kAnswerFieldNumber, asked, matches.front(), at, ground.AgeMs(),
               &encoded);
  pb::ExplainResponse out;
  if (!out.ParseFromString(encoded))
    return Status(Code::kCorrupt, "the row of " + asked.text() + " does not parse");
  *out.mutable_source() = ground.source;
  const pb::Row row = out.answer().row();
  const Scene scene{ground, tethers, asked, matches.front().matched, row};
  for (size_t depth = asked.depth() + 1; depth-- > 0;)
    DW_RETURN_IF_ERROR(AddCandidates(scene, asked.Ancestor(depth), &out));
  const auto& matched = scene.matched;
  DW_ASSIGN(const pb::GetPolicyResponse policy, PolicyOf(ground, asked));
  if (policy.has_own())
    out.add_steps("policy " + std::string(PolicyName(static_cast<Policy>(policy.own()))) +
                  ", set for " + asked.text() + " by " + Shown(policy.by()));
  out.add_steps(!matched ? "nothing matches, not even a subtree of an ancestor"
                : *matched == asked && !matches.front().row->registered
                    ? "nothing matches but the policy of the address itself"
                : *matched == asked
                    ? "matched at the address itself"
                    : "matched by the nearest ancestor with a subtree, " + matched->text());
  out.add_steps("answered by node " + ground.options.node_id + " at revision " + at.ToString() +
                ", status " + std::string(AnswerStatusName(matches.front().row->status)));
  return out;
}

}  // namespace datawire::directory
