#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "datawire/clock.h"
#include "datawire/state_on_signal.h"
#include "fake_directory.h"

namespace datawire {
namespace {

using std::chrono::seconds;
using testing::FakeDirectory;

class ResolverState : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = std::filesystem::temp_directory_path() / "datawire-state-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder = path;
    file = folder + "/state";
    fake.Set("//d/a", {"amqp://127.0.0.1:1001"});
    fake.Start();
    resolver = std::move(Resolver::Open({.directory = {fake.server()}})).value();
    ASSERT_EQ(resolver->Resolve(Address::Parse("//d/a").value(), {.deadline = seconds(20)})->status,
              AnswerStatus::kFound);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  bool Appears() const {
    const BootTime until = BootClock::now() + seconds(20);
    while (!std::filesystem::exists(file) && BootClock::now() < until) std::this_thread::yield();
    return std::filesystem::exists(file);
  }
  static bool Untouched(int signal) {
    struct sigaction action {};
    ::sigaction(signal, nullptr, &action);
    return action.sa_handler == SIG_DFL;
  }

  std::string folder, file;
  FakeDirectory fake;
  std::unique_ptr<Resolver> resolver;
};

TEST_F(ResolverState, ASignalWritesItAsJsonLinesAsOftenAsItComes) {
  EXPECT_TRUE(Untouched(SIGUSR1)) << "the resolver took a signal by itself";
  auto writer = StateOnSignal::Open(*resolver, SIGUSR1, file);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  for (int i = 0; i < 2; i++) {
    std::filesystem::remove(file);
    ASSERT_EQ(::kill(::getpid(), SIGUSR1), 0);
    ASSERT_TRUE(Appears());
    std::ifstream in(file);
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_EQ(lines[0]["server"], fake.server());
    EXPECT_EQ(lines[1]["address"], "//d/a");
    EXPECT_EQ(lines[1]["endpoints"][0], "amqp://127.0.0.1:1001");
    struct stat about {};
    ASSERT_EQ(::stat(file.c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0600u);
  }
  writer->reset();
  EXPECT_TRUE(Untouched(SIGUSR1));
}

TEST_F(ResolverState, ASignalThatIsTheApplicationsIsLeftToIt) {
  struct sigaction own {
  }, after{};
  own.sa_handler = [](int) {};
  ::sigaction(SIGUSR2, &own, nullptr);
  EXPECT_EQ(StateOnSignal::Open(*resolver, SIGUSR2, file).status().code(), Code::kConflict);
  ::sigaction(SIGUSR2, nullptr, &after);
  EXPECT_EQ(after.sa_handler, own.sa_handler);
  ::signal(SIGUSR2, SIG_DFL);
  EXPECT_EQ(StateOnSignal::Open(*resolver, SIGKILL, file).status().code(), Code::kInvalid);
  EXPECT_EQ(StateOnSignal::Open(*resolver, -1, file).status().code(), Code::kInvalid);
  const auto first = StateOnSignal::Open(*resolver, SIGUSR1, file);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(StateOnSignal::Open(*resolver, SIGUSR2, file).status().code(), Code::kConflict);
}

}  // namespace
}  // namespace datawire
