#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datawire/answer.h"
#include "datawire/directory/v1/directory.pb.h"
#include "datawire/result.h"
#include "view/view.h"

namespace datawire::directory {

/// One registration in a row. Value.
struct RowEntry {
  EndpointState state = EndpointState::kUp;
  uint32_t priority = 0;
  std::string instance;
  std::string endpoint;  ///< encoded datawire.directory.v1.Endpoint

  std::string_view url() const;
};

/// The stored form of a materialised row (FORMAT.md, r/ and u/): patched with the registrations
/// that changed, not computed anew. It holds the first entries in the order (state, priority,
/// instance); of those that share a URL the first is listed and the others are kept in the shadow.
/// Value.
class RowState {
 public:
  RowState() = default;
  static Result<RowState> Decode(std::string_view stored);

  /// `live`: its session lives, or it is static; false for a kept last endpoint.
  void Insert(RowEntry entry, bool live);
  void Remove(const std::string& instance, EndpointState state, bool live);

  /// The address's own; it makes a row without registrations.
  const std::optional<Policy>& policy() const { return policy_; }
  void set_policy(std::optional<Policy> policy) { policy_ = policy; }

  bool empty() const { return total_ == 0 && !policy_; }
  uint32_t total() const { return total_; }
  uint32_t live() const { return live_; }
  uint32_t up() const { return up_; }
  uint64_t hash() const { return hash_; }

  /// It holds fewer than half of what fits while there are more.
  bool WantsRefill() const;
  /// Begin, then Offer every registration of the address: entries only, the counts stay.
  void BeginRefill();
  void Offer(RowEntry entry);

  /// The stored bytes. `basis` tells this row from those of other addresses in the hash; `at`
  /// becomes `modified` if the content changed since Decode.
  std::string Encode(uint64_t basis, Revision at);

 private:
  void Place(RowEntry entry);
  size_t unlisted() const { return total_ - std::min<size_t>(total_, entries_.size()); }

  std::vector<RowEntry> entries_;
  size_t bytes_ = 0;             // of the endpoints of entries_
  std::optional<RowEntry> cut_;  // while refilling: the first entry left out
  uint32_t total_ = 0, live_ = 0, up_ = 0;
  uint64_t hash_ = 0;
  std::optional<Policy> policy_;
  Revision modified_;
};

/// What readers get of a stored row; null when it cannot be read.
std::shared_ptr<const Row> RowFromStored(std::string_view stored);
/// `row` as the answer for an address whose own row, `own`, has a policy and no registration.
std::shared_ptr<const Row> WithOwnPolicy(const Row& row, const Row& own);
/// The row of NOT_FOUND.
std::shared_ptr<const Row> NotFoundRow();
/// Hash basis of an address: `kind` is 'r' or 'u'.
uint64_t RowBasis(char kind, const Address& address);

}  // namespace datawire::directory
