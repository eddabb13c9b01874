// P25 on the real server: what is asked of it beyond its powers costs those who ask, nobody else.
// The bounds are generous, for a machine that is shared; tests/bench has the figures.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "../bench/child.h"
#include "../bench/overload.h"

namespace datawire::bench {
namespace {

class OverloadTest : public ::testing::Test {
 protected:
  ~OverloadTest() override { std::filesystem::remove_all(data_); }

  const std::string data_ =
      std::filesystem::absolute("overload-test-" + std::to_string(::getpid()));
  const Child directory_{"datawire-directory",
                         {"--data", data_, "--init", "--node-id", "n1", "--listen", "127.0.0.1:0",
                          "--http-listen", "127.0.0.1:0"}};
};

TEST_F(OverloadTest, P25AHundredTimesTheCallersGetWhatThereIsAndNoSessionExpires) {
  const Overload out = MeasureOverload(directory_.address(), std::chrono::seconds(3));
  EXPECT_GE(out.good / out.peak, 0.6) << out.good << " of " << out.peak << " names a second";
  EXPECT_EQ(out.sessions_lost, 0);
  EXPECT_LT(out.heartbeat_p99, 0.05) << "s";
  EXPECT_LT(out.resolve_p99, 0.05) << "s, for somebody who wants one name";
  EXPECT_LT(out.recovery, 10) << "s";
}

TEST_F(OverloadTest, P25TenTimesTheSessionsWithTenTimesTheRegistrationsGetWhatThereIs) {
  EXPECT_GE(RegistersOfPeak(directory_.address(), std::chrono::seconds(2)), 0.6);
}

}  // namespace
}  // namespace datawire::bench
