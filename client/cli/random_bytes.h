#pragma once

#include <cstddef>
#include <random>
#include <string>

namespace datawire::cli {

/// From the system's source: op ids, message ids.
inline std::string RandomBytes(size_t count) {
  std::random_device device;
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(device());
  return bytes;
}

}  // namespace datawire::cli
