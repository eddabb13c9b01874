#include "core/acknowledgements.h"

#include <algorithm>

namespace datawire::directory {
namespace {

constexpr size_t kWaits = 256;  // each holds its subscribers

}  // namespace

bool Acknowledgements::Over(Wait& wait) const {
  if (!wait.begun && hub_->published() < wait.at) return false;
  if (!wait.begun) {
    // Who subscribes from now on gets the answer as changed.
    wait.begun = true;
    for (const auto& subscriber : hub_->Interested(wait.targets)) wait.left.push_back(subscriber);
  }
  std::erase_if(wait.left, [&](const std::weak_ptr<SubscriberState>& one) {
    const auto subscriber = one.lock();
    return subscriber == nullptr || subscriber->Acknowledged(wait.at);
  });
  return wait.left.empty();
}

void Acknowledgements::Await(std::vector<Published::Change> targets, Revision at, BootTime until,
                             Done done) {
  Wait wait{std::move(targets), at, until, std::move(done), false, {}};
  if (Over(wait)) return wait.done(Left());
  Status refused;
  {
    const MutexLock lock(mu_);
    if (stopped_) {
      refused = {Code::kUnavailable, "this node stops"};
    } else if (waits_.size() >= kWaits) {
      refused = {Code::kOverloaded,
                 std::to_string(kWaits) + " calls wait for acknowledgements already"};
      refused.set_retry_after(std::chrono::seconds(1));
    } else {
      waits_.push_back(std::move(wait));
      return;
    }
  }
  wait.done(refused);
}

void Acknowledgements::Tick(BootTime now) {
  std::list<Wait> due;
  {
    const MutexLock lock(mu_);
    due.swap(waits_);
  }
  std::list<Wait> later;
  for (auto it = due.begin(); it != due.end();) {
    const bool over = Over(*it);
    const auto next = std::next(it);
    if (!over && it->until > now) later.splice(later.end(), due, it);
    it = next;
  }
  {
    const MutexLock lock(mu_);
    if (!stopped_) waits_.splice(waits_.end(), later);
  }
  for (Wait& wait : later) wait.done(Status(Code::kUnavailable, "this node stops"));
  for (Wait& wait : due) {
    if (!wait.begun) {
      wait.done(Status(Code::kBehind, "this node is at revision " + hub_->published().ToString() +
                                          ", asked for " + wait.at.ToString()));
      continue;
    }
    Left left;
    left.total = wait.left.size();
    for (const auto& one : wait.left) {
      if (left.shown.size() == kPeersShown) break;
      if (const auto subscriber = one.lock()) left.shown.push_back(NameOf(subscriber->peer));
    }
    wait.done(std::move(left));
  }
}

void Acknowledgements::Stop() {
  std::list<Wait> ended;
  {
    const MutexLock lock(mu_);
    stopped_ = true;
    ended.swap(waits_);
  }
  for (Wait& wait : ended) wait.done(Status(Code::kUnavailable, "this node stops"));
}

}  // namespace datawire::directory
