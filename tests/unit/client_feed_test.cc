#include "client_fixture.h"
#include "receiver.h"

namespace datawire {
namespace {

/// A service that gives messages to those who pull.
class FeedTest : public ClientTest {
 protected:
  Feed MakeFeed() {
    return {.attached = [this](const auto& outlet) { board_.Change([&] { outlet_ = outlet; }); },
            .credit = [this](const auto&) { board_.Change([] {}); },
            .detached = [this](const auto&) { board_.Change([&] { ++detached_; }); }};
  }
  std::unique_ptr<Service> ServeFeed() {
    ServiceOptions options;
    options.feed = MakeFeed();
    return Serve([](Exchange exchange) { exchange.Accept(); }, options);
  }
  std::unique_ptr<Receiver> Pull(const Service& service, uint32_t credit = 10) {
    auto receiver = client_.OpenReceiver(To(service), {.credit = credit});
    EXPECT_TRUE(receiver.ok()) << receiver.status().ToString();
    EXPECT_TRUE(board_.Await([&] { return outlet_ && outlet_->credit() > 0; }));
    return std::move(receiver).value();
  }
  void Give(const std::string& body, uint32_t more = 0) {
    outlet_->Give(proton::message(body), more, [this, body](const Verdict& verdict) {
      board_.Change([&] {
        verdicts_.push_back(verdict);
        of_[body] = verdict;
      });
    });
  }
  void AwaitCredit(uint32_t credit) {
    const BootTime until = BootClock::now() + 10s;
    while (outlet_->credit() != credit && BootClock::now() < until) std::this_thread::yield();
    EXPECT_EQ(outlet_->credit(), credit);
  }
  Verdict::Kind Told(size_t number) {
    EXPECT_TRUE(board_.Await([&] { return verdicts_.size() > number; }));
    return verdicts_.at(number).kind;
  }

  std::shared_ptr<Outlet> outlet_;
  std::vector<Verdict> verdicts_;
  std::map<std::string, Verdict> of_;  // by body
  int detached_ = 0;
};

TEST_F(FeedTest, WhoPullsGetsWhatIsGivenAndItsVerdictComesBack) {
  const auto service = ServeFeed();
  const auto receiver = Pull(*service, 4);
  EXPECT_EQ(outlet_->address(), "//demo/x");
  EXPECT_EQ(outlet_->credit(), 4u);
  for (const char* body : {"a", "b", "c"}) Give(body, 2);
  EXPECT_EQ(outlet_->credit(), 1u) << "counted when given, not when sent";
  for (int i = 0; i < 3; ++i) {
    auto exchange = receiver->Receive(5s);
    ASSERT_TRUE(exchange.ok()) << exchange.status().ToString();
    EXPECT_EQ(exchange->message().delivery_count(), 2u);
    const std::string body = Body(exchange->message());
    if (body == "a") exchange->Accept();
    if (body == "b") exchange->Reject("no such colour");
    if (body == "c") exchange->Release();
  }
  Told(2);
  EXPECT_EQ(of_["a"].kind, Verdict::Kind::kAccepted);
  EXPECT_EQ(of_["b"].kind, Verdict::Kind::kRejected);
  EXPECT_EQ(of_["b"].description, "no such colour");
  EXPECT_EQ(of_["c"].kind, Verdict::Kind::kReleased);
  AwaitCredit(4);  // answered is credit again
}

TEST_F(FeedTest, MoreThanItsCreditComesBackUnsent) {
  const auto service = ServeFeed();
  const auto receiver = Pull(*service, 1);
  Give("a");
  Give("b");
  EXPECT_EQ(Told(0), Verdict::Kind::kReleased);
  EXPECT_EQ(outlet_->credit(), 0u);
  auto exchange = receiver->Receive(5s);
  ASSERT_TRUE(exchange.ok());
  exchange->Accept();
  EXPECT_EQ(Told(1), Verdict::Kind::kAccepted);
}

TEST_F(FeedTest, AConsumerThatGoesAwayLosesWhatItHas) {
  const auto service = ServeFeed();
  auto receiver = Pull(*service);
  Give("a");
  auto exchange = receiver->Receive(5s);
  ASSERT_TRUE(exchange.ok());
  receiver->Close();
  EXPECT_EQ(Told(0), Verdict::Kind::kLost);
  EXPECT_TRUE(board_.Await([&] { return detached_ == 1; }));
  Give("b");
  EXPECT_EQ(Told(1), Verdict::Kind::kReleased);
}

TEST_F(FeedTest, ACutOffConsumerIsToldWhy) {
  const auto service = ServeFeed();
  const auto receiver = Pull(*service);
  Give("a");
  const auto exchange = receiver->Receive(5s);
  ASSERT_TRUE(exchange.ok());
  outlet_->Close("amqp:resource-limit-exceeded", "too slow");
  EXPECT_EQ(Told(0), Verdict::Kind::kLost);
  EXPECT_TRUE(board_.Await([&] { return detached_ == 1; }));
}

TEST_F(FeedTest, AServiceThatStopsWaitsForWhatConsumersHave) {
  const auto service = ServeFeed();
  const auto receiver = Pull(*service);
  Give("a");
  auto exchange = receiver->Receive(5s);
  ASSERT_TRUE(exchange.ok());
  auto stopped = std::async([&] { service->Stop(10s); });
  AwaitCredit(0);
  EXPECT_EQ(stopped.wait_for(50ms), std::future_status::timeout);
  Give("b");
  EXPECT_EQ(Told(0), Verdict::Kind::kReleased) << "it gives no more";
  exchange->Accept();
  EXPECT_EQ(Told(1), Verdict::Kind::kAccepted);
  stopped.get();
  EXPECT_TRUE(board_.Await([&] { return detached_ == 1; }));
}

TEST_F(FeedTest, AReceiverMovesOffAnEndpointThatDrainsOnceItHasAnsweredWhatItHas) {
  const auto first = ServeFeed(), second = ServeFeed();
  FakeResolver resolver;
  amqp::Io io;
  auto links = std::make_shared<Links>(io, "t");
  resolver.Set({first->url()});
  PullReceiver receiver(io, links, ClientOptions{}, Destination::Parse("//demo/x").value(),
                        {.credit = 5});
  receiver.Start(&resolver);
  ASSERT_TRUE(board_.Await([&] { return outlet_ && outlet_->credit() == 5; }));
  const auto old = outlet_;
  Give("1");
  auto exchange = receiver.Receive(5s);
  ASSERT_TRUE(exchange.ok());
  resolver.Set({second->url()}, {first->url()});
  AwaitCredit(0);
  EXPECT_EQ(outlet_, old) << "its message is not answered";
  exchange->Accept();
  EXPECT_EQ(Told(0), Verdict::Kind::kAccepted);
  ASSERT_TRUE(board_.Await([&] { return outlet_ != old && outlet_->credit() == 5; }));
  Give("2");
  auto other = receiver.Receive(5s);
  ASSERT_TRUE(other.ok()) << other.status().ToString();
  EXPECT_EQ(Body(other->message()), "2");
  other->Accept();
  EXPECT_EQ(Told(1), Verdict::Kind::kAccepted);
  receiver.Close();
  links->Close(1s);
  io.Stop();
}

TEST_F(FeedTest, WithoutAFeedThereIsNothingToPull) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  const auto receiver = client_.OpenReceiver(To(*service));
  ASSERT_TRUE(receiver.ok());
  const auto none = (*receiver)->Receive(500ms);
  EXPECT_EQ(none.status().code(), Code::kTimeout);
  EXPECT_NE(none.status().message().find("none are received"), std::string::npos)
      << none.status().message();
}

TEST_F(FeedTest, ADrainGetsWhatIsThereAndThenItsCreditBack) {
  ServiceOptions options;
  options.feed = MakeFeed();
  options.feed.credit = [this](const std::shared_ptr<Outlet>& outlet) {
    board_.Change([&] { outlet_ = outlet; });
    Give("a");
  };
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); }, options);
  amqp::Io io;
  auto hooks = std::make_shared<amqp::Hooks>();
  std::vector<std::string> order;
  hooks->message = [&](proton::delivery& delivery, proton::message& message) {
    delivery.accept();
    board_.Change([&] { order.push_back(Body(message)); });
  };
  hooks->drain_finish = [&](proton::receiver&) {
    board_.Change([&] { order.push_back("drained"); });
  };
  const auto url = EndpointUrl::Parse(service->url()).value();
  const auto peer =
      amqp::Connection::Open(io, {url.host(), url.port()}, {}, hooks, [](const Status&) {});
  peer->Post([&] {
    auto receiver = peer->proton().open_receiver(
        "//demo/x", proton::receiver_options().credit_window(0).auto_accept(false));
    receiver.add_credit(5);
    receiver.drain();
  });
  EXPECT_TRUE(board_.Await([&] { return order.size() >= 2 && order.back() == "drained"; }));
  EXPECT_EQ(order.front(), "a");
  io.Stop();
}

}  // namespace
}  // namespace datawire
