#include "fill_plan.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>

#include "datawire/endpoint_url.h"
#include "datawire/limits.h"

// What dw bench fill registers.

namespace datawire::cli {
namespace {

FillPlan Plan(uint64_t endpoints, uint64_t sessions, uint64_t addresses) {
  return {Address::Parse("//bench").value(), endpoints, sessions, addresses};
}

TEST(FillPlanTest, EachEndpointIsRegisteredOnceInCallsThatTheDirectoryTakes) {
  for (const FillPlan& plan : {Plan(1234, 7, 1234), Plan(1000, 1, 1), Plan(50, 50, 3)}) {
    ASSERT_TRUE(plan.Check().ok());
    std::set<std::pair<std::string, std::string>> all;
    std::set<std::string> addresses;
    size_t registered = 0;
    for (uint64_t session = 0; session < plan.sessions; ++session) {
      for (uint64_t call = 0; call < plan.Calls(session); ++call) {
        const auto request = plan.Call(session, call);
        const auto& registrations = request.register_().registrations();
        EXPECT_GE(registrations.size(), 1);
        EXPECT_LE(registrations.size(), static_cast<int>(limits::kCallRegistrations));
        for (const auto& each : registrations) {
          EXPECT_TRUE(Address::Parse(each.address()).ok()) << each.address();
          EXPECT_TRUE(EndpointUrl::Parse(each.endpoint().url()).ok()) << each.endpoint().url();
          all.emplace(each.address(), each.endpoint().url());
          addresses.insert(each.address());
          ++registered;
        }
      }
    }
    EXPECT_EQ(registered, plan.endpoints);
    EXPECT_EQ(all.size(), plan.endpoints);
    EXPECT_EQ(addresses.size(), plan.addresses);
  }
}

TEST(FillPlanTest, AmountsThatTheDirectoryWouldRefuseAreRefused) {
  EXPECT_TRUE(Plan(1'000'000, 1000, 1).Check().ok());
  EXPECT_EQ(Plan(1'000'001, 1000, 1).Check().code(), Code::kInvalid);
  EXPECT_EQ(Plan(10, 11, 1).Check().code(), Code::kInvalid);
  EXPECT_EQ(Plan(10, 10, 11).Check().code(), Code::kInvalid);
}

TEST(FillPlanTest, ProgressIsOneLineFromNothingToAll) {
  EXPECT_EQ(FillProgress(0, 10, 0),
            "[>                             ]   0 %  0 of 10 endpoints  0/s");
  EXPECT_EQ(FillProgress(10, 10, 2),
            "[==============================] 100 %  10 of 10 endpoints  5/s");
}

}  // namespace
}  // namespace datawire::cli
