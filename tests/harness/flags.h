#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace datawire::harness {

/// `--name value` pairs of a test program; ends it with exit code 1 on anything else.
class Flags {
 public:
  Flags(int argc, char** argv, std::map<std::string, std::string> defaults)
      : program_(argv[0]), values_(std::move(defaults)) {
    for (int i = 1; i < argc; i += 2) {
      const std::string name = argv[i];
      if (values_.count(name) == 0) Fail("unknown flag " + name);
      if (i + 1 == argc) Fail(name + " needs a value");
      values_[name] = argv[i + 1];
    }
  }

  bool Has(const std::string& name) const { return !values_.at(name).empty(); }
  const std::string& operator[](const std::string& name) const {
    const std::string& value = values_.at(name);
    if (value.empty()) Fail(name + " is missing");
    return value;
  }
  long Number(const std::string& name) const {
    return std::strtol((*this)[name].c_str(), nullptr, 10);
  }

  [[noreturn]] void Fail(const std::string& why) const {
    std::fprintf(stderr, "%s: %s\n", program_.c_str(), why.c_str());
    std::exit(1);
  }

 private:
  std::string program_;
  std::map<std::string, std::string> values_;
};

/// The parts between commas.
inline std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream in(list);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

}  // namespace datawire::harness
