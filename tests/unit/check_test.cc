#include "check.h"

#include <gtest/gtest.h>

// What dw register makes of the results of its probes.

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;
using Change = CheckCore::Change;

constexpr CheckPolicy kPolicy{
    .interval = milliseconds(1000), .timeout = milliseconds(400), .down = 3, .up = 2};

/// A core that each call tells one more result.
struct CheckTest : testing::Test {
  Change Result(bool healthy) {
    now += std::chrono::seconds(2);
    EXPECT_TRUE(core.Due(now));
    core.Begin(now);
    return core.OnResult(healthy);
  }
  CheckCore core{kPolicy, 1};
  BootTime now{};
};

TEST_F(CheckTest, NothingIsUpBeforeTheFirstSuccessWhichIsEnough) {
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Result(false), Change::kNone);
  EXPECT_FALSE(core.up());
  EXPECT_EQ(Result(true), Change::kUp);
  EXPECT_TRUE(core.up());
}

TEST_F(CheckTest, FewerFailuresInARowThanTheThresholdChangeNothing) {
  Result(true);
  for (int i = 0; i < 10; ++i)
    for (const bool healthy : {false, false, true}) EXPECT_EQ(Result(healthy), Change::kNone);
  EXPECT_TRUE(core.up());
}

TEST_F(CheckTest, FailuresInARowTakeItDown) {
  Result(true);
  EXPECT_EQ(Result(false), Change::kNone);
  EXPECT_EQ(Result(false), Change::kNone);
  EXPECT_EQ(Result(false), Change::kDown);
  EXPECT_EQ(core.in_a_row(), 3u);
  EXPECT_EQ(Result(false), Change::kNone);
  EXPECT_FALSE(core.up());
}

TEST_F(CheckTest, SuccessesInARowBringItBack) {
  for (const bool healthy : {true, false, false, false}) Result(healthy);
  ASSERT_FALSE(core.up());
  for (int i = 0; i < 10; ++i)
    for (const bool healthy : {true, false}) EXPECT_EQ(Result(healthy), Change::kNone);
  EXPECT_EQ(Result(true), Change::kNone);
  EXPECT_EQ(Result(true), Change::kUp);
  EXPECT_EQ(core.in_a_row(), 2u);
}

TEST_F(CheckTest, OneProbeAtATimeWhichIsOverdueAtItsTimeout) {
  EXPECT_TRUE(core.Due(now));
  EXPECT_FALSE(core.Overdue(now + std::chrono::hours(1)));
  core.Begin(now);
  EXPECT_FALSE(core.Due(now + std::chrono::hours(1)));
  EXPECT_FALSE(core.Overdue(now + milliseconds(399)));
  EXPECT_TRUE(core.Overdue(now + milliseconds(400)));
  core.OnResult(false);
  EXPECT_FALSE(core.Overdue(now + milliseconds(400)));
}

TEST_F(CheckTest, StartsAreAnIntervalApartWithinATenth) {
  BootTime least = BootTime::max(), most{};
  for (uint64_t seed = 0; seed < 200; ++seed) {
    CheckCore one(kPolicy, seed);
    one.Begin(now);
    one.OnResult(true);
    EXPECT_FALSE(one.Due(now + milliseconds(899)));
    EXPECT_TRUE(one.Due(now + milliseconds(1100)));
    BootTime due = now + milliseconds(900);
    while (!one.Due(due)) due += milliseconds(1);
    least = std::min(least, due);
    most = std::max(most, due);
  }
  EXPECT_GT(most - least, milliseconds(100));
}

TEST(CheckSpecTest, KindsPortAndPathAreTaken) {
  EXPECT_EQ(CheckSpec::Parse("tcp")->kind, CheckSpec::Kind::kTcp);
  EXPECT_EQ(CheckSpec::Parse("amqp")->kind, CheckSpec::Kind::kAmqp);
  const auto plain = CheckSpec::Parse("http=/healthz?full=1");
  EXPECT_EQ(plain->kind, CheckSpec::Kind::kHttp);
  EXPECT_EQ(plain->port, 0);
  EXPECT_EQ(plain->path, "/healthz?full=1");
  const auto elsewhere = CheckSpec::Parse("http=:8080/");
  EXPECT_EQ(elsewhere->port, 8080);
  EXPECT_EQ(elsewhere->path, "/");
}

TEST(CheckSpecTest, AllElseIsRefusedWithItsText) {
  for (const char* text : {"", "udp", "tcp ", "http", "http=", "http=healthz", "http=:/x",
                           "http=:0/x", "http=:70000/x", "http=:80", "http=:80x/", "http=/a b",
                           "http=/a\r\nx: y", "http=/\xc3\xa4", "amqp=/x"}) {
    const auto spec = CheckSpec::Parse(text);
    ASSERT_FALSE(spec.ok()) << text;
    EXPECT_EQ(spec.status().code(), Code::kInvalid);
    EXPECT_NE(spec.status().message().find("--check `"), std::string::npos)
        << spec.status().message();
  }
}

}  // namespace
}  // namespace datawire::cli
