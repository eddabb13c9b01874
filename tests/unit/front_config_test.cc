#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "config.h"
#include "http/metrics.h"
#include "ops/log.h"

namespace datawire::directory {
namespace {

Result<Invocation> Parse(std::vector<std::string> args) {
  args.insert(args.begin(), "datawire-directory");
  std::vector<const char*> pointers;
  for (const std::string& arg : args) pointers.push_back(arg.c_str());
  return ParseCommandLine(static_cast<int>(pointers.size()), pointers.data());
}

std::string Refusal(std::vector<std::string> args) {
  const auto parsed = Parse(std::move(args));
  return parsed.ok() ? "accepted" : parsed.status().message();
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A config file that is gone with the test.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) {
    const int file = ::mkstemp(path_.data());
    ::close(file);
    std::ofstream(path_) << text;
  }
  ~ConfigFile() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = testing::TempDir() + "configXXXXXX";
};

TEST(Config, DefaultsAreLoopbackAndTheKnownPorts) {
  const auto parsed = Parse({"--data", "/d"});
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->config.listen.ToString(), "127.0.0.1:7400");
  EXPECT_EQ(parsed->config.http_listen.ToString(), "127.0.0.1:7403");
  EXPECT_FALSE(parsed->config.init);
}

TEST(Config, EveryFlagIsAKeyOfTheFile) {
  const ConfigFile file(
      "data = \"/d\"\ninit = true\nnode-id = \"n7\"\ncluster-id = \"c1\"\ninsecure = true\n"
      "listen = \"0.0.0.0:1\"\nhttp-listen = \"[::1]:2\"\n");
  const auto parsed = Parse({"--config", file.path()});
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->config.data, "/d");
  EXPECT_TRUE(parsed->config.init);
  EXPECT_TRUE(parsed->config.insecure);
  EXPECT_EQ(parsed->config.node_id, "n7");
  EXPECT_EQ(parsed->config.cluster_id, "c1");
  EXPECT_EQ(parsed->config.listen.ToString(), "0.0.0.0:1");
  EXPECT_EQ(parsed->config.http_listen.ToString(), "[::1]:2");
}

TEST(Config, AFlagWinsOverItsKey) {
  const ConfigFile file("data = \"/d\"\nnode-id = \"of-the-file\"\n");
  const auto parsed = Parse({"--config", file.path(), "--node-id", "of-the-flag"});
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->config.node_id, "of-the-flag");
}

TEST(Config, RefusalsAreOneLineWithTheValue) {
  const ConfigFile unknown("data = \"/d\"\nlisten_on = \"x\"\n");
  const ConfigFile section("data = \"/d\"\n[tls]\ncert = \"x\"\n");
  const ConfigFile nested("data = \"/d\"\nconfig = \"/other\"\n");
  const ConfigFile boolean("data = \"/d\"\ninit = maybe\n");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "--data is missing"},
      {{"--data", "/d", "--colour", "red"}, "--colour"},
      {{"--data", "/d", "stray"}, "stray"},
      {{"--data"}, "--data"},
      {{"--data", "/d", "--listen", "nowhere"}, "nowhere"},
      {{"--data", "/d", "--listen", "127.0.0.1:99999"}, "99999"},
      {{"--data", "/d", "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:2"}, "--listen"},
      {{"--data", "/d", "--node-id", "a b"}, "`a b`"},
      {{"--data", "/d", "--node-id", ""}, "--node-id"},
      {{"--data", "/d", "--node-id", std::string(64, 'x')}, "63"},
      {{"--data", "/d", "--cluster-id", "c"}, "--init"},
      {{"--data", "/d", "--init", "--import", "f"}, "--init and --import"},
      {{"--dev", "--import", "f"}, "--import and --dev"},
      {{"--dev", "--restore", "f"}, "--restore and --dev"},
      {{"--data", "/d", "--restore", "s", "--import", "f"}, "--import and --restore"},
      {{"--data", "/d", "--init", "--epoch", "7"}, "--epoch 7"},
      {{"--data", "/d", "--epoch", "7"}, "--epoch 7"},
      {{"--data", "/d", "--init", "--cluster-id", "a/b"}, "`a/b`"},
      {{"--dev", "--data", "/d"}, "--data and --dev"},
      {{"--dev", "--init"}, "--init and --dev"},
      {{"--dev", "--insecure"}, "--insecure and --dev"},
      {{"--data", "/d", "--tls-cert", "x"}, "tls-key is missing"},
      {{"--data", "/d", "--tls-cert", "/none", "--tls-key", "y", "--tls-ca", "z"}, "`/none`"},
      {{"--data", "/d", "--tls-cert", "x", "--insecure"}, "--insecure and --tls-cert"},
      {{"--data", "/d", "--engine", "etcd", "--etcd-endpoints", "https://a:1"}, "wants --tls-cert"},
      {{"--data", "/d", "--engine", "etcd", "--etcd-endpoints", "a:1,https://b:1"}, "all of them"},
      {{"--config", "/nonexistent/file"}, "/nonexistent/file"},
      {{"--config", unknown.path()}, "`listen_on` is not a key"},
      {{"--config", section.path()}, "`tls` is not a key"},
      {{"--config", nested.path()}, "`config` is not a key"},
      {{"--config", boolean.path()}, "maybe"},
  };
  for (const auto& [args, part] : cases) {
    const std::string refusal = Refusal(args);
    EXPECT_TRUE(Has(refusal, part)) << part << ": " << refusal;
    EXPECT_FALSE(Has(refusal, "\n")) << refusal;
    EXPECT_NE(refusal, "accepted") << part;
  }
}

TEST(Config, BeyondLoopbackWantsInsecure) {
  for (const std::string flag : {"--listen", "--http-listen"}) {
    for (const std::string at : {"0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.com:0"}) {
      EXPECT_TRUE(Has(Refusal({"--data", "/d", flag, at}), "--insecure")) << flag << " " << at;
      EXPECT_EQ(Refusal({"--data", "/d", "--insecure", flag, at}), "accepted");
    }
    for (const std::string at : {"127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "localhost:0"}) {
      EXPECT_EQ(Refusal({"--data", "/d", flag, at}), "accepted");
    }
  }
}

TEST(Config, HelpNamesEveryFlag) {
  const auto parsed = Parse({"--help"});
  ASSERT_TRUE(parsed.ok());
  for (const char* flag : {"--data", "--init", "--dev", "--config", "--node-id", "--cluster-id",
                           "--listen", "--http-listen", "--insecure", "--tls-cert", "--tls-key",
                           "--tls-ca", "--import", "--restore", "--epoch", "--version", "--help"}) {
    EXPECT_TRUE(Has(parsed->text, flag)) << flag;
  }
}

TEST(Logfmt, QuotesOnlyWhatWouldBreakALine) {
  EXPECT_EQ(LogfmtValue("127.0.0.1:7400"), "127.0.0.1:7400");
  EXPECT_EQ(LogfmtValue(""), "\"\"");
  EXPECT_EQ(LogfmtValue("a b"), "\"a b\"");
  EXPECT_EQ(LogfmtValue("a=\"b\"\\"), "\"a=\\\"b\\\"\\\\\"");
  EXPECT_EQ(LogfmtValue("a\nlevel=error"), "\"a\\x0alevel=error\"");
}

TEST(MetricsText, CountersAndGaugesWithLabels) {
  const std::string text = MetricsText(
      {{"datawire_x_total", "Help", {{{{"verb", "a"}}, 3}}}, {"datawire_y", "Help", {{{}, 1.5}}}});
  EXPECT_TRUE(Has(text, "# TYPE datawire_x_total counter\n")) << text;
  EXPECT_TRUE(Has(text, "datawire_x_total{verb=\"a\"} 3\n")) << text;
  EXPECT_TRUE(Has(text, "# TYPE datawire_y gauge\ndatawire_y 1.5\n")) << text;
}

}  // namespace
}  // namespace datawire::directory
