#include "core/orphans.h"

#include <algorithm>

namespace datawire::directory {

void Orphans::Owned(const std::string& id, const Owner& owner) {
  Gone(id);
  owner_of_[id] = owner;
  auto group = std::find_if(sessions_.begin(), sessions_.end(),
                            [&](const auto& one) { return one.first == owner; });
  if (group == sessions_.end()) group = sessions_.insert(sessions_.end(), {owner, {}});
  group->second.insert(id);
}

void Orphans::Gone(const std::string& id) {
  const auto known = owner_of_.find(id);
  if (known == owner_of_.end()) return;
  const auto group = std::find_if(sessions_.begin(), sessions_.end(),
                                  [&](const auto& one) { return one.first == known->second; });
  group->second.erase(id);
  if (group->second.empty()) sessions_.erase(group);
  owner_of_.erase(known);
}

void Orphans::Clear() {
  owner_of_.clear();
  sessions_.clear();
}

std::vector<Orphans::Owner> Orphans::owners() const {
  std::vector<Owner> out;
  for (const auto& [owner, ids] : sessions_) out.push_back(owner);
  return out;
}

const std::set<std::string>& Orphans::of(const Owner& owner) const {
  static const std::set<std::string> kNone;
  const auto group = std::find_if(sessions_.begin(), sessions_.end(),
                                  [&](const auto& one) { return one.first == owner; });
  return group == sessions_.end() ? kNone : group->second;
}

}  // namespace datawire::directory
