#include <proton/delivery.h>

#include <proton/message_id.hpp>

#include "amqp/native.h"
#include "client_fixture.h"

namespace datawire {
namespace {

using End = DeliveryEnd;
using SenderTest = ClientTest;

TEST_F(SenderTest, WhoLearnsOfAnEndFindsItCountedAndRoomForAnother) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  SenderOptions options;
  options.buffer = 1;
  options.when_full = WhenFull::kFail;
  const auto sender = Open(To(*service), options);
  std::vector<uint64_t> counted;
  std::promise<DeliveryOutcome> last;
  SendOptions then;
  then.done = [&](const DeliveryOutcome& outcome) {
    counted.push_back(sender->counters().accepted);
    if (counted.size() < 20 && outcome.end == End::kAccepted) {
      sender->Send(proton::message("x"), then);
    } else {
      last.set_value(outcome);
    }
  };
  sender->Send(proton::message("x"), then);
  EXPECT_EQ(last.get_future().get().end, End::kAccepted);
  for (size_t i = 0; i < counted.size(); ++i) EXPECT_EQ(counted[i], i + 1);
}

TEST_F(SenderTest, ADoneThatThrowsHarmsNobody) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  const auto sender = Open(To(*service));
  SendOptions options;
  options.done = [](const DeliveryOutcome&) { throw 1; };
  Delivery first = sender->Send(proton::message("x"), options);
  EXPECT_EQ(Outcome(sender->Send(proton::message("y"))).end, End::kAccepted);
  EXPECT_EQ(first.Wait().end, End::kAccepted);
}

TEST_F(SenderTest, AnOutcomeThatThePeerLeavesUnsettledCounts) {
  // As a receiver does whose settle mode is "second": it waits for us to settle.
  std::map<std::string, uint64_t> outcomes{
      {"accept", PN_ACCEPTED}, {"reject", PN_REJECTED}, {"release", PN_RELEASED}};
  std::atomic<int> settled_by_us = 0;
  RawPeer peer([&](int, amqp::Hooks& hooks) {
    hooks.receiver_open = Takes(10);
    hooks.message = [&, released = false](proton::delivery& delivery,
                                          proton::message& message) mutable {
      uint64_t outcome = outcomes.at(Body(message));
      if (outcome == PN_RELEASED && std::exchange(released, true)) outcome = PN_ACCEPTED;
      pn_delivery_update(amqp::native::Of(delivery), outcome);
    };
    hooks.delivery_settle = [&](proton::delivery&) { ++settled_by_us; };
  });
  const auto sender = Open(peer.url());
  EXPECT_EQ(Outcome(sender->Send(proton::message("accept"))).end, End::kAccepted);
  EXPECT_EQ(Outcome(sender->Send(proton::message("reject"))).end, End::kRejected);
  const DeliveryOutcome again = Outcome(sender->Send(proton::message("release")));
  EXPECT_EQ(again.end, End::kAccepted);
  EXPECT_EQ(again.attempts, 2u);
  const BootTime until = BootClock::now() + 10s;
  while (settled_by_us < 4 && BootClock::now() < until) std::this_thread::yield();
  EXPECT_EQ(settled_by_us, 4);
}

TEST_F(SenderTest, SettledWithoutAnOutcomeIsSentAgain) {
  std::vector<uint32_t> counts;
  RawPeer peer([&](int, amqp::Hooks& hooks) {
    hooks.receiver_open = Takes(10);
    hooks.message = [&](proton::delivery& delivery, proton::message& message) {
      board_.Change([&] { counts.push_back(message.delivery_count()); });
      if (counts.size() == 1) return delivery.settle();
      delivery.accept();
    };
  });
  EXPECT_EQ(Outcome(Open(peer.url())->Send(proton::message("x"))).end, End::kAccepted);
  EXPECT_EQ(counts, (std::vector<uint32_t>{0, 1})) << "nobody knows what became of the first";
}

TEST_F(SenderTest, LinkLossMidStreamLosesNothing) {
  std::mutex mutex;
  std::map<std::string, int> seen;
  const auto take = [&](Exchange exchange) {
    {
      const std::lock_guard lock(mutex);
      ++seen[Body(exchange.message())];
    }
    exchange.Accept();
  };
  RawPeer victim([&](int, amqp::Hooks& hooks) {
    hooks.receiver_open = Takes(50);  // takes 50 and settles none
  });
  const auto service = Serve(take);
  FakeResolver resolver;
  resolver.Set({service->url(), victim.url("")});
  amqp::Io io;
  auto shell =
      std::make_shared<SenderShell>(io, std::make_shared<Links>(io, "t"), ClientOptions{},
                                    Destination::Parse("//demo/x").value(), SenderOptions{}, false);
  shell->Start(&resolver);
  const BootTime until = BootClock::now() + 5s;
  std::vector<Delivery> deliveries;
  for (int i = 0; i < 500; ++i) {
    deliveries.push_back(shell->Send(proton::message("m" + std::to_string(i)), {}));
    while (shell->counters().links_opened < 2 && BootClock::now() < until) {
      std::this_thread::yield();  // the first opens them
    }
  }
  while (shell->counters().accepted < 450 && BootClock::now() < until) std::this_thread::yield();
  victim.Close();
  victim.AbortAll();
  uint32_t twice = 0;
  for (Delivery& delivery : deliveries) {
    EXPECT_EQ(delivery.Wait().end, End::kAccepted);
    twice += delivery.Wait().attempts > 1;
  }
  EXPECT_GT(twice, 0u);
  EXPECT_EQ(shell->counters().redelivered, twice);
  EXPECT_EQ(seen.size(), 500u);
  EXPECT_TRUE(shell->Close(0ms).empty());
  shell.reset();
  io.Stop();
}

TEST_F(SenderTest, AfterALossTheMessageIdIsTheSameAndTheCountIsOneMore) {
  std::vector<std::pair<std::string, uint32_t>> got;
  RawPeer* self = nullptr;
  RawPeer peer([&](int number, amqp::Hooks& hooks) {
    hooks.receiver_open = Takes(10);
    hooks.message = [&, number](proton::delivery& delivery, proton::message& message) {
      board_.Change(
          [&] { got.emplace_back(proton::to_string(message.id()), message.delivery_count()); });
      if (number == 0) return self->AbortAll();
      delivery.accept();
    };
  });
  self = &peer;
  EXPECT_EQ(Outcome(Open(peer.url())->Send(proton::message("x"))).attempts, 2u);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_FALSE(got[0].first.empty());
  EXPECT_EQ(got[0].first, got[1].first);
  EXPECT_EQ(got[0].second, 0u);
  EXPECT_EQ(got[1].second, 1u);
}

TEST_F(SenderTest, AFrozenPeerIsNoticedInTwoSecondsAndItsMessagesGoElsewhere) {
  std::promise<void> thaw;
  std::shared_future<void> thawed = thaw.get_future().share();
  RawPeer frozen([&](int, amqp::Hooks& hooks) {
    hooks.receiver_open = Takes(10);
    hooks.message = [&](proton::delivery&, proton::message&) { thawed.wait(); };
  });
  FakeResolver resolver;
  resolver.Set({frozen.url("")});
  amqp::Io io;
  auto shell =
      std::make_shared<SenderShell>(io, std::make_shared<Links>(io, "t"), ClientOptions{},
                                    Destination::Parse("//demo/x").value(), SenderOptions{}, false);
  shell->Start(&resolver);
  Delivery delivery = shell->Send(proton::message("x"), {});
  const BootTime sent = BootClock::now();
  while (shell->counters().sent == 0 && BootClock::now() < sent + 5s) std::this_thread::yield();
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  resolver.Set({frozen.url(""), service->url()});
  const DeliveryOutcome& outcome = delivery.Wait();
  EXPECT_EQ(outcome.end, End::kAccepted);
  EXPECT_EQ(outcome.peer, service->url());
  EXPECT_LT(BootClock::now() - sent, 3s);
  thaw.set_value();
  shell->Close(0ms);
  shell.reset();
  io.Stop();
}

TEST_F(SenderTest, RefusedConnectionIsMaskedAtOnce) {
  uint16_t dead = 0;
  {
    RawPeer gone([](int, amqp::Hooks&) {});
    dead = gone.port();
  }
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  FakeResolver resolver;
  amqp::Io io;
  auto shell =
      std::make_shared<SenderShell>(io, std::make_shared<Links>(io, "t"), ClientOptions{},
                                    Destination::Parse("//demo/x").value(), SenderOptions{}, false);
  shell->Start(&resolver);
  std::vector<Delivery> deliveries;
  for (int i = 0; i < 50; ++i) deliveries.push_back(shell->Send(proton::message("x"), {}));
  const BootTime start = BootClock::now();
  resolver.Set({"amqp://127.0.0.1:" + std::to_string(dead), service->url()});
  for (Delivery& delivery : deliveries) EXPECT_EQ(delivery.Wait().end, End::kAccepted);
  EXPECT_LT(BootClock::now() - start, 1s);
  shell->Close(0ms);
  shell.reset();
  io.Stop();
}

TEST_F(SenderTest, TagsAreUniqueAndCreditIsKept) {
  std::set<proton::binary> tags;
  std::vector<proton::delivery> held;
  size_t most = 0, got = 0;
  proton::receiver link;
  RawPeer peer([&](int, amqp::Hooks& hooks) {
    hooks.receiver_open = [&](proton::receiver& receiver) {
      Takes(7)(receiver);
      board_.Change([&] { link = receiver; });
    };
    hooks.message = [&](proton::delivery& delivery, proton::message&) {
      board_.Change([&] {
        EXPECT_TRUE(tags.insert(delivery.tag()).second);
        held.push_back(delivery);
        most = std::max(most, held.size());
        if (held.size() < 7 && got + held.size() < 100) return;
        got += held.size();
        for (proton::delivery& d : held) d.accept();
        link.add_credit(static_cast<uint32_t>(held.size()));
        held.clear();
      });
    };
    hooks.receiver_close = [&](proton::receiver&) {
      board_.Change([&] { link = proton::receiver(); });
    };
  });
  const auto sender = Open(peer.url());
  std::vector<Delivery> deliveries;
  for (int i = 0; i < 100; ++i) deliveries.push_back(sender->Send(proton::message("x")));
  for (Delivery& delivery : deliveries) EXPECT_EQ(delivery.Wait().end, End::kAccepted);
  EXPECT_EQ(most, 7u);
  EXPECT_EQ(tags.size(), 100u);
  sender->Close(0ms);
  EXPECT_TRUE(board_.Await([&] { return !link; }));
}

TEST_F(SenderTest, AFullBufferFailsOrBlocks) {
  std::mutex mutex;
  std::vector<Exchange> held;
  const auto service = Serve([&](Exchange exchange) {
    const std::lock_guard lock(mutex);
    held.push_back(std::move(exchange));
  });
  SenderOptions options;
  options.buffer = 3;
  options.when_full = WhenFull::kFail;
  const auto failing = Open(To(*service), options);
  for (int i = 0; i < 3; ++i) failing->Send(proton::message("x"));
  const DeliveryOutcome full = Outcome(failing->Send(proton::message("x")));
  EXPECT_EQ(full.end, End::kNotSent);
  EXPECT_EQ(full.condition, "amqp:resource-limit-exceeded");

  options.when_full = WhenFull::kBlock;
  const auto blocking = Open(To(*service), options);
  for (int i = 0; i < 3; ++i) blocking->Send(proton::message("x"));
  const BootTime start = BootClock::now();
  EXPECT_EQ(Outcome(blocking->Send(proton::message("x"), Within(100ms))).end, End::kNotSent);
  EXPECT_GE(BootClock::now() - start, 100ms);
  auto sent = std::async([&] { return Outcome(blocking->Send(proton::message("y"))).end; });
  while (sent.wait_for(1ms) != std::future_status::ready) {
    const std::lock_guard lock(mutex);
    for (Exchange& exchange : held) exchange.Accept();
    held.clear();
  }
  EXPECT_EQ(sent.get(), End::kAccepted);
}

TEST_F(SenderTest, AFullBufferDropsTheOldestThatNoPeerHas) {
  std::mutex mutex;
  std::vector<Exchange> held;
  const auto service = Serve(
      [&](Exchange exchange) {
        const std::lock_guard lock(mutex);
        held.push_back(std::move(exchange));
      },
      {.credit = 1});
  SenderOptions options;
  options.buffer = 3;
  options.when_full = WhenFull::kDropOldest;
  const auto sender = Open(To(*service), options);
  std::vector<Delivery> sent;
  sent.push_back(sender->Send(proton::message("0")));
  const BootTime until = BootClock::now() + 10s;
  while (sender->counters().sent < 1 && BootClock::now() < until) std::this_thread::yield();
  for (int i = 1; i < 100; ++i) sent.push_back(sender->Send(proton::message(std::to_string(i))));
  for (size_t i = 1; i < 98; ++i) {
    EXPECT_EQ(sent[i].Wait().end, End::kNotSent) << i;
    EXPECT_NE(sent[i].Wait().description.find("newer"), std::string::npos);
  }
  const auto accept_all = [&] {
    const std::lock_guard lock(mutex);
    for (Exchange& exchange : held) exchange.Accept();
    held.clear();
  };
  for (const size_t i : {size_t{0}, size_t{98}, size_t{99}}) {
    while (!sent[i].Poll()) accept_all();
    EXPECT_EQ(sent[i].Wait().end, End::kAccepted) << i;
  }
}

TEST_F(SenderTest, ABufferIsFullByBytesToo) {
  SenderOptions options;
  options.buffer_bytes = 10'000;
  options.when_full = WhenFull::kFail;
  const auto failing = Open("amqp://127.0.0.1:1/n", options);
  const std::string body(4'000, 'x');
  std::vector<Delivery> sent;
  for (int i = 0; i < 3; ++i) sent.push_back(failing->Send(proton::message(body)));
  const DeliveryOutcome full = Outcome(failing->Send(proton::message("x")));
  EXPECT_EQ(full.end, End::kNotSent);
  EXPECT_NE(full.description.find("10000 bytes"), std::string::npos) << full.description;
  for (Delivery& delivery : sent) EXPECT_FALSE(delivery.Poll());

  options.when_full = WhenFull::kDropOldest;
  const auto dropping = Open("amqp://127.0.0.1:1/n", options);
  sent.clear();
  for (int i = 0; i < 10; ++i) sent.push_back(dropping->Send(proton::message(body)));
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(sent[i].Wait().end, End::kNotSent) << i;
  for (size_t i = 8; i < 10; ++i) EXPECT_FALSE(sent[i].Poll()) << i;
}

TEST_F(SenderTest, WithAllAtPeersTheNewOneIsDropped) {
  std::mutex mutex;
  std::vector<Exchange> held;
  const auto service = Serve([&](Exchange exchange) {
    const std::lock_guard lock(mutex);
    held.push_back(std::move(exchange));
  });
  SenderOptions options;
  options.buffer = 2;
  options.when_full = WhenFull::kDropOldest;
  const auto sender = Open(To(*service), options);
  for (int i = 0; i < 2; ++i) sender->Send(proton::message("x"));
  const BootTime until = BootClock::now() + 10s;
  while (sender->counters().sent < 2 && BootClock::now() < until) std::this_thread::yield();
  EXPECT_EQ(Outcome(sender->Send(proton::message("y"))).end, End::kNotSent);
  EXPECT_EQ(sender->counters().sent, 2u);
}

TEST_F(SenderTest, CancelEndsADelivery) {
  std::promise<Exchange> given;
  const auto service = Serve([&](Exchange exchange) { given.set_value(std::move(exchange)); });
  const auto nobody = Open("amqp://127.0.0.1:1/n");
  Delivery waits = nobody->Send(proton::message("x"));
  waits.Cancel();
  EXPECT_EQ(waits.Wait().end, End::kNotSent);
  EXPECT_NE(waits.Wait().description.find("cancelled"), std::string::npos);
  const auto sender = Open(To(*service));
  Delivery there = sender->Send(proton::message("x"));
  Exchange exchange = given.get_future().get();
  there.Cancel();
  EXPECT_EQ(there.Wait().end, End::kOutcomeUnknown);
  exchange.Accept();
  there.Cancel();
}

TEST_F(SenderTest, AStoppedSinkStopsTheSource) {
  std::atomic<int> came = 0;
  std::mutex mutex;
  std::vector<Exchange> held;
  ServiceOptions options;
  options.credit = 10;
  const auto service = Serve(
      [&](Exchange exchange) {
        const std::lock_guard lock(mutex);
        held.push_back(std::move(exchange));
        ++came;
      },
      options);
  const auto sender = Open(To(*service));
  for (int i = 0; i < 100; ++i) sender->Send(proton::message("x"));
  const BootTime until = BootClock::now() + 5s;
  while (came < 10 && BootClock::now() < until) std::this_thread::yield();
  EXPECT_EQ(Outcome(sender->Send(proton::message("late"), Within(200ms))).end, End::kNotSent);
  EXPECT_EQ(came, 10) << "no more than its credit";
  {
    const std::lock_guard lock(mutex);
    held.clear();
  }
  sender->Close(0ms);
}

TEST_F(SenderTest, CloseReturnsWhatIsNotSettledInTheOrderSent) {
  std::promise<Exchange> given;
  ServiceOptions options;
  options.credit = 1;
  const auto service =
      Serve([&](Exchange exchange) { given.set_value(std::move(exchange)); }, options);
  const auto sender = Open(To(*service));
  Delivery sent = sender->Send(proton::message("a"));
  Delivery waits = sender->Send(proton::message("b"));
  const Exchange exchange = given.get_future().get();
  const auto left = sender->Close(10ms);
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(Body(left[0]), "a");
  EXPECT_EQ(Body(left[1]), "b");
  EXPECT_EQ(sent.Wait().end, End::kOutcomeUnknown);
  EXPECT_EQ(waits.Wait().end, End::kNotSent);
  EXPECT_EQ(Outcome(sender->Send(proton::message("c"))).end, End::kNotSent);
  EXPECT_TRUE(sender->Close(1s).empty());
}

TEST_F(SenderTest, WhenCloseReturnsEveryDeliveryHasEnded) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  for (int round = 0; round < 10; ++round) {
    const auto sender = Open(To(*service));
    std::atomic<int> taken = 0, done = 0;
    std::atomic<bool> closed = false;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        SendOptions options;
        options.done = [&](const DeliveryOutcome&) { ++done; };
        while (!closed) {
          ++taken;
          sender->Send(proton::message("x"), options);
        }
      });
    }
    const BootTime until = BootClock::now() + 10s;
    while (done < 100 && BootClock::now() < until) std::this_thread::yield();
    sender->Close(0ms);
    closed = true;
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(done, taken) << "a message was taken while the sender closed";
  }
}

TEST_F(SenderTest, CloseWaitsForEndsThatTakeTheirTime) {
  const auto service = Serve([](Exchange) {});
  const auto sender = Open(To(*service));
  std::atomic<bool> done = false;
  SendOptions options;
  options.done = [&](const DeliveryOutcome&) {
    std::promise<void> never;
    never.get_future().wait_for(1500ms);
    done = true;
  };
  sender->Send(proton::message("x"), options);
  sender->Close(0ms);
  EXPECT_TRUE(done);
}

TEST_F(SenderTest, PresettledIsAcceptedWhenWritten) {
  std::atomic<int> came = 0;
  const auto service = Serve([&](Exchange exchange) {
    exchange.Reject("nobody hears this");
    ++came;
  });
  SenderOptions options;
  options.settlement = Settlement::kAtMostOnce;
  const auto sender = Open(To(*service), options);
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(Outcome(sender->Send(proton::message("x"))).end, End::kAccepted);
  }
  const BootTime until = BootClock::now() + 5s;
  while (came < 300 && BootClock::now() < until) std::this_thread::yield();
  EXPECT_EQ(came, 300);
}

TEST_F(SenderTest, AMessageOverTheLimitIsRefusedWithTheRule) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  const auto sender = Open(To(*service));
  const DeliveryOutcome outcome =
      Outcome(sender->Send(proton::message(std::string(2'000'000, 'x'))));
  EXPECT_EQ(outcome.end, End::kNotSent);
  EXPECT_NE(outcome.description.find("at most 1048576"), std::string::npos);
  EXPECT_EQ(Outcome(sender->Send(proton::message(std::string(1'000'000, 'x')))).end,
            End::kAccepted);
}

TEST_F(SenderTest, AMessageOverThePeersLimitIsRejected) {
  RawPeer peer([&](int, amqp::Hooks& hooks) {
    hooks.receiver_open = [](proton::receiver& receiver) {
      amqp::SetMaxMessageSize(receiver, 1000);
      Takes(1)(receiver);
    };
    hooks.message = [](proton::delivery& delivery, proton::message&) { delivery.accept(); };
  });
  const auto sender = Open(peer.url());
  const DeliveryOutcome outcome = Outcome(sender->Send(proton::message(std::string(2000, 'x'))));
  EXPECT_EQ(outcome.end, End::kRejected);
  EXPECT_EQ(outcome.condition, "amqp:link:message-size-exceeded");
  EXPECT_NE(outcome.description.find("at most 1000"), std::string::npos) << outcome.description;
  EXPECT_EQ(Outcome(sender->Send(proton::message("x"))).end, End::kAccepted)
      << "its credit was not used up";
}

TEST_F(SenderTest, ASessionThatThePeerClosesIsALostLink) {
  RawPeer peer([&](int number, amqp::Hooks& hooks) {
    hooks.receiver_open = Takes(10);
    hooks.message = [number](proton::delivery& delivery, proton::message&) {
      if (number == 0) return delivery.session().close();
      delivery.accept();
    };
  });
  const DeliveryOutcome outcome = Outcome(Open(peer.url())->Send(proton::message("x")));
  EXPECT_EQ(outcome.end, End::kAccepted);
  EXPECT_EQ(outcome.attempts, 2u);
}

TEST_F(SenderTest, APeerThatDrainsGetsItsCreditBackAndMayGiveMore) {
  int drained = 0;
  RawPeer peer([&](int, amqp::Hooks& hooks) {
    hooks.receiver_open = [](proton::receiver& receiver) {
      Takes(5)(receiver);
      receiver.drain();
    };
    hooks.message = [](proton::delivery& delivery, proton::message&) { delivery.accept(); };
    hooks.drain_finish = [&](proton::receiver& receiver) {
      board_.Change([&] { ++drained; });
      receiver.add_credit(1);
    };
  });
  const auto sender = Open(peer.url());
  Delivery delivery = sender->Send(proton::message("x"));
  EXPECT_TRUE(board_.Await([&] { return drained == 1; }));
  EXPECT_EQ(delivery.Wait().end, End::kAccepted);
}

TEST_F(SenderTest, SendersToOnePeerShareItsConnection) {
  RawPeer peer([&](int, amqp::Hooks& hooks) {
    hooks.receiver_open = Takes(10);
    hooks.message = [](proton::delivery& delivery, proton::message&) { delivery.accept(); };
  });
  std::vector<std::unique_ptr<Sender>> senders;
  for (int i = 0; i < 20; ++i) {
    senders.push_back(Open(peer.url("n" + std::to_string(i))));
    EXPECT_EQ(Outcome(senders.back()->Send(proton::message("x"))).end, End::kAccepted);
  }
  EXPECT_EQ(peer.connections(), 1);
}

TEST_F(SenderTest, ManyThreadsSendAndAllIsSettled) {
  std::atomic<int> came = 0;
  const auto service = Serve([&](Exchange exchange) {
    ++came;
    exchange.Accept();
  });
  const auto sender = Open(To(*service));
  std::atomic<int> done = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        SendOptions options;
        options.done = [&](const DeliveryOutcome& outcome) {
          done += outcome.end == End::kAccepted;
        };
        sender->Send(proton::message("x"), options);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(sender->Close(5s).empty());
  EXPECT_EQ(done, 4000);
  EXPECT_EQ(came, 4000);
}

}  // namespace
}  // namespace datawire
