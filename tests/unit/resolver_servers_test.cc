#include "servers.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace datawire::resolver {
namespace {

using Servers = std::vector<std::string>;

class ResolverServers : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = std::filesystem::temp_directory_path() / "datawire-servers-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder = path;
  }
  void TearDown() override {
    if (!folder.empty()) std::filesystem::remove_all(folder);
  }
  std::string File(const std::string& name, const std::string& text) {
    const std::string path = folder + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  std::string folder;
};

TEST_F(ResolverServers, TheFirstPlaceThatNamesACertificateIsUsedAlone) {
  const std::string mine = File("mine", "tls-cert = /c\ntls-key = /k\ntls-ca = /a\n");
  const std::string half = File("half", "tls-ca = /half\n");
  const TlsFiles flags{"/flag", "/flag", "/flag"}, variables{"/variable", "/variable", "/variable"};
  const auto refusal = [&](const TlsFiles& given, const TlsFiles& set,
                           const std::vector<std::string>& files) {
    const auto found = FindTls(given, set, files);
    return found.ok() ? "found" : found.status().message();
  };
  EXPECT_EQ(refusal(flags, variables, {mine}).find("tls-cert `/flag`"), 0u);
  EXPECT_EQ(refusal({}, variables, {mine}).find("tls-cert `/variable`"), 0u);
  EXPECT_EQ(refusal({}, {}, {mine, half}).find("tls-cert `/c`"), 0u);
  EXPECT_EQ(refusal({}, {}, {half, mine}).find("tls-cert is missing"), 0u);
  EXPECT_EQ(refusal({.key = "/k"}, variables, {mine}).find("tls-cert is missing"), 0u);
  EXPECT_EQ(*FindTls({}, {}, {folder + "/none"}), TlsFiles());
}

TEST_F(ResolverServers, TheFirstThatIsConfiguredIsUsedAlone) {
  const std::string mine = File("mine", "directory = a:1, b:2\n");
  const std::string etc = File("etc", "directory = c:3\n");
  EXPECT_EQ(*FindServers({"x:1", "y:2"}, "z:3", {mine, etc}), (Servers{"x:1", "y:2"}));
  EXPECT_EQ(*FindServers({}, "z:3,w:4", {mine, etc}), (Servers{"z:3", "w:4"}));
  EXPECT_EQ(*FindServers({}, "", {mine, etc}), (Servers{"a:1", "b:2"}));
  EXPECT_EQ(*FindServers({}, "", {folder + "/none", etc}), (Servers{"c:3"}));
  EXPECT_EQ(*FindServers({}, "", {folder + "/none"}), Servers());
}

TEST_F(ResolverServers, TheFirstDomainThatIsConfiguredIsUsedAndMustBeOne) {
  const std::string mine = File("mine", "domain = Mine.example\n");
  const std::string etc = File("etc", "directory = c:3\ndomain = etc.example # ours\n");
  EXPECT_EQ(*FindDomain("A.example", "b.example", {mine, etc}), "a.example");
  EXPECT_EQ(*FindDomain("", "b.example", {mine, etc}), "b.example");
  EXPECT_EQ(*FindDomain("", "", {mine, etc}), "mine.example");
  EXPECT_EQ(*FindDomain("", "", {folder + "/none", etc}), "etc.example");
  EXPECT_EQ(*FindDomain("", "", {folder + "/none"}), "");
  const std::string too_long(254, 'a');
  for (const std::string& bad : {std::string("a b"), std::string("a/b"), std::string("a:1"),
                                 std::string("-a"), std::string("a..b"), too_long}) {
    const auto found = FindDomain("", bad, {});
    ASSERT_FALSE(found.ok()) << bad;
    EXPECT_EQ(found.status().code(), Code::kInvalid);
    EXPECT_NE(found.status().message().find("$DATAWIRE_DOMAIN"), std::string::npos);
  }
}

TEST_F(ResolverServers, ServersBeforeADomainUnlessTheDomainIsGiven) {
  ::setenv("XDG_CONFIG_HOME", folder.c_str(), 1);
  std::filesystem::create_directory(folder + "/datawire");
  ::setenv("DATAWIRE_DOMAIN", "set.example", 1);
  ::setenv("DATAWIRE_DNS", "127.0.0.1:5353", 1);
  EXPECT_EQ(FindDirectory({})->domain, "set.example");
  EXPECT_EQ(FindDirectory({})->dns_server, "127.0.0.1:5353");
  EXPECT_EQ(FindDirectory({})->servers, Servers());
  File("datawire/config", "directory = c:3\n");
  EXPECT_EQ(FindDirectory({})->servers, Servers{"c:3"});
  EXPECT_EQ(FindDirectory({})->domain, "");
  EXPECT_EQ(FindDirectory({.servers = {}, .domain = "a.example", .dns_server = {}})->domain,
            "a.example");
  ::unsetenv("DATAWIRE_DOMAIN");
  File("datawire/config", "");
  EXPECT_EQ(FindDirectory({})->servers, Servers{"127.0.0.1:7400"});
  ::setenv("DATAWIRE_DNS", "localhost:53", 1);
  EXPECT_EQ(FindDirectory({}).status().code(), Code::kInvalid);
  ::unsetenv("DATAWIRE_DNS");
  ::unsetenv("XDG_CONFIG_HOME");
}

TEST_F(ResolverServers, AConfigThatNamesNoServerIsPassedByAndOtherKeysAreNotOurs) {
  const std::string mine = File("mine", "# directory = a:1\nother = b:2\ndirectories = d:4\n");
  const std::string etc = File("etc", "x = 1\n  directory =\tc:3  # the one\n");
  EXPECT_EQ(*FindServers({}, "", {mine, etc}), (Servers{"c:3"}));
}

TEST_F(ResolverServers, TheOneThatIsConfiguredMustParseAndIsNamed) {
  const std::string mine = File("mine", "directory = a:1,nonsense\n");
  const std::string etc = File("etc", "directory = c:3\n");
  const auto refused = [](const Result<Servers>& result, const std::string& shown) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), Code::kInvalid);
    EXPECT_NE(result.status().message().find(shown), std::string::npos)
        << result.status().message();
  };
  refused(FindServers({}, "", {mine, etc}), mine);
  refused(FindServers({}, "", {mine, etc}), "`nonsense`");
  refused(FindServers({}, "z", {etc}), "$DATAWIRE_DIRECTORY");
  refused(FindServers({"host:0"}, "", {etc}), "--directory");
  refused(FindServers({}, " , ", {etc}), "names no directory server");
}

TEST_F(ResolverServers, LooksInXdgConfigHomeThenInEtc) {
  const std::string etc = "/etc/datawire/config";
  EXPECT_EQ(ConfigFiles("/x", "/home/me"), (Servers{"/x/datawire/config", etc}));
  EXPECT_EQ(ConfigFiles("", "/home/me"), (Servers{"/home/me/.config/datawire/config", etc}));
  EXPECT_EQ(ConfigFiles("", ""), (Servers{etc}));
}

}  // namespace
}  // namespace datawire::resolver
