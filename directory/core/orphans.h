#pragma once

#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace datawire::directory {

/// The sessions of other runs of nodes, by run, as the reaper needs them: which are of one that is
/// gone. Fed by what is published, and once by a walk over what there is. Thread-compatible.
class Orphans {
 public:
  /// One run of a node: (node, incarnation).
  using Owner = std::pair<std::string, std::string>;

  /// Owned by `owner` now, whoever had it before.
  void Owned(const std::string& id, const Owner& owner);
  /// It is this node's own, or over.
  void Gone(const std::string& id);
  void Clear();

  std::vector<Owner> owners() const;
  const std::set<std::string>& of(const Owner& owner) const;

 private:
  std::unordered_map<std::string, Owner> owner_of_;
  std::vector<std::pair<Owner, std::set<std::string>>> sessions_;  // few runs
};

}  // namespace datawire::directory
