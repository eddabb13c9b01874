#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>

#include "datawire/mutex.h"

namespace datawire::directory {

/// Source of ids, secrets and tokens: the system's generator, or a seeded one in tests.
/// Thread-safe.
class Ids {
 public:
  explicit Ids(uint64_t seed) : seeded_(seed != 0), random_(seed) {}
  std::string Bytes(size_t count);

 private:
  const bool seeded_;
  Mutex mu_;
  std::mt19937_64 random_ DW_GUARDED_BY(mu_);
};

std::string Sha256(std::string_view bytes);
/// Takes as long for unequal strings as for equal ones.
bool SameSecret(std::string_view a, std::string_view b);
std::string Hex(std::string_view bytes);
/// False when `hex` is not an even number of hex digits.
bool FromHex(std::string_view hex, std::string* bytes);

}  // namespace datawire::directory
