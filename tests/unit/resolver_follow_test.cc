#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "datawire/clock.h"
#include "datawire/directory/v1/directory.grpc.pb.h"
#include "datawire/follow_channel.h"
#include "fake_directory.h"

namespace datawire {
namespace {

namespace v1 = directory::v1;
using std::chrono::seconds;
using testing::FakeDirectory;

const char kAddress[] = "//d/a";

// Two services that speak gRPC: they say who they are.
class ResolverFollow : public ::testing::Test {
 protected:
  void SetUp() override {
    one.Start();
    two.Start();
    fake.grpc = {{url_one, one.server()}, {url_two, PortOf(two)}};
    fake.Set(kAddress, {url_one, url_two, "amqp://127.0.0.1:3"});  // the last speaks no gRPC
    fake.Start();
    resolver = std::move(Resolver::Open({.directory = {fake.server()}})).value();
  }
  static std::string PortOf(const FakeDirectory& service) {
    return service.server().substr(service.server().find(':') + 1);
  }
  std::unique_ptr<FollowedChannel> Follow() {
    return FollowChannel(*resolver, Address::Parse(kAddress).value(),
                         grpc::InsecureChannelCredentials());
  }
  // Who answered a call, or why there was none.
  static std::string Call(FollowedChannel& followed) {
    const auto channel = followed.channel();
    if (!channel.ok()) return std::string(CodeName(channel.status().code()));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    v1::ResolveRequest request;
    request.add_addresses("//x");
    v1::ResolveResponse response;
    const auto status = v1::Directory::NewStub(*channel)->Resolve(&context, request, &response);
    return status.ok() ? response.source().cluster_id() : "failed: " + status.error_message();
  }
  // Calls until `expected` answered, then a hundred more.
  static std::map<std::string, int> Calls(FollowedChannel& followed, const std::string& expected) {
    const BootTime until = BootClock::now() + seconds(20);
    std::map<std::string, int> answered;
    std::string last;
    while (last != expected && BootClock::now() < until) {
      last = Call(followed);
      if (last.starts_with("failed")) answered[last]++;
    }
    for (int i = 0; i < 100; i++) answered[Call(followed)]++;
    return answered;
  }

  const std::string url_one = "amqp://127.0.0.1:1", url_two = "amqp://127.0.0.1:2";
  FakeDirectory one{"one"}, two{"two"}, fake;
  std::unique_ptr<Resolver> resolver;
};

TEST_F(ResolverFollow, CallsAreSpreadAndGoToTheOtherWithoutAFailureWhenOneIsWithdrawn) {
  const auto followed = Follow();
  EXPECT_FALSE(Call(*followed).starts_with("failed"));  // waits for the first answer
  Calls(*followed, "one");
  std::map<std::string, int> calls = Calls(*followed, "two");
  EXPECT_EQ(calls.size(), 2u);
  EXPECT_GE(calls["one"], 20);
  EXPECT_GE(calls["two"], 20);

  fake.Set(kAddress, {url_two});
  const BootTime until = BootClock::now() + seconds(20);
  for (int in_a_row = 0; in_a_row < 50 && BootClock::now() < until;) {
    const std::string by = Call(*followed);
    ASSERT_TRUE(by == "one" || by == "two") << by;
    in_a_row = by == "two" ? in_a_row + 1 : 0;
  }
  one.Stop();  // nobody calls it any more
  EXPECT_EQ(Calls(*followed, "two"), (std::map<std::string, int>{{"two", 100}}));
}

TEST_F(ResolverFollow, WithoutAnEndpointItIsUnavailableUntilThereIsOne) {
  fake.Set(kAddress, {"amqp://127.0.0.1:3"});
  const auto followed = Follow();
  const auto none = followed->channel();
  EXPECT_EQ(none.status().code(), Code::kUnavailable);
  EXPECT_NE(none.status().message().find("//d/a has no endpoint that takes gRPC"),
            std::string::npos);
  fake.Set(kAddress, {url_one});
  EXPECT_EQ(Calls(*followed, "one"), (std::map<std::string, int>{{"one", 100}}));
  fake.Forget(kAddress);
  const std::string none_left(CodeName(Code::kUnavailable));
  EXPECT_EQ(Calls(*followed, none_left), (std::map<std::string, int>{{none_left, 100}}));
}

TEST_F(ResolverFollow, AnEndpointThatDiesWhileRegisteredIsPassedBy) {
  const auto followed = Follow();
  Calls(*followed, "one");
  Calls(*followed, "two");
  one.Stop();
  const BootTime until = BootClock::now() + seconds(20);
  std::map<std::string, int> answered;
  for (int in_a_row = 0; in_a_row < 50;) {  // calls under way at its death may fail
    ASSERT_LT(BootClock::now(), until) << ::testing::PrintToString(answered);
    const std::string by = Call(*followed);
    answered[by]++;
    in_a_row = by == "two" ? in_a_row + 1 : 0;
  }
  EXPECT_EQ(Calls(*followed, "two"), (std::map<std::string, int>{{"two", 100}}));
  one.Start();
  EXPECT_EQ(Calls(*followed, "one").size(), 2u);
}

TEST_F(ResolverFollow, WithTheDirectoryDownTheEndpointsKnownAreUsed) {
  const auto followed = Follow();
  Calls(*followed, "one");
  fake.Stop();
  EXPECT_EQ(Calls(*followed, "two").size(), 2u);
}

TEST_F(ResolverFollow, ACallInProgressKeepsItsChannelWhenTheEndpointGoes) {
  fake.Set(kAddress, {url_one});
  const auto followed = Follow();
  const auto held = followed->channel();
  ASSERT_TRUE(held.ok());
  fake.Set(kAddress, {url_two});
  Calls(*followed, "two");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
  v1::ResolveResponse response;
  EXPECT_TRUE(v1::Directory::NewStub(*held)->Resolve(&context, {}, &response).ok());
}

}  // namespace
}  // namespace datawire
