#include "core/export.h"

#include <vector>

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr size_t kReadAtOnce = 100;
constexpr char kPolicies[] = "p/";  // what their keys begin with

}  // namespace

/// Some registrations or, after the last of them, policies; `next` empty: there is no more.
Status ExportVerb::Read(const View::Snapshot& snapshot, size_t want, pb::ExportResponse* response,
                        std::string* next) {
  if (next->starts_with(kPolicies)) {
    std::vector<pb::ExportedPolicy> read;
    DW_RETURN_IF_ERROR(snapshot.Policies(*next, want, &read, next));
    for (auto& policy : read) *response->add_policies() = std::move(policy);
    return {};
  }
  std::vector<pb::ExportedRegistration> read;
  DW_RETURN_IF_ERROR(snapshot.Static(*next, want, &read, next));
  for (auto& registration : read) *response->add_registrations() = std::move(registration);
  if (next->empty()) *next = kPolicies;
  return {};
}

Result<pb::ExportResponse> ExportVerb::Export(const pb::ExportRequest& request) {
  DW_ASSIGN(const size_t most, PageSize(request.page_size()));
  DW_ASSIGN(HeldSnapshots::Page page, held_.Open(request.page_token(), ""));
  pb::ExportResponse response;
  ToWire(page.snapshot->at(), response.mutable_revision());
  *response.mutable_source() = ground_->source;
  // A page is what one look at so many registrations gives, whoever holds them: its time is
  // bounded.
  std::string next = page.after;
  for (size_t seen = 0; seen < most && response.ByteSizeLong() < limits::kBulkBytes / 2;) {
    const size_t want = std::min(kReadAtOnce, most - seen);
    DW_RETURN_IF_ERROR(Read(*page.snapshot, want, &response, &next));
    seen += want;
    if (next.empty()) break;
  }
  DW_ASSIGN(*response.mutable_next_page_token(), held_.Keep(std::move(page), next));
  return response;
}

}  // namespace datawire::directory
