#include <array>
#include <proton/message_id.hpp>

#include "client_fixture.h"
#include "service.h"

namespace datawire {
namespace {

using End = DeliveryEnd;

TEST_F(ClientTest, EachWayToSettleReachesTheSender) {
  std::atomic<int> released = 0, thrown = 0;
  const auto service = Serve([&](Exchange exchange) {
    const std::string body = Body(exchange.message());
    if (body == "accept") exchange.Accept();
    if (body == "reject") exchange.Reject("no such order");
    if (body == "release" && ++released == 1) return exchange.Release();
    if (body == "drop" && ++released == 1) return;
    if (body == "throw" && ++thrown == 1) throw std::runtime_error("handler");
    exchange.Accept();
  });
  const auto sender = Open(To(*service));
  EXPECT_EQ(Outcome(sender->Send(proton::message("accept"))).end, End::kAccepted);
  const DeliveryOutcome rejected = Outcome(sender->Send(proton::message("reject")));
  EXPECT_EQ(rejected.end, End::kRejected);
  EXPECT_EQ(rejected.condition, "datawire:rejected");
  EXPECT_EQ(rejected.description, "no such order");
  for (const char* body : {"release", "drop", "throw"}) {
    released = 0;
    const DeliveryOutcome again = Outcome(sender->Send(proton::message(body)));
    EXPECT_EQ(again.end, End::kAccepted) << body;
    EXPECT_EQ(again.attempts, 2u) << body;
  }
  EXPECT_EQ(sender->counters().accepted, 4u);
}

TEST_F(ClientTest, ThrownHandlerIsModifiedFailedAndCounted) {
  std::vector<uint32_t> counts;
  const auto service = Serve([&](Exchange exchange) {
    counts.push_back(exchange.message().delivery_count());
    if (counts.size() < 3) throw 1;
    exchange.Accept();
  });
  EXPECT_EQ(Outcome(Open(To(*service))->Send(proton::message("x"))).end, End::kAccepted);
  EXPECT_EQ(counts, (std::vector<uint32_t>{0, 1, 2}));
}

TEST_F(ClientTest, AGarbageMessageThrowsInTheHandlerAndHarmsNobody) {
  const auto service = Serve([](Exchange exchange) {
    (void)Body(exchange.message());  // throws on the empty value that garbage leaves
    exchange.Accept();
  });
  amqp::Io io;
  std::atomic<int> modified = 0;
  auto hooks = std::make_shared<amqp::Hooks>();
  hooks->sendable = [sent = false](proton::sender& sender) mutable {
    if (!std::exchange(sent, true)) (void)amqp::SendEncoded(sender, "\xff\x13garbage\x01", 1);
  };
  hooks->settled = [&](proton::tracker& tracker) {
    modified += amqp::Outcome(tracker).kind == amqp::RemoteOutcome::Kind::kModified;
  };
  const auto url = EndpointUrl::Parse(service->url()).value();
  const auto hostile = amqp::Connection::Open(io, {url.host(), url.port()}, {}, hooks,
                                              [&](const Status&) { ++modified; });
  hostile->Post([&] { hostile->proton().open_sender("//demo/x"); });
  const auto sender = Open(To(*service));
  EXPECT_EQ(Outcome(sender->Send(proton::message("x"))).end, End::kAccepted);
  const BootTime until = BootClock::now() + 10s;
  while (modified == 0 && BootClock::now() < until) std::this_thread::yield();
  EXPECT_EQ(modified, 1) << "given back, or its connection ended";
  EXPECT_EQ(Outcome(sender->Send(proton::message("x"))).end, End::kAccepted);
  io.Stop();
}

TEST_F(ClientTest, ExchangeIsAnsweredLaterFromAnotherThread) {
  std::promise<Exchange> given;
  const auto service = Serve([&](Exchange exchange) { given.set_value(std::move(exchange)); });
  const auto sender = Open(To(*service));
  Delivery delivery = sender->Send(proton::message("x"));
  Exchange exchange = given.get_future().get();
  EXPECT_EQ(exchange.address(), "//demo/x");
  EXPECT_FALSE(delivery.Poll());
  std::thread([&] { exchange.Accept(); }).join();
  EXPECT_EQ(delivery.Wait().end, End::kAccepted);
  exchange.Reject("twice is once");
}

TEST_F(ClientTest, ADestroyedOrAnsweredExchangeOutlivesItsServiceHarmlessly) {
  std::promise<Exchange> given;
  auto service = Serve([&](Exchange exchange) { given.set_value(std::move(exchange)); });
  const auto sender = Open(To(*service));
  Delivery delivery = sender->Send(proton::message("x"));
  std::optional<Exchange> exchange(given.get_future().get());
  service->Stop(50ms);
  exchange->Accept();
  exchange.reset();
  service.reset();
  EXPECT_EQ(sender->Close(0ms).size(), 1u);
  EXPECT_EQ(delivery.Wait().end, End::kOutcomeUnknown);
}

TEST_F(ClientTest, AttachToAnotherAddressIsRefused) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  const DeliveryOutcome outcome =
      Outcome(Open(To(*service, "//demo/y"))->Send(proton::message("x"), Within(300ms)));
  EXPECT_EQ(outcome.end, End::kNotSent);
  EXPECT_EQ(outcome.condition, "amqp:not-found");
  EXPECT_NE(outcome.description.find("`//demo/y`"), std::string::npos) << outcome.description;
}

TEST_F(ClientTest, LinksAreCountedAndToldOfWhenTheyOpenAndEnd) {
  std::vector<LinkReport> told;
  ClientOptions options = Options();
  options.link_observer = [&](const LinkReport& report) {
    board_.Change([&] { told.push_back(report); });
    throw 1;  // which harms nobody
  };
  Client client(options);
  const auto service = Serve([](Exchange exchange) {
    const std::string body = Body(exchange.message());
    if (body == "no") return exchange.Reject("no");
    if (body == "later" && exchange.message().delivery_count() == 0) return exchange.Fail("later");
    exchange.Accept();
  });
  const auto opened = client.OpenSender(To(*service));
  ASSERT_TRUE(opened.ok());
  for (const char* body : {"yes", "no", "later"}) (*opened)->Send(proton::message(body)).Wait();
  const std::vector<LinkReport> links = client.Links();
  ASSERT_EQ(links.size(), 1u);
  EXPECT_EQ(links[0].node, "//demo/x");
  EXPECT_TRUE(links[0].ours);
  EXPECT_FALSE(links[0].incoming);
  EXPECT_EQ(links[0].messages, 4u);
  EXPECT_EQ(links[0].accepted, 2u);
  EXPECT_EQ(links[0].rejected, 1u);
  EXPECT_EQ(links[0].given_back, 1u);
  EXPECT_EQ("amqp://" + links[0].peer, service->url());
  const std::vector<LinkReport> incoming = server_.Links();
  ASSERT_EQ(incoming.size(), 1u);
  EXPECT_TRUE(incoming[0].incoming);
  EXPECT_FALSE(incoming[0].ours);
  EXPECT_EQ(incoming[0].messages, 4u);
  EXPECT_EQ(incoming[0].accepted, 2u);
  service->Stop(5s);
  EXPECT_TRUE(board_.Await([&] { return told.size() >= 2 && !told[1].ended.empty(); }));
  EXPECT_EQ(told[0].ended, "");
  EXPECT_EQ(told[0].messages, 0u);
  EXPECT_EQ(told[1].messages, 4u);
  EXPECT_TRUE(client.Links().empty());
}

TEST_F(ClientTest, AnInlineHandlerRunsWhereMessagesComeInAndStopWaitsForIt) {
  std::promise<void> busy, go_on;
  ServiceOptions options;
  options.inline_handler = true;
  ClientOptions two = Options();
  two.io_threads = 2;  // the other one does what a stop needs
  Client server(two);
  auto service = server.Serve(
      "//demo/x",
      [&](Exchange exchange) {
        if (Body(exchange.message()) == "throw" && exchange.message().delivery_count() == 0)
          throw 1;
        if (Body(exchange.message()) == "wait") {
          busy.set_value();
          go_on.get_future().get();
        }
        exchange.Accept();
      },
      options);
  ASSERT_TRUE(service.ok());
  const auto sender = Open(To(**service));
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(Outcome(sender->Send(proton::message("x"))).end, End::kAccepted);
  EXPECT_EQ(Outcome(sender->Send(proton::message("throw"))).attempts, 2u);
  sender->Send(proton::message("wait"));
  busy.get_future().get();
  auto stopped = std::async([&] { (*service)->Stop(1ms); });
  EXPECT_EQ(stopped.wait_for(800ms), std::future_status::timeout) << "the handler runs";
  go_on.set_value();
  stopped.get();
}

TEST_F(ClientTest, ADoneThatSendsIntoAFullBufferIsToldSoAtOnce) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  const auto nobody = Open("amqp://127.0.0.1:1/n", {.buffer = 1});
  nobody->Send(proton::message("fills it"));
  const auto sender = Open(To(*service));
  std::promise<DeliveryOutcome> told;
  sender->Send(proton::message("x"), {.done = [&](const DeliveryOutcome&) {
                 told.set_value(nobody->Send(proton::message("y")).Wait());
               }});
  const DeliveryOutcome outcome = told.get_future().get();
  EXPECT_EQ(outcome.end, End::kNotSent);
  EXPECT_EQ(outcome.condition, "amqp:resource-limit-exceeded");
}

TEST_F(ClientTest, ASubtreeTakesWhatIsBelowIt) {
  ServiceOptions options;
  options.subtree = true;
  std::promise<std::string> address;
  const auto service = Serve(
      [&](Exchange exchange) {
        address.set_value(exchange.address());
        exchange.Accept();
      },
      options);
  EXPECT_EQ(Outcome(Open(To(*service, "//DEMO/x/y/z"))->Send(proton::message("x"))).end,
            End::kAccepted);
  EXPECT_EQ(address.get_future().get(), "//demo/x/y/z");
}

TEST_F(ClientTest, AServiceThatComesLaterGetsWhatWaits) {
  uint16_t port = 0;
  {
    RawPeer first([](int, amqp::Hooks&) {});
    port = first.port();
  }
  const auto sender = Open("amqp://127.0.0.1:" + std::to_string(port) + "///demo/x");
  Delivery delivery = sender->Send(proton::message("x"));
  ServiceOptions options;
  options.listen = "127.0.0.1:" + std::to_string(port);
  auto service = Serve([](Exchange exchange) { exchange.Accept(); }, options);
  EXPECT_EQ(delivery.Wait().end, End::kAccepted);
  // And an idle link that was cut reopens on use.
  service.reset();
  service = Serve([](Exchange exchange) { exchange.Accept(); }, options);
  EXPECT_EQ(Outcome(sender->Send(proton::message("y"))).end, End::kAccepted);
}

TEST_F(ClientTest, StopFinishesWhatIsInProgressAndReleasesTheRest) {
  std::promise<Exchange> given;
  ServiceOptions options;
  auto service = Serve([&](Exchange exchange) { given.set_value(std::move(exchange)); }, options);
  const auto sender = Open(To(*service));
  Delivery delivery = sender->Send(proton::message("x"));
  Exchange exchange = given.get_future().get();
  auto stopped = std::async([&] { service->Stop(5s); });
  EXPECT_EQ(stopped.wait_for(50ms), std::future_status::timeout);
  exchange.Accept();
  EXPECT_EQ(stopped.wait_for(2s), std::future_status::ready);
  EXPECT_EQ(delivery.Wait().end, End::kAccepted);
}

TEST_F(ClientTest, AKeptExchangeKeepsItsMessage) {
  std::promise<Exchange> first;
  int count = 0;
  const auto service = Serve([&](Exchange exchange) {
    if (++count == 1) return first.set_value(std::move(exchange));
    exchange.Accept();
  });
  const auto sender = Open(To(*service));
  const Delivery kept = sender->Send(proton::message("the first"));
  for (int i = 0; i < 1000; ++i) {  // messages whose memory is used again and again
    EXPECT_EQ(Outcome(sender->Send(proton::message("another"))).end, End::kAccepted);
  }
  Exchange exchange = first.get_future().get();
  EXPECT_EQ(Body(exchange.message()), "the first");
  exchange.Accept();
}

TEST(SpareMessagesTest, KeepsSmallOnesToBeFilledAgain) {
  SpareMessages spare;
  proton::message first("first"), second("second");
  spare.Return(spare.Swap(first));
  EXPECT_TRUE(first.body().empty()) << "there was none to be filled again";
  EXPECT_EQ(Body(spare.Swap(second)), "second");
  EXPECT_EQ(Body(second), "first");
  spare.Return(proton::message(std::string(10'000, 'x')));
  proton::message third("third");
  (void)spare.Swap(third);
  EXPECT_TRUE(third.body().empty()) << "a large one would hold its memory";
}

TEST_F(ClientTest, AStoppedHandlerThreadFinishesOneCallAndReleasesTheRest) {
  struct Answers : Answerer {
    void Answer(uint64_t token, Settle how) override {
      const std::lock_guard lock(mutex);
      released += how.kind == Settle::Kind::kRelease;
      last = std::max(last, token);
    }
    Status Reply(uint64_t, const std::string&, std::vector<char>) override { return {}; }
    std::mutex mutex;
    int released = 0;
    uint64_t last = 0;
  };
  const auto answers = std::make_shared<Answers>();
  const auto state = [&](uint64_t token) {
    return std::make_shared<Exchange::State>(answers, token, "//demo/x", proton::message());
  };
  std::array<std::promise<void>, 2> entered, leave;
  int calls = 0;
  HandlerThread handlers([&](Exchange exchange) {
    const size_t call = static_cast<size_t>(calls++);
    if (call >= 2) return;
    entered[call].set_value();
    leave[call].get_future().get();
    exchange.Accept();
  });
  const auto push = [&](uint64_t token) {
    std::vector<std::shared_ptr<Exchange::State>> states{state(token)};
    handlers.Push(states);
  };
  push(1);
  entered[0].get_future().get();
  for (uint64_t token = 2; token <= 10; ++token) push(token);
  leave[0].set_value();
  entered[1].get_future().get();
  auto stopped = std::async([&] { handlers.Stop(); });
  const auto refused = [&] {  // what is given to a stopped one is released at once
    push(100);
    const std::lock_guard lock(answers->mutex);
    return answers->last == 100;
  };
  const BootTime until = BootClock::now() + 10s;
  while (!refused() && BootClock::now() < until) std::this_thread::yield();
  leave[1].set_value();
  stopped.get();
  EXPECT_EQ(calls, 2);
  EXPECT_GE(answers->released, 9);
}

TEST_F(ClientTest, ASelectionPolicyOutOfRangeIsRefused) {
  ClientOptions options = Options();
  options.selection.ejection = 0ms;
  Client client(options);
  const auto sender = client.OpenSender("//demo/x");
  ASSERT_FALSE(sender.ok());
  EXPECT_EQ(sender.status().code(), Code::kInvalid);
  EXPECT_NE(sender.status().message().find("ejection"), std::string::npos);
}

TEST_F(ClientTest, WhoRefusesLinksIsEjectedAndTheResolverIsTold) {
  const auto service = Serve([](Exchange exchange) { exchange.Accept(); });
  std::string refusing;
  {
    RawPeer closed([](int, amqp::Hooks&) {});
    refusing = EndpointUrl::Parse(closed.url("")).value().text();
  }
  FakeResolver resolver;
  resolver.Set({service->url(), refusing});
  amqp::Io io;
  auto shell =
      std::make_shared<SenderShell>(io, std::make_shared<Links>(io, "t"), ClientOptions{},
                                    Destination::Parse("//demo/x").value(), SenderOptions{}, false);
  shell->Start(&resolver);
  const BootTime until = BootClock::now() + 10s;
  while (resolver.ejected().empty() && BootClock::now() < until)
    EXPECT_EQ(shell->Send(proton::message("x"), {}).Wait().end, End::kAccepted);
  EXPECT_EQ(shell->counters().ejections, 1u);
  shell->Close(1s);
  EXPECT_EQ(resolver.ejected(), std::vector<std::string>{refusing});
  io.Stop();
}

TEST_F(ClientTest, EjectionsAreInTheResolversStatsAndToldToItsObserver) {
  std::vector<std::string> told;
  ClientOptions options = Options();
  options.resolver.observer = [&told](const ResolverEvent& event) {
    if (event.kind == ResolverEvent::Kind::kEjected) told.push_back(event.server);
  };
  Client client(options);
  client.resolver().NoteEjected("amqp://a:1", Status(Code::kUnavailable, "left out"));
  EXPECT_EQ(client.resolver().Stats().ejections, 1u);
  EXPECT_EQ(told, std::vector<std::string>{"amqp://a:1"});
}

TEST_F(ClientTest, WhatIsOnItsWayToAServiceThatStopsIsReleasedNotLost) {
  std::vector<std::unique_ptr<Service>> services;
  const auto serve = [&] {
    services.push_back(
        Serve([](Exchange exchange) { (void)exchange.Reply(proton::message("r")); }));
    return services.back()->url();
  };
  FakeResolver resolver;
  amqp::Io io;
  auto shell =
      std::make_shared<SenderShell>(io, std::make_shared<Links>(io, "t"), ClientOptions{},
                                    Destination::Parse("//demo/x").value(), SenderOptions{}, true);
  shell->Start(&resolver);
  resolver.Set({serve()});
  std::atomic<int> answered = 0;
  std::atomic<bool> over = false;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      while (!over) {
        const auto reply = shell->Request(proton::message("x"), 10s);
        EXPECT_TRUE(reply.ok()) << reply.status().ToString();
        ++answered;
      }
    });
  }
  const auto await = [&](int more) {
    const int enough = answered + more;
    const BootTime until = BootClock::now() + 10s;
    while (answered < enough && BootClock::now() < until) std::this_thread::yield();
  };
  for (int restart = 0; restart < 20; ++restart) {
    await(50);
    const std::string next = serve();
    resolver.Set({services.front()->url(), next});
    await(50);
    services.front()->Stop(5s);  // the senders learn of it from its links only
    services.erase(services.begin());
    resolver.Set({next});
  }
  over = true;
  for (std::thread& thread : threads) thread.join();
  shell->Close(0ms);
  shell.reset();
  io.Stop();
}

TEST_F(ClientTest, NothingIsLeftAtDestructionInAnyState) {
  for (int i = 0; i < 20; ++i) {
    Client client(Options());
    auto service = client.Serve("//demo/x", [](Exchange) {});
    ASSERT_TRUE(service.ok());
    auto sender = client.OpenSender(To(**service));
    auto nowhere = client.OpenSender("//demo/nowhere");
    ASSERT_TRUE(sender.ok() && nowhere.ok());
    for (int n = 0; n < i * 5; ++n) {
      (*sender)->Send(proton::message("x"));
      (*nowhere)->Send(proton::message("x"));
    }
    if (i % 3 == 0) (*service)->Stop(0ms);
  }
}

TEST_F(ClientTest, BadInputIsRefusedWithTheRule) {
  EXPECT_EQ(client_.OpenSender("//demo:80/x").status().code(), Code::kInvalid);
  EXPECT_EQ(client_.OpenSender("amqp://h:70000/x").status().code(), Code::kInvalid);
  EXPECT_EQ(client_.Serve("demo", [](Exchange) {}).status().code(), Code::kInvalid);
  EXPECT_EQ(client_.Serve("//demo/x", nullptr).status().code(), Code::kInvalid);
  ServiceOptions options;
  options.listen = "127.0.0.1";
  EXPECT_EQ(client_
                .Serve(
                    "//demo/x", [](Exchange) {}, options)
                .status()
                .code(),
            Code::kInvalid);
  const auto service = Serve([](Exchange) {});
  options.listen = service->url().substr(7);
  EXPECT_EQ(client_
                .Serve(
                    "//demo/x", [](Exchange) {}, options)
                .status()
                .code(),
            Code::kUnavailable);
}

TEST_F(ClientTest, AWildcardAnnouncesTheAddressThatRoutesToTheDirectory) {
  ServiceOptions options;
  options.listen = "0.0.0.0:0";
  EXPECT_EQ(Serve([](Exchange) {}, options)->url().rfind("amqp://127.0.0.1:", 0), 0u);
  options.announce = "service.example.com";
  EXPECT_EQ(Serve([](Exchange) {}, options)->url().rfind("amqp://service.example.com:", 0), 0u);
  options.announce = "10.0.0.1:99";
  EXPECT_EQ(Serve([](Exchange) {}, options)->url(), "amqp://10.0.0.1:99");
  options.announce = "[::1]";
  EXPECT_EQ(Serve([](Exchange) {}, options)->url().rfind("amqp://[::1]:", 0), 0u);
}

}  // namespace
}  // namespace datawire
