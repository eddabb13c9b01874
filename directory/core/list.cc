#include "core/list.h"

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr size_t kTokenBytes = 16;  // unguessable: it names another's snapshot
constexpr size_t kReadAtOnce = 100;

Status ListAgain() {
  return {Code::kAborted, "the page token is unknown or older than 60 s: list again"};
}

}  // namespace

Result<pb::ListResponse> ListVerb::List(const pb::ListRequest& request) {
  if (request.page_size() > limits::kListPage)
    return Status(Code::kInvalid, "page size " + std::to_string(request.page_size()) +
                                      " is out of range, 1 to " +
                                      std::to_string(limits::kListPage));
  std::optional<Address> prefix;
  if (!request.prefix().empty()) {
    DW_ASSIGN(prefix, Address::Parse(request.prefix()));
  }
  const size_t most = request.page_size() == 0 ? limits::kListPage : request.page_size();
  std::string token, after;
  Held held{nullptr, prefix, {}};
  if (request.page_token().empty()) {
    held.snapshot = ground_->view.Hold();
    token = ground_->ids.Bytes(kTokenBytes);
  } else {
    std::string bytes;
    if (!FromHex(request.page_token(), &bytes) || bytes.size() <= kTokenBytes) return ListAgain();
    token = bytes.substr(0, kTokenBytes);
    after = bytes.substr(kTokenBytes);
    std::lock_guard lock(mu_);
    const auto it = held_.find(token);
    if (it == held_.end()) return ListAgain();
    if (it->second.prefix != prefix)
      return Status(Code::kInvalid,
                    "the page token belongs to another prefix than " + Shown(request.prefix()));
    held = it->second;
  }
  std::string next;
  DW_ASSIGN(pb::ListResponse response, Page(*held.snapshot, held.prefix, after, most, &next));
  std::lock_guard lock(mu_);
  if (next.empty()) {
    held_.erase(token);
    return response;
  }
  if (!held_.contains(token) && held_.size() >= limits::kListSnapshots) {
    Status full(Code::kOverloaded, std::to_string(limits::kListSnapshots) + " lists are open");
    return full.set_retry_after(std::chrono::seconds(1));
  }
  held.until = ground_->now() + limits::kListSnapshotLife;
  held_[token] = std::move(held);
  response.set_next_page_token(Hex(token + next));
  return response;
}

Result<pb::ListResponse> ListVerb::Page(const View::Snapshot& snapshot,
                                        const std::optional<Address>& prefix,
                                        const std::string& after, size_t most, std::string* next) {
  pb::ListResponse response;
  ToWire(snapshot.at(), response.mutable_revision());
  *response.mutable_source() = ground_->source;
  std::string last = after;
  size_t bytes = 0;
  while (true) {
    // One more than fits tells whether there is a next page.
    const size_t want = std::min(kReadAtOnce, most + 1 - response.items_size());
    DW_ASSIGN(const auto items, snapshot.Rows(prefix, last, want));
    for (const auto& item : items) {
      const size_t size = item.address.text().size() + item.row->bytes.size();
      const bool full = static_cast<size_t>(response.items_size()) == most ||
                        (response.items_size() > 0 && bytes + size > limits::kBulkBytes);
      if (full) {
        *next = last;
        return response;
      }
      bytes += size;
      auto* out = response.add_items();
      out->set_address(item.address.text());
      out->set_subtree(item.subtree);
      if (!out->mutable_row()->ParseFromString(item.row->bytes))
        return Status(Code::kCorrupt, "the row of " + item.address.text() + " does not parse");
      last = item.address.Key();
    }
    if (items.size() < want) return response;
  }
}

void ListVerb::Tick(BootTime now) {
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
