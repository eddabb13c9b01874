#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "datawire/result.h"

namespace datawire {

/// A logical name `//domain/path`, canonical: domain in lower case, no trailing slash. Parsed once
/// at the edge; no string travels further. Grammar (ABNF): proto/README.md. Value;
/// thread-compatible.
class Address {
 public:
  /// kInvalid with a line that shows the value and the rule. At most 512 bytes, 32 segments.
  static Result<Address> Parse(std::string_view text);

  /// The canonical text, `//demo/upper`.
  const std::string& text() const { return text_; }
  std::string_view domain() const;
  /// Number of segments: 0 for `//demo`.
  size_t depth() const { return depth_; }
  /// The first `depth` segments: Ancestor(0) is `//domain`. depth <= depth().
  Address Ancestor(size_t depth) const;
  /// True for the address itself and all below it, on segment boundaries.
  bool IsWithin(const Address& ancestor) const;
  /// What follows the first `depth` segments, without a leading slash: `b/c`; empty at its end.
  std::string_view Rest(size_t depth) const;

  /// The order-preserving key of directory/view/FORMAT.md: domain, then \0 and each segment.
  /// All below an address sort in [Key() + '\0', Key() + '\1').
  std::string Key() const;
  /// Inverse of Key(); kCorrupt when no address has that key.
  static Result<Address> FromKey(std::string_view key);

  friend bool operator==(const Address& a, const Address& b) { return a.text_ == b.text_; }
  friend auto operator<=>(const Address& a, const Address& b) { return a.text_ <=> b.text_; }
  template <typename H>
  friend H AbslHashValue(H h, const Address& a) {
    return H::combine(std::move(h), a.text_);
  }

 private:
  Address(std::string text, size_t depth) : text_(std::move(text)), depth_(depth) {}
  std::string text_;
  size_t depth_ = 0;
};

}  // namespace datawire

template <>
struct std::hash<datawire::Address> {
  size_t operator()(const datawire::Address& a) const noexcept {
    return std::hash<std::string>()(a.text());
  }
};
