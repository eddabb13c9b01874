#include <gtest/gtest.h>

#include <fstream>
#include <memory>

#include "certificates.h"
#include "tls/check.h"
#include "tls/diagnose.h"

namespace datawire::tls {
namespace {

class TlsFilesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    made_ = std::make_unique<Certificates>("tls_files_test");
    for (const char* name : {"a", "b"}) made_->Issue(name);
    made_->Issue("old", "IP:127.0.0.1", -1);
    Certificates::Run("pkey -in " + Path("a.key") + " -aes256 -passout pass:word -out " +
                      Path("locked.key"));
    std::ofstream(Path("text")) << "no PEM\n";
  }
  static void TearDownTestSuite() { made_.reset(); }

  static std::string Path(const std::string& name) { return made_->Path(name); }
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

  static std::unique_ptr<Certificates> made_;
};
std::unique_ptr<Certificates> TlsFilesTest::made_;

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
  ExpectRefused(Files("old.crt", "old.key", "b.crt"), Path("old.crt"), "expired");
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

TEST(TlsHintTest, ASocketThatClosedMayHaveBeenTls) {
  EXPECT_NE(Hint("a:1: Socket closed", {}).find("speaks TLS"), std::string::npos);
  EXPECT_NE(Hint("a:1: Socket closed", {.cert = "x"}).find("refuses"), std::string::npos);
  EXPECT_EQ(Hint("a:1: Connection refused", {}), "");
}

}  // namespace
}  // namespace datawire::tls
