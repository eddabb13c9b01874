#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "datawire/wire.h"
#include "random_bytes.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr Policy kPolicies[] = {Policy::kBalanced, Policy::kOrdered, Policy::kConsistent};

Result<Policy> ParsePolicy(const std::string& text) {
  const auto* const found = std::find_if(std::begin(kPolicies), std::end(kPolicies),
                                         [&](Policy p) { return PolicyName(p) == text; });
  if (found != std::end(kPolicies)) return *found;
  return Status(Code::kInvalid,
                "policy " + Shown(text) + " is none of balanced, ordered, consistent");
}

std::string NameOf(pb::Policy policy) {
  return std::string(PolicyName(static_cast<Policy>(policy)));
}

Result<int> Change(Session& session, const Address& address, std::optional<Policy> policy) {
  pb::SetPolicyRequest request;
  request.set_op_id(RandomBytes(16));
  request.set_address(address.text());
  request.set_unset(!policy);
  if (policy) request.set_policy(static_cast<pb::Policy>(*policy));
  DW_ASSIGN(const auto response, session.api.SetPolicy(request));
  const Revision revision = FromWire(response.revision());
  const std::string name(policy ? PolicyName(*policy) : "unset");
  const Format format = session.arguments.format;
  if (IsJson(format)) {
    const Json value{{"address", address.text()},
                     {"own", policy ? Json(name) : Json(nullptr)},
                     {"revision", ToJson(revision)}};
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else if (format == Format::kName) {
    session.console.Print(address.text() + "\n");
  } else if (format == Format::kShort) {
    session.console.Print(name + "\n");
  } else {
    session.console.Print("policy " + address.text() + "  " + name + "  revision " +
                          revision.ToString() + "\n");
  }
  return 0;
}

Result<int> Show(Session& session, const Address& address) {
  pb::GetPolicyRequest request;
  request.set_address(address.text());
  DW_ASSIGN(const auto shown, session.api.GetPolicy(request));
  if (!pb::Policy_IsValid(shown.in_force()) || !pb::Policy_IsValid(shown.own()))
    return Status(Code::kUnsupported, "a policy that this version of dw does not know");
  const Format format = session.arguments.format;
  if (IsJson(format)) {
    const Json value{{"address", shown.address()},
                     {"policy", NameOf(shown.in_force())},
                     {"own", shown.has_own() ? Json(NameOf(shown.own())) : Json(nullptr)},
                     {"by", shown.by()},
                     {"at_wall_ms", shown.at_wall_ms()},
                     {"revision", ToJson(FromWire(shown.revision()))}};
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else if (format == Format::kName) {
    session.console.Print(shown.address() + "\n");
  } else if (format == Format::kShort) {
    session.console.Print(NameOf(shown.in_force()) + "\n");
  } else {
    Table table({"ADDRESS", "POLICY", "OWN", "BY"});
    table.Add({shown.address(), NameOf(shown.in_force()),
               shown.has_own() ? NameOf(shown.own()) : "-",
               shown.has_own() ? Printable(shown.by()) : "-"});
    session.console.Print(table.Text());
  }
  return 0;
}

}  // namespace

Result<int> SetOrShowPolicy(Session& session) {
  const auto& words = session.arguments.words;
  const std::string& what = words[0];
  if (what != "set" && what != "get" && what != "unset")
    return Status(Code::kInvalid, "policy " + Shown(what) + " is none of set, get, unset");
  if (what == "set" ? words.size() != 3 : words.size() != 2)
    return Status(Code::kInvalid, what == "set" ? "policy set takes ADDRESS and POLICY"
                                                : "policy " + what + " takes ADDRESS alone");
  DW_ASSIGN(const Address address, Address::Parse(words[1]));
  if (what == "get") return Show(session, address);
  if (what == "unset") return Change(session, address, std::nullopt);
  DW_ASSIGN(const Policy policy, ParsePolicy(words[2]));
  return Change(session, address, policy);
}

}  // namespace datawire::cli
