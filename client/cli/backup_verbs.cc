#include <nlohmann/json.hpp>

#include "datawire/limits.h"
#include "datawire/wire.h"
#include "datawire/wire_export.h"
#include "random_bytes.h"
#include "render.h"
#include "verbs.h"

namespace datawire::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string Registrations(uint64_t count) {
  return std::to_string(count) + (count == 1 ? " registration" : " registrations");
}

std::string Policies(uint64_t count) {
  return std::to_string(count) + (count == 1 ? " policy" : " policies");
}

std::string Records(uint64_t count) {
  return std::to_string(count) + (count == 1 ? " record" : " records");
}

// Calls of an import, one after the other.
class Importing {
 public:
  Importing(Session& session, uint64_t all) : session_(session), all_(all) {}

  Status Add(const pb::ExportedRegistration& registration) {
    return Send(calls_.Add(registration));
  }
  /// After the last registration; policies come then.
  Status Finish() { return Send(calls_.Finish()); }
  Status Add(const pb::ExportedPolicy& policy) {
    DW_RETURN_IF_ERROR(Finish());
    pb::SetPolicyRequest call = CallOf(policy);
    call.set_op_id(RandomBytes(16));
    return Took(session_.api.SetPolicy(call), 1);
  }
  uint64_t done() const { return done_; }
  const Revision& at() const { return at_; }

 private:
  // Whoever imports registers; identities come from the connection.
  Status Send(std::vector<ExportCalls::Call> calls) {
    for (auto& call : calls) DW_RETURN_IF_ERROR(Send(std::move(call.request)));
    return {};
  }
  Status Send(pb::RegisterRequest call) {
    call.set_op_id(RandomBytes(16));
    return Took(session_.api.Register(call), call.registrations_size());
  }
  template <typename Response>
  Status Took(const Result<Response>& response, uint64_t count) {
    if (!response.ok())
      return {response.status().code(), response.status().message() + "; " + std::to_string(done_) +
                                            " of " + Records(all_) +
                                            " are imported: run it again with --merge to go on"};
    done_ += count;
    at_ = FromWire(response->revision());
    session_.console.Progress("imported " + std::to_string(done_) + " of " + Records(all_) +
                              " ...");
    return {};
  }

  Session& session_;
  const uint64_t all_;
  ExportCalls calls_;
  uint64_t done_ = 0;
  Revision at_;
};

}  // namespace

Result<int> Export(Session& session) {
  pb::ExportRequest request;
  uint64_t count = 0, policies = 0;
  pb::ExportLine line;
  bool begun = false;
  do {
    DW_ASSIGN(const auto page, session.api.Export(request));
    std::string text;
    if (!std::exchange(begun, true)) {
      auto* header = line.mutable_header();
      header->set_format(kExportFormat);
      header->set_cluster_id(page.source().cluster_id());
      *header->mutable_revision() = page.revision();
      text = ExportText(line);
    }
    for (const auto& registration : page.registrations()) {
      *line.mutable_registration() = registration;
      text += ExportText(line);
    }
    for (const auto& policy : page.policies()) {
      *line.mutable_policy() = policy;
      text += ExportText(line);
    }
    if (!session.console.Print(text)) return 0;  // Finish tells why, if there is anything to tell
    count += page.registrations_size();
    policies += page.policies_size();
    session.console.Progress("exported " + Registrations(count) + " ...");
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  line.mutable_trailer()->set_registrations(count);
  line.mutable_trailer()->set_policies(policies);
  session.console.Print(ExportText(line));
  session.console.Tell("exported " + Registrations(count) + ", " + Policies(policies));
  return 0;
}

Result<int> Import(Session& session) {
  const std::string& path = session.arguments.words.front();
  DW_ASSIGN(const auto status, session.api.GetStatus());
  if (status.registrations() > 0 && !session.arguments.merge)
    return Status(Code::kConflict,
                  "the directory holds " + Registrations(status.registrations()) +
                      ": import into an empty one, or add --merge, which replaces those of the "
                      "same address and URL");
  // The whole file first: one that is cut off or wrong imports nothing.
  ExportReader checked;
  DW_RETURN_IF_ERROR(ReadExportFile(path, checked, [](const pb::ExportLine&) { return Status(); }));
  Importing importing(session, checked.registrations() + checked.policies());
  ExportReader reader;
  DW_RETURN_IF_ERROR(ReadExportFile(path, reader, [&](const pb::ExportLine& line) {
    return line.has_policy() ? importing.Add(line.policy()) : importing.Add(line.registration());
  }));
  DW_RETURN_IF_ERROR(importing.Finish());
  const Revision at = importing.done() > 0 ? importing.at() : FromWire(status.revision());
  const Format format = session.arguments.format;
  const auto& header = reader.header();
  if (IsJson(format)) {
    const Json value = {{"imported", reader.registrations()},
                        {"policies", reader.policies()},
                        {"from_cluster", header.cluster_id()},
                        {"from_revision", ToJson(FromWire(header.revision()))},
                        {"revision", ToJson(at)}};
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else {
    session.console.Print(
        "imported " + Registrations(reader.registrations()) + ", " + Policies(reader.policies()) +
        " of cluster " + Printable(header.cluster_id()) + " revision " +
        FromWire(header.revision()).ToString() + "  revision " + at.ToString() + "\n");
  }
  return 0;
}

Result<int> Snapshot(Session& session) {
  const std::string& what = session.arguments.words[0];
  pb::SnapshotRequest request;
  request.set_directory(session.arguments.words[1]);
  if (what == "restore")
    return Status(Code::kInvalid,
                  "no server can restore what it serves: start one on a new data directory, "
                  "datawire-directory --restore " +
                      request.directory() + " --data DIR");
  if (what != "save" && what != "verify")
    return Status(Code::kInvalid, Shown(what) + " is neither save nor verify");
  session.console.Progress((what == "save" ? "saving " : "verifying ") + request.directory() +
                           " ...");
  DW_ASSIGN(const auto done, what == "save" ? session.api.SaveSnapshot(request)
                                            : session.api.VerifySnapshot(request));
  session.console.Progress("");
  const Format format = session.arguments.format;
  const Revision revision = FromWire(done.revision());
  if (IsJson(format)) {
    const Json value = {{"directory", done.directory()},         {"format", done.format()},
                        {"cluster", done.cluster_id()},          {"revision", ToJson(revision)},
                        {"registrations", done.registrations()}, {"addresses", done.addresses()},
                        {"sessions", done.sessions()},           {"bytes", done.bytes()}};
    session.console.Print(format == Format::kJson ? Pretty(value) : Line(value) + "\n");
  } else if (format == Format::kName || format == Format::kShort) {
    session.console.Print(done.directory() + "\n");
  } else {
    session.console.Print((what == "save" ? "saved " : "verified ") + done.directory() +
                          "  cluster " + Printable(done.cluster_id()) + "  revision " +
                          revision.ToString() + "  " + Registrations(done.registrations()) + "  " +
                          std::to_string(done.sessions()) + " sessions  " +
                          std::to_string(done.bytes()) + " bytes\n");
  }
  return 0;
}

}  // namespace datawire::cli
