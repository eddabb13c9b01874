#include "core/held_snapshots.h"

#include <vector>

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr size_t kIdBytes = 16;  // unguessable: it names another's snapshot

}  // namespace

Result<HeldSnapshots::Page> HeldSnapshots::Open(const std::string& page_token,
                                                const std::string& scope) {
  if (page_token.empty())
    return Page{ground_->view.Hold(), scope, ground_->ids.Bytes(kIdBytes), {}};
  const Status again(Code::kAborted,
                     "the page token is unknown or older than 60 s: " + verb_ + " again");
  std::string bytes;
  if (!FromHex(page_token, &bytes) || bytes.size() <= kIdBytes) return again;
  const std::string id = bytes.substr(0, kIdBytes);
  const MutexLock lock(mu_);
  const auto it = held_.find(id);
  if (it == held_.end()) return again;
  return Page{it->second.snapshot, it->second.scope, id, bytes.substr(kIdBytes)};
}

Result<std::string> HeldSnapshots::Keep(Page page, const std::string& next) {
  const MutexLock lock(mu_);
  if (next.empty()) {
    held_.erase(page.id);
    return std::string();
  }
  if (!held_.contains(page.id) && held_.size() >= most_) {
    Status full(Code::kOverloaded, std::to_string(most_) + " " + several_);
    return full.set_retry_after(std::chrono::seconds(1));
  }
  held_[page.id] = {std::move(page.snapshot), std::move(page.scope),
                    ground_->now() + limits::kListSnapshotLife};
  return Hex(page.id + next);
}

void HeldSnapshots::Tick(BootTime now) {
  std::vector<std::shared_ptr<View::Snapshot>> released;  // destroyed after the lock: disc work
  const MutexLock lock(mu_);
  for (auto it = held_.begin(); it != held_.end();) {
    if (it->second.until > now) {
      ++it;
      continue;
    }
    released.push_back(std::move(it->second.snapshot));
    it = held_.erase(it);
  }
}

Result<size_t> PageSize(uint32_t asked) {
  if (asked <= limits::kListPage) return asked == 0 ? size_t{limits::kListPage} : asked;
  return Status(Code::kInvalid, "page size " + std::to_string(asked) + " is out of range, 1 to " +
                                    std::to_string(limits::kListPage));
}

}  // namespace datawire::directory
