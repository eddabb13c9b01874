// P21: one principal holds at most its quota. P18: streams begin at a pace.
#include "core/pace.h"
#include "directory_fixture.h"
#include "view/principal.h"

namespace datawire::directory {
namespace {

class QuotaTest : public DirectoryTest {
 protected:
  QuotaTest() { options_.quotas = {.registrations = 5, .sessions = 3, .watches = 2, .streams = 4}; }
  static Peer Host(int number, int port = 1000) {
    return {"10.0.0." + std::to_string(number) + ":" + std::to_string(port), ""};
  }
  static std::string Url(int i) { return "amqp://10.0.0.1:" + std::to_string(5000 + i); }
  Code RegisterStatic(const Peer& peer, const std::string& address, int url, int count = 1) {
    pb::RegisterRequest request;
    for (int i = 0; i < count; ++i) {
      auto* registration = request.add_registrations();
      registration->set_address(address);
      registration->mutable_endpoint()->set_url(Url(url + i));
    }
    std::promise<Status> done;
    directory_->Register(request, peer, [&](const Result<pb::RegisterResponse>& response) {
      done.set_value(response.status());
    });
    return done.get_future().get().code();
  }
  static void ExpectRefused(const pb::Refusal& refusal) {
    EXPECT_EQ(refusal.code(), pb::OVERLOADED) << refusal.ShortDebugString();
    EXPECT_GT(refusal.retry_after_ms(), 0u);
    EXPECT_NE(refusal.message().find("--quota-"), std::string::npos) << refusal.message();
  }
};

TEST_F(QuotaTest, P21RegistrationsOfOnePrincipalAreCountedOverItsSessionsAndStaticOnes) {
  TestTether a(*directory_, Host(1)), b(*directory_, Host(1, 2000)), other(*directory_, Host(2));
  for (TestTether* tether : {&a, &b, &other}) ASSERT_TRUE(tether->Hello().has_welcome());
  EXPECT_EQ(RegisterStatic(Host(1, 3000), "//d/s", 0, 2), Code::kOk);
  EXPECT_TRUE(a.Register(1, "//d/a", Url(1)).done().has_revision());
  EXPECT_TRUE(b.Register(1, "//d/b", Url(2)).done().has_revision());
  EXPECT_TRUE(b.Register(2, "//d/b", Url(3)).done().has_revision());
  ExpectRefused(a.Register(2, "//d/a", Url(4)).done().refusal());
  EXPECT_EQ(RegisterStatic(Host(1), "//d/s", 9), Code::kOverloaded);
  EXPECT_TRUE(other.Register(1, "//d/a", Url(5)).done().has_revision()) << "it is another's quota";
  EXPECT_TRUE(a.Register(3, "//d/a", Url(1)).done().has_revision()) << "it holds that one already";
  EXPECT_TRUE(b.Withdraw(4, "//d/b", Url(3)).done().has_revision());
  EXPECT_TRUE(a.Register(4, "//d/a", Url(6)).done().has_revision()) << "one has gone";
  ExpectRefused(a.Register(5, "//d/a", Url(7)).done().refusal());
}

TEST_F(QuotaTest, P21ARestartForgetsNoQuota) {
  EXPECT_EQ(RegisterStatic(Host(1), "//d/s", 0, 5), Code::kOk);
  Restart();
  EXPECT_EQ(RegisterStatic(Host(1), "//d/s", 9), Code::kOverloaded);
  EXPECT_EQ(RegisterStatic(Host(1), "//d/s", 2), Code::kOk) << "it holds that one already";
}

TEST_F(QuotaTest, P21WhatExpiresIsGivenBack) {
  TestTether a(*directory_, Host(1));
  ASSERT_TRUE(a.Hello(3000).has_welcome());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(a.Register(i + 1, "//d/a", Url(i)).done().has_revision());
  EXPECT_EQ(RegisterStatic(Host(1), "//d/s", 9), Code::kOverloaded);
  Pass(20s);
  EXPECT_EQ(RegisterStatic(Host(1), "//d/s", 9, 5), Code::kOk);
  EXPECT_EQ(RegisterStatic(Host(1), "//d/s", 19), Code::kOverloaded);
}

TEST_F(QuotaTest, P21ARestartedServiceTakesItsOwnPlaceAtTheQuota) {
  TestTether former(*directory_, Host(1));
  ASSERT_TRUE(former.Hello().has_welcome());
  for (int i = 0; i < 5; ++i)
    ASSERT_TRUE(former.Register(i + 1, "//d/a", Url(i)).done().has_revision());
  TestTether again(*directory_, Host(1, 2000));
  ASSERT_TRUE(again.Hello().has_welcome());
  for (int i = 0; i < 5; ++i)
    EXPECT_TRUE(again.Register(i + 1, "//d/a", Url(i)).done().has_revision());
  ExpectRefused(again.Register(9, "//d/a", Url(9)).done().refusal());
}

TEST_F(QuotaTest, P21WhatIsOnItsWayCounts) {
  TestTether a(*directory_, Host(1));
  ASSERT_TRUE(a.Hello().has_welcome());
  {
    HeldEngine held(*log_);
    for (int i = 0; i < 8; ++i)
      a.tether->OnMessage(TestTether::RegisterOf(i + 1, "//d/" + std::to_string(i), Url(i)));
  }
  int done = 0, refused = 0;
  for (int i = 0; i < 8; ++i) {
    const auto response = a.Read();
    ASSERT_TRUE(response && response->has_done());
    ++(response->done().has_refusal() ? refused : done);
  }
  EXPECT_EQ(done, 5);
  EXPECT_EQ(refused, 3);
}

TEST_F(QuotaTest, P21SessionsAndStreamsOfOnePrincipalAreBounded) {
  std::vector<std::unique_ptr<TestTether>> tethers;
  for (int i = 0; i < 3; ++i) {
    tethers.push_back(std::make_unique<TestTether>(*directory_, Host(1)));
    ASSERT_TRUE(tethers.back()->Hello().has_welcome());
  }
  TestTether fourth(*directory_, Host(1));
  ExpectRefused(fourth.Hello().ended().refusal());  // a session too many
  TestTether fifth(*directory_, Host(1));
  ExpectRefused(fifth.Read()->ended().refusal());  // a stream too many, before any hello
  TestStream stream;
  EXPECT_EQ(directory_->OpenSubscriber(Host(1), stream).status().code(), Code::kOverloaded);
  EXPECT_TRUE(directory_->OpenSubscriber(Host(2), stream).ok());
  EXPECT_TRUE(directory_->OpenSubscriber({"127.0.0.1:1", ""}, stream).ok()) << "no quota";
  EXPECT_TRUE(tethers[0]->Bye().has_ended());
  tethers.clear();
  TestTether third(*directory_, Host(1)), more(*directory_, Host(1));
  EXPECT_TRUE(third.Hello().has_welcome()) << "one session has ended";
  ExpectRefused(more.Hello().ended().refusal());  // two live on without a stream
}

TEST_F(QuotaTest, P21WatchesOfOnePrincipalAreBounded) {
  TestStream stream;
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < 2; ++i)
    watchers.push_back(directory_->OpenWatcher({}, Host(1), stream).value());
  const auto third = directory_->OpenWatcher({}, Host(1), stream);
  EXPECT_EQ(third.status().code(), Code::kOverloaded);
  EXPECT_TRUE(third.status().retry_after().has_value());
  watchers.pop_back();
  EXPECT_TRUE(directory_->OpenWatcher({}, Host(1), stream).ok());
}

TEST_F(DirectoryTest, P18StreamsBeginAtAPaceAndTheRestIsToldItsTurn) {
  constexpr size_t kCrowd = 10'000;
  TestStream stream;
  struct Client {
    BootTime next;
    std::unique_ptr<Subscriber> subscriber;
  };
  std::vector<Client> crowd(kCrowd);
  for (Client& client : crowd) client.next = now_;
  const BootTime start = now_;
  std::deque<std::pair<BootTime, size_t>> admitted;  // of the last second
  size_t open = 0, asked = 0;
  while (open < kCrowd) {
    ASSERT_LT(now_, start + 60s) << open << " of " << kCrowd << " are subscribed";
    size_t now_admitted = 0;
    for (Client& client : crowd) {
      if (client.subscriber || client.next > now_) continue;
      ++asked;
      auto opened = directory_->OpenSubscriber({"127.0.0.1:1", ""}, stream);
      if (opened.ok()) {
        client.subscriber = std::move(*opened);
        ++open, ++now_admitted;
      } else {
        ASSERT_EQ(opened.status().code(), Code::kOverloaded);
        client.next = now_ + opened.status().retry_after().value();
        ASSERT_GT(client.next, now_);
      }
    }
    admitted.emplace_back(now_, now_admitted);
    while (admitted.front().first + 1s <= now_) admitted.pop_front();
    size_t in_a_second = 0;
    for (const auto& [at, count] : admitted) in_a_second += count;
    ASSERT_LE(in_a_second, 500u);
    now_ += 100ms;
    directory_->Tick(now_);
  }
  EXPECT_LT(asked, kCrowd * 4) << "they come when they were told to";
  EXPECT_GT(directory_->counters().streams_paced, 0u);
}

TEST(PrincipalTest, IsTheIdentityElseTheHostAndNobodyOnLoopback) {
  EXPECT_EQ(PrincipalOf("spiffe://d/a", "127.0.0.1:1"), "spiffe://d/a");
  EXPECT_EQ(PrincipalOf("", "10.0.0.7:41234"), "10.0.0.7");
  EXPECT_EQ(PrincipalOf("", "[2001:db8::7]:41234"), "2001:db8::7");
  EXPECT_EQ(PrincipalOf("", "[::ffff:10.0.0.7]:41234"), "10.0.0.7");
  for (const char* loopback : {"127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", ""})
    EXPECT_EQ(PrincipalOf("", loopback), "") << loopback;
}

}  // namespace
}  // namespace datawire::directory
