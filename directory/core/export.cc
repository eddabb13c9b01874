#include "core/export.h"

#include <vector>

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr size_t kTokenBytes = 16;  // unguessable: it names another's snapshot
constexpr size_t kSnapshots = 4;    // exports at a time: operators, not clients
constexpr size_t kReadAtOnce = 100;
constexpr char kPolicies[] = "p/";  // what their keys begin with

Status ExportAgain() {
  return {Code::kAborted, "the page token is unknown or older than 60 s: export again"};
}

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

Result<ExportVerb::Held> ExportVerb::Find(const std::string& page_token, std::string* token,
                                          std::string* after) {
  if (page_token.empty()) {
    *token = ground_->ids.Bytes(kTokenBytes);
    return Held{ground_->view.Hold(), {}};
  }
  std::string bytes;
  if (!FromHex(page_token, &bytes) || bytes.size() <= kTokenBytes) return ExportAgain();
  *token = bytes.substr(0, kTokenBytes);
  *after = bytes.substr(kTokenBytes);
  std::lock_guard lock(mu_);
  const auto it = held_.find(*token);
  if (it == held_.end()) return ExportAgain();
  return it->second;
}

Result<pb::ExportResponse> ExportVerb::Export(const pb::ExportRequest& request) {
  if (request.page_size() > limits::kListPage)
    return Status(Code::kInvalid, "page size " + std::to_string(request.page_size()) +
                                      " is out of range, 1 to " +
                                      std::to_string(limits::kListPage));
  const size_t most = request.page_size() == 0 ? limits::kListPage : request.page_size();
  std::string token, next;
  DW_ASSIGN(Held held, Find(request.page_token(), &token, &next));
  pb::ExportResponse response;
  ToWire(held.snapshot->at(), response.mutable_revision());
  *response.mutable_source() = ground_->source;
  // A page is what one look at so many registrations gives, whoever holds them: its time is
  // bounded.
  for (size_t seen = 0; seen < most && response.ByteSizeLong() < limits::kBulkBytes / 2;) {
    const size_t want = std::min(kReadAtOnce, most - seen);
    DW_RETURN_IF_ERROR(Read(*held.snapshot, want, &response, &next));
    seen += want;
    if (next.empty()) break;
  }
  std::lock_guard lock(mu_);
  if (next.empty()) {
    held_.erase(token);
    return response;
  }
  if (!held_.contains(token) && held_.size() >= kSnapshots) {
    Status full(Code::kOverloaded, std::to_string(kSnapshots) + " exports are under way");
    return full.set_retry_after(std::chrono::seconds(1));
  }
  held.until = ground_->now() + limits::kListSnapshotLife;
  held_[token] = std::move(held);
  response.set_next_page_token(Hex(token + next));
  return response;
}

void ExportVerb::Tick(BootTime now) {
  std::vector<std::shared_ptr<View::Snapshot>> released;  // destroyed after the lock: disc work
  std::lock_guard lock(mu_);
  for (auto it = held_.begin(); it != held_.end();) {
    if (it->second.until > now) {
      ++it;
      continue;
    }
    released.push_back(std::move(it->second.snapshot));
    it = held_.erase(it);
  }
}

}  // namespace datawire::directory
