#include "datawire/stage.h"

#include <proton/annotation_key.hpp>
#include <proton/message_id.hpp>

#include "client_fixture.h"

namespace datawire {
namespace {

using End = DeliveryEnd;

class StageTest : public ClientTest {
 protected:
  /// A sink that keeps what it is sent, and does with it what `how` says.
  struct Sink {
    std::mutex mutex;
    std::vector<proton::message> messages;
    std::vector<Exchange> held;
    std::function<void(Exchange)> how = [](Exchange exchange) { exchange.Accept(); };

    void Take(Exchange exchange) {
      {
        const std::lock_guard lock(mutex);
        messages.push_back(exchange.message());
      }
      how(std::move(exchange));
    }
    size_t count() {
      const std::lock_guard lock(mutex);
      return messages.size();
    }
  };
  std::unique_ptr<Service> Serve(Sink& sink, ServiceOptions options = {}) {
    return ClientTest::Serve([&sink](Exchange exchange) { sink.Take(std::move(exchange)); },
                             std::move(options));
  }
};

TEST_F(StageTest, InputIsAcceptedOnceAllOutputsAre) {
  Sink a, b;
  std::promise<Exchange> held;
  b.how = [&](Exchange exchange) { held.set_value(std::move(exchange)); };
  const auto to_a = Serve(a), to_b = Serve(b);
  const auto out_a = Open(To(*to_a)), out_b = Open(To(*to_b));
  const auto stage = ClientTest::Serve([&](Exchange exchange) {
    proton::message message = exchange.message();
    Forward(std::move(exchange), {{out_a.get(), message}, {out_b.get(), message}});
  });
  const auto sender = Open(To(*stage));
  Delivery delivery = sender->Send(proton::message("x"));
  Exchange at_b = held.get_future().get();
  EXPECT_FALSE(delivery.Poll()) << "b has not settled it";
  at_b.Accept();
  EXPECT_EQ(delivery.Wait().end, End::kAccepted);
  EXPECT_EQ(a.count(), 1u);
}

TEST_F(StageTest, OneRejectedOutputRejectsTheInputWithItsWords) {
  Sink a, b;
  b.how = [](Exchange exchange) { exchange.Reject("no such colour"); };
  const auto to_a = Serve(a), to_b = Serve(b);
  const auto out_a = Open(To(*to_a)), out_b = Open(To(*to_b));
  const auto stage = ClientTest::Serve([&](Exchange exchange) {
    proton::message message = exchange.message();
    Forward(std::move(exchange), {{out_b.get(), message}, {out_a.get(), message}});
  });
  const DeliveryOutcome outcome = Outcome(Open(To(*stage))->Send(proton::message("x")));
  EXPECT_EQ(outcome.end, End::kRejected);
  EXPECT_EQ(outcome.description, "no such colour");
}

TEST_F(StageTest, AnOutputThatIsNotSentGivesTheInputBack) {
  const auto nowhere = Open("amqp://127.0.0.1:1/n", {.deadline = 100ms});
  std::atomic<int> tries = 0;
  Sink sink;
  const auto to_sink = Serve(sink);
  const auto out = Open(To(*to_sink));
  const auto stage = ClientTest::Serve([&](Exchange exchange) {
    proton::message message = exchange.message();
    Forward(std::move(exchange), {{++tries == 1 ? nowhere.get() : out.get(), message}});
  });
  const DeliveryOutcome outcome = Outcome(Open(To(*stage))->Send(proton::message("x")));
  EXPECT_EQ(outcome.end, End::kAccepted);
  EXPECT_EQ(outcome.attempts, 2u);
}

TEST_F(StageTest, NoOutputsIsAccepted) {
  const auto stage =
      ClientTest::Serve([&](Exchange exchange) { Forward(std::move(exchange), {}); });
  EXPECT_EQ(Outcome(Open(To(*stage))->Send(proton::message("x"))).end, End::kAccepted);
}

TEST_F(StageTest, OutputsCarryOnTheInputsIdAndTrace) {
  Sink sink;
  const auto to_sink = Serve(sink);
  const auto out = Open(To(*to_sink));
  const auto stage = ClientTest::Serve([&](Exchange exchange) {
    proton::message own("own");
    own.id(std::string("its-own"));
    Forward(
        std::move(exchange),
        {{out.get(), proton::message("a")}, {out.get(), proton::message("b")}, {out.get(), own}});
  });
  proton::message message("x");
  message.id(std::string("order-7"));
  const std::string trace = NewTraceparent();
  SetTraceparent(message, trace);
  ASSERT_EQ(Outcome(Open(To(*stage))->Send(message)).end, End::kAccepted);
  std::map<std::string, std::string> ids;
  for (const proton::message& one : sink.messages) {
    ids[Body(one)] = proton::to_string(one.id());
    EXPECT_EQ(TraceparentOf(one), trace);
  }
  EXPECT_EQ(ids, (std::map<std::string, std::string>{
                     {"a", "order-7"}, {"b", "order-7/2"}, {"own", "its-own"}}));
}

TEST_F(StageTest, AStoppedSinkStopsTheSourceThroughAStage) {
  Sink sink;
  sink.how = [&](Exchange exchange) {
    const std::lock_guard lock(sink.mutex);
    sink.held.push_back(std::move(exchange));
  };
  const auto to_sink = Serve(sink, {.credit = 5});
  const auto out = Open(To(*to_sink), {.buffer = 10});
  const auto stage = ClientTest::Serve(
      [&](Exchange exchange) {
        proton::message message = exchange.message();
        Forward(std::move(exchange), {{out.get(), std::move(message)}});
      },
      {.credit = 20});
  const auto source = Open(To(*stage), {.when_full = WhenFull::kFail, .buffer = 50});
  std::vector<Delivery> sent;
  for (int i = 0; i < 50; ++i) sent.push_back(source->Send(proton::message("x")));
  // 5 with the sink, 10 in the stage's buffer, one more in its handler, the rest of its credit.
  const BootTime until = BootClock::now() + 10s;
  while ((source->counters().sent < 20 || sink.count() < 5) && BootClock::now() < until)
    std::this_thread::yield();
  EXPECT_EQ(Outcome(source->Send(proton::message("y"))).end, End::kNotSent) << "its buffer is full";
  EXPECT_EQ(source->counters().sent, 20u);
  EXPECT_EQ(sink.count(), 5u);
  sink.how = [](Exchange exchange) { exchange.Accept(); };
  {
    const std::lock_guard lock(sink.mutex);
    for (Exchange& exchange : sink.held) exchange.Accept();
  }
  for (Delivery& delivery : sent) EXPECT_EQ(delivery.Wait().end, End::kAccepted);
}

TEST_F(StageTest, WhatFailsTooOftenGoesToTheDeadLetterAddressWithTheReason) {
  Sink dead;
  const auto to_dead = Serve(dead);
  std::atomic<int> tries = 0;
  ServiceOptions options;
  options.tries = 3;
  options.dead_letter = To(*to_dead);
  const auto service = ClientTest::Serve(
      [&](Exchange exchange) {
        if (Body(exchange.message()) == "good") return exchange.Accept();
        if (++tries == 2) return exchange.Fail("by a call");
        throw std::runtime_error("no such colour");
      },
      options);
  const auto sender = Open(To(*service));
  proton::message poison("poison");
  poison.ttl(proton::duration(20'000));
  const DeliveryOutcome outcome = Outcome(sender->Send(poison));
  EXPECT_EQ(outcome.end, End::kAccepted) << "the dead-letter address has it";
  EXPECT_EQ(outcome.attempts, 3u);
  EXPECT_EQ(tries, 3);
  ASSERT_EQ(dead.count(), 1u);
  proton::message& message = dead.messages[0];
  EXPECT_EQ(Body(message), "poison");
  EXPECT_EQ(message.delivery_count(), 0u);
  EXPECT_EQ(message.ttl().milliseconds(), 0u) << "it waits for somebody to look at it";
  const auto said = [&message](const char* name) {
    return proton::to_string(
        message.message_annotations().get(proton::annotation_key{proton::symbol(name)}));
  };
  EXPECT_EQ(said("x-opt-dead-reason"), "no such colour");
  EXPECT_EQ(said("x-opt-dead-address"), "//demo/x");
  EXPECT_EQ(said("x-opt-dead-tries"), "3");
  EXPECT_EQ(Outcome(sender->Send(proton::message("good"))).end, End::kAccepted);
}

TEST_F(StageTest, WithoutADeadLetterAddressItIsRejectedWithTheReason) {
  ServiceOptions options;
  options.tries = 2;
  const auto service =
      ClientTest::Serve([&](Exchange exchange) { exchange.Fail("no such colour"); }, options);
  const DeliveryOutcome outcome = Outcome(Open(To(*service))->Send(proton::message("x")));
  EXPECT_EQ(outcome.end, End::kRejected);
  EXPECT_EQ(outcome.condition, "datawire:tried-too-often");
  EXPECT_EQ(outcome.description, "no such colour");
  EXPECT_EQ(outcome.attempts, 2u);
}

TEST_F(StageTest, ADeadLetterThatNobodyTakesIsTriedAgain) {
  std::atomic<int> refused = 0;
  Sink dead;
  dead.how = [&](Exchange exchange) {
    if (++refused == 1) return exchange.Reject("not now");
    exchange.Accept();
  };
  const auto to_dead = Serve(dead);
  ServiceOptions options;
  options.tries = 1;
  options.dead_letter = To(*to_dead);
  const auto service = ClientTest::Serve([&](Exchange exchange) { exchange.Fail("x"); }, options);
  EXPECT_EQ(Outcome(Open(To(*service))->Send(proton::message("x"))).end, End::kAccepted);
  EXPECT_EQ(refused, 2);
}

TEST_F(StageTest, DeadLettersWithoutTriesAreRefused) {
  const auto service = server_.Serve("//demo/x", [](Exchange) {}, {.dead_letter = "//demo/dead"});
  EXPECT_EQ(service.status().code(), Code::kInvalid);
}

TEST_F(StageTest, WhatExpiresBeforeTheHandlerHasItIsRejectedUnseen) {
  std::promise<void> busy, go_on;
  std::atomic<int> seen = 0;
  const auto service = ClientTest::Serve([&](Exchange exchange) {
    if (++seen == 1) {
      busy.set_value();
      go_on.get_future().get();
    }
    exchange.Accept();
  });
  const auto sender = Open(To(*service));
  Delivery first = sender->Send(proton::message("x"));
  busy.get_future().get();
  proton::message mortal("y");
  mortal.ttl(proton::duration(50));
  Delivery second = sender->Send(mortal);
  const BootTime until = BootClock::now() + 200ms;
  while (BootClock::now() < until) std::this_thread::yield();
  go_on.set_value();
  EXPECT_EQ(first.Wait().end, End::kAccepted);
  EXPECT_EQ(second.Wait().end, End::kRejected);
  EXPECT_EQ(second.Wait().condition, "datawire:expired");
  EXPECT_EQ(seen, 1);
}

TEST_F(StageTest, ARequestCarriesItsDeadline) {
  std::promise<uint64_t> ttl;
  const auto service = ClientTest::Serve([&](Exchange exchange) {
    ttl.set_value(exchange.message().ttl().milliseconds());
    (void)exchange.Reply(proton::message("y"));
  });
  ASSERT_TRUE(client_.Request(To(*service), proton::message("x"), 5s).ok());
  const uint64_t left = ttl.get_future().get();
  EXPECT_GT(left, 3'000u);
  EXPECT_LE(left, 5'000u);
}

TEST_F(StageTest, RepliesCarryTheTraceOfTheirRequest) {
  const auto service =
      ClientTest::Serve([](Exchange exchange) { (void)exchange.Reply(proton::message("y")); });
  proton::message request("x");
  const std::string trace = NewTraceparent();
  SetTraceparent(request, trace);
  const auto reply = client_.Request(To(*service), request, 5s);
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(TraceparentOf(*reply), trace);
}

TEST(TraceTest, OnlyWhatTheSpecificationAllowsIsATraceparent) {
  proton::message message;
  EXPECT_EQ(TraceparentOf(message), "");
  EXPECT_EQ(NewTraceparent().size(), 55u);
  EXPECT_NE(NewTraceparent(), NewTraceparent());
  const std::string good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  SetTraceparent(message, good);
  EXPECT_EQ(TraceparentOf(message), good);
  for (const char* bad : {"", "x", "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                          "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                          "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                          "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}) {
    SetTraceparent(message, bad);
    EXPECT_EQ(TraceparentOf(message), "") << bad;
  }
}

TEST(RecentMessagesTest, TheSecondDeliveryIsKnownWithinItsBounds) {
  const BootTime start{1000s};
  RecentMessages recent(3, 10s);
  const auto message = [](const std::string& id) {
    proton::message out("x");
    if (!id.empty()) out.id(id);
    return out;
  };
  EXPECT_TRUE(recent.Begin(message("a"), start));
  EXPECT_FALSE(recent.Begin(message("a"), start + 9s));
  EXPECT_TRUE(recent.Begin(message(""), start));
  EXPECT_TRUE(recent.Begin(message(""), start)) << "without an id it is always new";
  EXPECT_TRUE(recent.Begin(message("a"), start + 10s)) << "too old to be known";
  recent.Forget(message("a"));
  EXPECT_TRUE(recent.Begin(message("a"), start + 10s)) << "it failed the first time";
  for (const char* id : {"b", "c", "d"}) EXPECT_TRUE(recent.Begin(message(id), start + 11s));
  EXPECT_EQ(recent.size(), 3u);
  EXPECT_TRUE(recent.Begin(message("a"), start + 11s)) << "three newer ones came";
  EXPECT_FALSE(recent.Begin(message("d"), start + 11s));
}

}  // namespace
}  // namespace datawire
