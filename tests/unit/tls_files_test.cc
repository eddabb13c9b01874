#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tls/check.h"

namespace datawire::tls {
namespace {

/// A folder with two self-signed certificates and their keys, by the openssl command line.
class TlsFilesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = testing::TempDir() + "/tls_files_test";
    std::filesystem::create_directories(folder_);
    for (const std::string name : {"a", "b"})
      ASSERT_EQ(OpenSsl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
                        "-subj /CN=test -keyout " +
                        Path(name + ".key") + " -out " + Path(name + ".crt")),
                0);
    ASSERT_EQ(OpenSsl("pkey -in " + Path("a.key") + " -aes256 -passout pass:word -out " +
                      Path("locked.key")),
              0);
    ASSERT_EQ(OpenSsl("x509 -in " + Path("a.crt") + " -signkey " + Path("a.key") +
                      " -days -1 -out " + Path("old.crt")),
              0);
    std::ofstream(Path("text")) << "no PEM\n";
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  static int OpenSsl(const std::string& arguments) {
    return std::system(("openssl " + arguments + " 2>/dev/null").c_str());
  }
  static std::string Path(const std::string& name) { return folder_ + "/" + name; }
  static TlsFiles Files(const std::string& cert, const std::string& key, const std::string& ca) {
    return {Path(cert), Path(key), Path(ca)};
  }
  /// Refused in one line that says which file, and why.
  static void ExpectRefused(const TlsFiles& files, const std::string& path,
                            const std::string& rule) {
    const Status status = CheckFiles(files);
    EXPECT_EQ(status.code(), Code::kInvalid);
    EXPECT_NE(status.message().find(Shown(path)), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(rule), std::string::npos) << status.message();
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }

  static std::string folder_;
};
std::string TlsFilesTest::folder_;

TEST_F(TlsFilesTest, TakesWhatBelongsTogetherAndNothing) {
  EXPECT_EQ(CheckFiles({}), Status::Ok());
  EXPECT_EQ(CheckFiles(Files("a.crt", "a.key", "b.crt")), Status::Ok());
}

TEST_F(TlsFilesTest, OneOfThreeIsTooFew) {
  for (const TlsFiles& files : {TlsFiles{.cert = "x"}, TlsFiles{.key = "x"}, TlsFiles{.ca = "x"}}) {
    const Status status = CheckFiles(files);
    EXPECT_EQ(status.code(), Code::kInvalid);
    EXPECT_NE(status.message().find("go together"), std::string::npos) << status.message();
  }
}

TEST_F(TlsFilesTest, SaysWhichFileIsWrongAndWhy) {
  ExpectRefused(Files("none", "a.key", "b.crt"), Path("none"), "No such file");
  ExpectRefused(Files("a.crt", "a.key", "none"), Path("none"), "No such file");
  ExpectRefused(Files("text", "a.key", "b.crt"), Path("text"), "no certificate");
  ExpectRefused(Files("a.crt", "text", "b.crt"), Path("text"), "no private key");
  ExpectRefused(Files("a.crt", "locked.key", "b.crt"), Path("locked.key"), "password");
  ExpectRefused(Files("a.crt", "a.key", "b.key"), Path("b.key"), "no certificate");
  ExpectRefused(Files("a.crt", "b.key", "b.crt"), Path("b.key"), "is not the key of");
  ExpectRefused(Files("old.crt", "a.key", "b.crt"), Path("old.crt"), "expired");
}

TEST(TlsIdentityTest, IsTheOnlyUriWhenThatIsASpiffeId) {
  EXPECT_EQ(IdentityOf({"spiffe://test/Web_1/a.b"}).value(), "spiffe://test/Web_1/a.b");
  for (const std::vector<std::string>& uris :
       std::vector<std::vector<std::string>>{{},
                                             {"spiffe://test/a", "spiffe://test/b"},
                                             {"spiffe://test/a", "https://test/a"},
                                             {"https://test/a"},
                                             {"spiffe://test"},
                                             {"spiffe://test/"},
                                             {"spiffe:///a"},
                                             {"spiffe://Test/a"},
                                             {"spiffe://test:1/a"},
                                             {"spiffe://test/a//b"},
                                             {"spiffe://test/../b"},
                                             {"spiffe://test/a?b"},
                                             {"spiffe://test/" + std::string(2048, 'a')}}) {
    const auto identity = IdentityOf(uris);
    EXPECT_EQ(identity.status().code(), Code::kDenied) << (uris.empty() ? "" : uris[0]);
    EXPECT_NE(identity.status().message().find("exactly one"), std::string::npos);
  }
}

}  // namespace
}  // namespace datawire::tls
