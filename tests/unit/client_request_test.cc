#include <proton/message_id.hpp>
#include <proton/sender_options.hpp>
#include <proton/source_options.hpp>
#include <set>

#include "client_fixture.h"

namespace datawire {
namespace {

using RequestTest = ClientTest;

TEST_F(RequestTest, RepliesComeBackToWhoAsked) {
  const auto service = Serve([](Exchange exchange) {
    EXPECT_TRUE(exchange.Reply(proton::message(Body(exchange.message()) + "!")).ok());
  });
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string text = std::to_string(t) + "/" + std::to_string(i);
        const auto reply = client_.Request(To(*service), proton::message(text), 5s);
        right += reply.ok() && Body(*reply) == text + "!";
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 200);
}

TEST_F(RequestTest, ACorrelationIdIsEchoedWithItsType) {
  const auto service = Serve([](Exchange exchange) { (void)exchange.Reply(proton::message("r")); });
  proton::message message("x");
  message.correlation_id(uint64_t{42});
  const auto reply = client_.Request(To(*service), message, 5s);
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(reply->correlation_id(), proton::message_id(uint64_t{42}));
}

TEST_F(RequestTest, RejectedIsDeniedWithTheReason) {
  const auto service = Serve([](Exchange exchange) { exchange.Reject("closed today"); });
  const auto reply = client_.Request(To(*service), proton::message("x"), 5s);
  EXPECT_EQ(reply.status().code(), Code::kDenied);
  EXPECT_NE(reply.status().message().find("closed today"), std::string::npos);
}

TEST_F(RequestTest, AcceptedWithoutReplyIsOutcomeUnknown) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  const auto reply = client_.Request(To(*service), proton::message("x"), 100ms);
  EXPECT_EQ(reply.status().code(), Code::kOutcomeUnknown);
}

TEST_F(RequestTest, NobodyThereIsTimeout) {
  const auto reply = client_.Request("amqp://127.0.0.1:1/x", proton::message("x"), 100ms);
  EXPECT_EQ(reply.status().code(), Code::kTimeout);
}

TEST_F(RequestTest, ReleasedIsSentAgainAndALostOneIsNot) {
  std::atomic<int> came = 0;
  auto service = Serve([&](Exchange exchange) {
    if (++came < 3) return exchange.Release();
    (void)exchange.Reply(proton::message("third"));
  });
  const auto reply = client_.Request(To(*service), proton::message("x"), 5s);
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(Body(*reply), "third");

  std::atomic<int> lost = 0;
  std::promise<Exchange> held;
  auto second = Serve([&](Exchange exchange) {
    ++lost;
    held.set_value(std::move(exchange));
  });
  auto asked = std::async([&] { return client_.Request(To(*second), proton::message("x"), 5s); });
  Exchange exchange = held.get_future().get();
  second->Stop(0ms);
  EXPECT_EQ(asked.get().status().code(), Code::kOutcomeUnknown);
  EXPECT_EQ(lost, 1);
}

class AsyncTest : public ClientTest {
 protected:
  /// Asks without waiting; how it ended is in `results_`.
  void Ask(const std::string& url, const std::string& body, std::chrono::milliseconds timeout) {
    client_.Request(url, proton::message(body), timeout, [this](Result<proton::message> reply) {
      board_.Change([&] { results_.push_back(std::move(reply)); });
    });
  }
  const Result<proton::message>& Result1() {
    EXPECT_TRUE(board_.Await([&] { return !results_.empty(); }));
    return results_.at(0);
  }
  std::vector<Result<proton::message>> results_;
};

TEST_F(AsyncTest, RepliesComeToTheCallbacks) {
  const auto service = Serve([](Exchange exchange) {
    (void)exchange.Reply(proton::message(Body(exchange.message()) + "!"));
  });
  for (int i = 0; i < 300; ++i) Ask(To(*service), std::to_string(i), 10s);
  ASSERT_TRUE(board_.Await([&] { return results_.size() == 300; }));
  std::set<std::string> bodies;
  for (const auto& reply : results_) {
    ASSERT_TRUE(reply.ok()) << reply.status().ToString();
    bodies.insert(Body(*reply));
  }
  EXPECT_EQ(bodies.size(), 300u);
}

TEST_F(AsyncTest, ACallbackMayAskAgain) {
  const auto service = Serve([](Exchange exchange) { (void)exchange.Reply(proton::message("r")); });
  int left = 100;
  std::function<void(Result<proton::message>)> again = [&](const Result<proton::message>& reply) {
    EXPECT_TRUE(reply.ok());
    bool more = false;
    board_.Change([&] { more = --left > 0; });
    if (more) client_.Request(To(*service), proton::message("x"), 5s, again);
  };
  client_.Request(To(*service), proton::message("x"), 5s, again);
  EXPECT_TRUE(board_.Await([&] { return left == 0; }));
}

TEST_F(AsyncTest, WithoutAReplyItEndsAtItsTimeout) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  const BootTime start = BootClock::now();
  Ask(To(*service), "x", 200ms);
  EXPECT_EQ(Result1().status().code(), Code::kOutcomeUnknown);
  EXPECT_GE(BootClock::now() - start, 200ms);
}

TEST_F(AsyncTest, NobodyThereIsTimeoutAndNonsenseIsInvalid) {
  Ask("amqp://127.0.0.1:1/x", "x", 100ms);
  EXPECT_EQ(Result1().status().code(), Code::kTimeout);
  results_.clear();
  Ask("nonsense", "x", 100ms);
  EXPECT_EQ(Result1().status().code(), Code::kInvalid);
}

TEST_F(AsyncTest, TheClientsEndEndsIt) {
  std::promise<Exchange> given;
  const auto service = Serve([&](Exchange exchange) { given.set_value(std::move(exchange)); });
  {
    Client client(Options());
    client.Request(To(*service), proton::message("x"), 30s, [this](Result<proton::message> reply) {
      board_.Change([&] { results_.push_back(std::move(reply)); });
    });
    given.get_future().get().Accept();
  }
  EXPECT_EQ(Result1().status().code(), Code::kOutcomeUnknown);
}

TEST_F(RequestTest, AHandlerMayItselfRequest) {
  const auto back = Serve([](Exchange exchange) { (void)exchange.Reply(proton::message("deep")); });
  const std::string to = To(*back);
  const auto front = Serve([&](Exchange exchange) {
    auto reply = server_.Request(to, proton::message("x"), 5s);
    (void)exchange.Reply(reply.ok() ? *reply : proton::message(reply.status().ToString()));
  });
  const auto reply = client_.Request(To(*front), proton::message("x"), 5s);
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(Body(*reply), "deep");
}

TEST_F(RequestTest, AReplyToOfAnotherConnectionIsRefusedAndNoneIsInvalid) {
  std::promise<Status> told;
  std::promise<Status> none;
  const auto service = Serve([&](Exchange exchange) {
    const bool asks = !exchange.message().reply_to().empty();
    (asks ? told : none).set_value(exchange.Reply(proton::message("x")));
  });
  const auto sender = Open(To(*service));
  proton::message message("x");
  message.reply_to("reply-of-somebody-else");
  EXPECT_EQ(Outcome(sender->Send(message)).end, DeliveryEnd::kAccepted);
  EXPECT_EQ(told.get_future().get().code(), Code::kInvalid);
  EXPECT_EQ(Outcome(sender->Send(proton::message("x"))).end, DeliveryEnd::kAccepted);
  EXPECT_EQ(none.get_future().get().code(), Code::kInvalid);
}

/// A peer that sends numbers as credit allows, and notes how they are settled.
class Feed {
 public:
  explicit Feed(Board& board)
      : board_(board), peer_([this](int, amqp::Hooks& hooks) { Prepare(hooks); }) {}
  RawPeer& peer() { return peer_; }

  // Under the board.
  std::map<uint64_t, amqp::RemoteOutcome::Kind> settled;  // by number
  int sent = 0;
  int answered = 0;  // the test's: messages it has begun to answer
  int most = 0;      // ever sent and not begun to be answered; the link's credit bounds it

 private:
  void Prepare(amqp::Hooks& hooks) {
    hooks.sender_open = [](proton::sender& sender) {
      proton::source_options source;
      source.address(sender.source().address());
      sender.open(proton::sender_options().source(source));
    };
    hooks.sendable = [this](proton::sender& sender) {
      while (sender.credit() > 0) {
        const uint64_t n = next_++;
        (void)amqp::Send(sender, proton::message("f" + std::to_string(n)), n + 1);
        board_.Change([&] { most = std::max(most, ++sent - answered); });
      }
    };
    hooks.settled = [this](proton::tracker& tracker) {
      board_.Change([&] { settled[amqp::TagOf(tracker) - 1] = amqp::Outcome(tracker).kind; });
    };
  }
  Board& board_;
  uint64_t next_ = 0;
  RawPeer peer_;
};

TEST_F(RequestTest, AReceiverPullsAndSettlesWithinItsCredit) {
  Feed feed(board_);
  auto receiver = client_.OpenReceiver(feed.peer().url("feed"), {.credit = 5});
  ASSERT_TRUE(receiver.ok());
  const auto next = [&] {
    auto exchange = (*receiver)->Receive(10s);
    EXPECT_TRUE(exchange.ok()) << exchange.status().ToString();
    board_.Change([&] { ++feed.answered; });
    return std::move(exchange).value();
  };
  for (int i = 0; i < 50; ++i) {
    Exchange exchange = next();
    EXPECT_EQ(Body(exchange.message()), "f" + std::to_string(i));
    if (i % 5 == 1) {
      exchange.Reject("bad");
    } else if (i % 5 == 2) {
      exchange.Release();
    } else if (i % 5 == 3) {
      const Exchange dropped = std::move(exchange);
    } else {
      exchange.Accept();
    }
  }
  EXPECT_TRUE(board_.Await([&] { return feed.settled.size() == 50; }));
  using Kind = amqp::RemoteOutcome::Kind;
  const Kind expected[] = {Kind::kAccepted, Kind::kRejected, Kind::kReleased, Kind::kReleased,
                           Kind::kAccepted};
  board_.Change([&] {
    for (const auto& [n, kind] : feed.settled) EXPECT_EQ(kind, expected[n % 5]) << n;
    EXPECT_LE(feed.most, 5);
  });
}

TEST_F(RequestTest, AReceiverNotPulledFromStopsItsPeer) {
  Feed feed(board_);
  auto receiver = client_.OpenReceiver(feed.peer().url("feed"), {.credit = 5});
  std::vector<Exchange> held;
  for (int i = 0; i < 5; ++i) held.push_back((*receiver)->Receive(10s).value());
  EXPECT_EQ((*receiver)->Receive(100ms).status().code(), Code::kTimeout);
  board_.Change([&] { EXPECT_EQ(feed.sent, 5); });
  board_.Change([&] { feed.answered = 5; });
  held.clear();
  EXPECT_TRUE((*receiver)->Receive(10s).ok());
}

TEST_F(RequestTest, AReceiversLinkComesBackByItselfAndEndsWithClose) {
  Feed feed(board_);
  auto receiver = client_.OpenReceiver(feed.peer().url("feed"), {.credit = 5});
  Exchange before = (*receiver)->Receive(10s).value();
  feed.peer().AbortAll();
  const BootTime until = BootClock::now() + 10s;
  while (feed.peer().connections() < 2 && BootClock::now() < until) std::this_thread::yield();
  const Exchange after = (*receiver)->Receive(10s).value();
  EXPECT_GE(std::stoi(Body(after.message()).substr(1)), 5) << "what the old link left is gone";
  before.Accept();  // nobody hears it: its link is gone
  (*receiver)->Close();
  EXPECT_EQ((*receiver)->Receive(1s).status().code(), Code::kCancelled);
}

TEST_F(RequestTest, AReceiverOfNothingTimesOutWithTheReason) {
  auto receiver = client_.OpenReceiver("amqp://127.0.0.1:1/feed");
  const auto none = (*receiver)->Receive(200ms);
  EXPECT_EQ(none.status().code(), Code::kTimeout);
  EXPECT_NE(none.status().message().find("127.0.0.1:1"), std::string::npos)
      << none.status().message();
}

}  // namespace
}  // namespace datawire
