#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "datawire/tls_files.h"

namespace datawire {

/// A CA and certificates of its making, by the openssl command line, in a folder of their own.
class Certificates {
 public:
  explicit Certificates(const std::string& name)
      : folder_(testing::TempDir() + "/" + name + "-" + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder_);
    Run("req -x509 " + std::string(kNewKey) + " -days 2 -subj /CN=ca -keyout " + Path("ca.key") +
        " -out " + Path("ca.crt"));
  }
  ~Certificates() { std::filesystem::remove_all(folder_); }
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  /// NAME.crt and NAME.key; replaces what is there.
  TlsFiles Issue(const std::string& name, const std::string& names = "IP:127.0.0.1", int days = 2) {
    std::ofstream(Path("extensions")) << "subjectAltName=" << names << "\n";
    Run("req " + std::string(kNewKey) + " -subj /CN=test -keyout " + Path("new.key") + " -out " +
        Path("new.csr"));
    Run("x509 -req -in " + Path("new.csr") + " -CA " + Path("ca.crt") + " -CAkey " +
        Path("ca.key") + " -CAcreateserial -days " + std::to_string(days) + " -extfile " +
        Path("extensions") + " -out " + Path("new.crt"));
    std::filesystem::rename(Path("new.key"), Path(name + ".key"));
    std::filesystem::rename(Path("new.crt"), Path(name + ".crt"));
    return {Path(name + ".crt"), Path(name + ".key"), Path("ca.crt")};
  }
  static void Run(const std::string& arguments) {
    EXPECT_EQ(std::system(("openssl " + arguments + " 2>/dev/null").c_str()), 0) << arguments;
  }

 private:
  static constexpr const char* kNewKey = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
  const std::string folder_;
};

}  // namespace datawire
