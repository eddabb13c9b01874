#include <atomic>
#include <future>
#include <thread>

#include "amqp_fixture.h"
#include "amqp_peer.h"

namespace datawire::amqp {
namespace {

/// Keeps the thread of an Io busy until it is released: to the other side, a stopped process.
struct Freeze {
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  void operator()(Connection& c) {
    c.Post([released = released] { released.wait_for(20s); });
  }
  ~Freeze() { release.set_value(); }
};

TEST_F(AmqpTest, TwoEndsExchangeMessages) {
  std::vector<std::string> got;
  serve = [&](End& end) {
    end.hooks->message = [&](proton::delivery& d, proton::message& m) {
      board.Change([&] { got.push_back(proton::get<std::string>(m.body())); });
      d.accept();
    };
  };
  Listen();
  int settled = 0;
  const Halt halt(this);
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [](proton::connection& c) { c.open_sender("here"); };
    end.hooks->sendable = [next = 0](proton::sender& s) mutable {
      for (; next < 100 && s.credit() > 0; ++next)
        EXPECT_TRUE(Send(s, proton::message("m" + std::to_string(next)), next).ok());
    };
    end.hooks->settled = [&](proton::tracker&) { board.Change([&] { ++settled; }); };
  });
  ASSERT_TRUE(board.Await([&] { return settled == 100; }));
  EXPECT_EQ(got.size(), 100u);
  EXPECT_EQ(got.back(), "m99");
  client->connection->Close();
  EXPECT_TRUE(Closed(client).ok()) << client->closed->ToString();
  EXPECT_TRUE(Closed(Served(0)).ok()) << served[0]->closed->ToString();
}

TEST_F(AmqpTest, LargeMessagesPassInBothDirections) {
  const std::string large(900'000, 'x');
  size_t echoed = 0;
  serve = [&](End& end) {
    end.hooks->message = [](proton::delivery& d, proton::message& m) {
      auto back = d.connection().open_sender("back");
      d.accept();
      (void)m;
    };
    end.hooks->sendable = [&](proton::sender& s) { (void)Send(s, proton::message(large), 1); };
  };
  Listen();
  const Halt halt(this);
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [](proton::connection& c) { c.open_sender("here"); };
    end.hooks->sendable = [&, sent = false](proton::sender& s) mutable {
      if (!std::exchange(sent, true)) (void)Send(s, proton::message(large), 1);
    };
    end.hooks->message = [&](proton::delivery&, proton::message& m) {
      board.Change([&] { echoed = proton::get<std::string>(m.body()).size(); });
    };
  });
  EXPECT_TRUE(board.Await([&] { return echoed == large.size(); }));
}

TEST_F(AmqpTest, ConnectsWithAndWithoutSasl) {
  Listen();
  int opens = 0;
  const Halt halt(this);
  for (const bool sasl : {true, false}) {
    ConnectionOptions options = Quick();
    options.sasl = sasl;
    auto client = Connect(
        [&](End& end) {
          end.hooks->connection_open = [&](proton::connection&) { board.Change([&] { ++opens; }); };
        },
        options);
    EXPECT_TRUE(board.Await([&] { return opens == (sasl ? 1 : 2); })) << sasl;
  }
}

TEST_F(AmqpTest, RefusedConnectNamesAddressAndReason) {
  uint16_t port = 0;
  { port = Plain::Listening().port(); }
  auto end = std::make_shared<End>();
  const Halt halt(this);
  auto c = Connection::Open(client_io, {"127.0.0.1", port}, Quick(), end->hooks,
                            [&](const Status& s) { board.Change([&] { end->closed = s; }); });
  const Status status = Closed(end);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(status.message(),
            "cannot connect to 127.0.0.1:" + std::to_string(port) + ": Connection refused");
}

TEST_F(AmqpTest, AHostNameIsTriedAddressByAddress) {
  Listen();
  auto end = std::make_shared<End>();
  bool open = false;
  end->hooks->connection_open = [&](proton::connection&) { board.Change([&] { open = true; }); };
  const Halt halt(this);
  auto c = Connection::Open(client_io, {"localhost", listener->bound().port}, Quick(), end->hooks,
                            [&](const Status& s) { board.Change([&] { end->closed = s; }); });
  EXPECT_TRUE(board.Await([&] { return open; }));
}

TEST_F(AmqpTest, ConnectEndsAtItsTimeout) {
  const Plain full = Plain::Listening(0);
  const Halt halt(this);
  const Plain only_place = Plain::Connect(full.port());  // from now on the kernel drops a SYN
  ConnectionOptions options = Quick();
  options.connect_timeout = 60ms;
  auto end = std::make_shared<End>();
  auto c = Connection::Open(client_io, {"127.0.0.1", full.port()}, options, end->hooks,
                            [&](const Status& s) { board.Change([&] { end->closed = s; }); });
  EXPECT_NE(Closed(end).message().find("no answer within 60 ms"), std::string::npos)
      << end->closed->ToString();
}

TEST_F(AmqpTest, AServerThatNeverSpeaksEndsAtTheHandshakeTimeout) {
  const Plain silent = Plain::Listening();
  ConnectionOptions options = Quick();
  options.handshake_timeout = 60ms;
  auto end = std::make_shared<End>();
  const Halt halt(this);
  auto c = Connection::Open(client_io, {"127.0.0.1", silent.port()}, options, end->hooks,
                            [&](const Status& s) { board.Change([&] { end->closed = s; }); });
  EXPECT_EQ(Closed(end).code(), Code::kUnavailable);
  EXPECT_NE(end->closed->message().find("no AMQP open from"), std::string::npos);
}

TEST_F(AmqpTest, AClientThatNeverSpeaksEndsAtTheHandshakeTimeout) {
  ConnectionOptions options = Quick();
  options.handshake_timeout = 60ms;
  Listen(options);
  const Halt halt(this);
  const Plain silent = Plain::Connect(listener->bound().port);
  const Plain half = Plain::Connect(listener->bound().port);
  ASSERT_TRUE(half.Send(std::string_view("AMQP\x03\x01\x00\x00", 8)));  // SASL, then nothing
  EXPECT_TRUE(silent.AwaitEnd());
  EXPECT_TRUE(half.AwaitEnd());
  EXPECT_FALSE(Closed(Served(0)).ok());
  EXPECT_FALSE(Closed(Served(1)).ok());
}

TEST_F(AmqpTest, AFrozenClientIsNoticed) {
  ConnectionOptions options = Quick();
  options.idle_timeout = 150ms;
  Listen(options);
  bool open = false;
  const Halt halt(this);
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [&](proton::connection&) { board.Change([&] { open = true; }); };
  });
  ASSERT_TRUE(board.Await([&] { return open; }));
  Freeze freeze;
  freeze(*client->connection);
  const Status status = Closed(Served(0));
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find("idle-timeout"), std::string::npos) << status.ToString();
}

TEST_F(AmqpTest, AFrozenServerIsNoticed) {
  Listen();
  ConnectionOptions options = Quick();
  options.idle_timeout = 150ms;
  const Halt halt(this);
  auto client = Connect(nullptr, options);
  Freeze freeze;
  freeze(*Served(0)->connection);
  EXPECT_NE(Closed(client).message().find("idle-timeout"), std::string::npos);
}

TEST_F(AmqpTest, EmptyFramesKeepAnIdleConnectionOpen) {
  ConnectionOptions options = Quick();
  options.idle_timeout = 400ms;  // a loaded machine holds a thread up for a while
  Listen(options);
  bool later = false;
  const Halt halt(this);
  auto client = Connect(nullptr, options);
  auto server = Served(0);
  client->connection->After(1200ms, [&] { board.Change([&] { later = true; }); });
  EXPECT_TRUE(board.Await([&] { return later || client->closed || server->closed; }));
  EXPECT_TRUE(StillOpen(client));
  EXPECT_TRUE(StillOpen(server));
}

TEST_F(AmqpTest, APeerThatSpeaksButReadsNothingIsNoticed) {
  serve = [&](End& end) {
    end.hooks->sendable = [tag = uint64_t{0}](proton::sender& s) mutable {
      while (s.credit() > 0) (void)Send(s, proton::message(std::string(200'000, 'x')), ++tag);
    };
  };
  ConnectionOptions options = Quick();
  options.write_stall = 150ms;
  Listen(options);
  std::atomic<bool> got = false;
  const Halt halt(this);
  Peer peer(listener->bound().port);
  peer.driver.connection().open_receiver("x", proton::receiver_options().credit_window(120));
  peer.hooks->message = [&](proton::delivery&, proton::message&) { got = true; };
  ASSERT_TRUE(peer.RunUntil([&] { return got.load(); }));
  std::string_view empty_frame("\x00\x00\x00\x08\x02\x00\x00\x00", 8);
  auto served_end = Served(0);
  while (!board.Await([&] { return served_end->closed.has_value(); }, 10ms))
    if (!peer.socket.Send(empty_frame)) break;
  EXPECT_NE(Closed(served_end).message().find("has read nothing for 150 ms"), std::string::npos)
      << served_end->closed->ToString();
}

TEST_F(AmqpTest, APeerThatReadsNothingIsNotReadForEver) {
  serve = [&](End& end) {
    end.hooks->sendable = [tag = uint64_t{0}](proton::sender& s) mutable {
      while (s.credit() > 0) (void)Send(s, proton::message(std::string(200'000, 'x')), ++tag);
    };
  };
  const Halt halt(this);
  Listen();
  Peer peer(listener->bound().port);
  peer.driver.connection().open_receiver("x", proton::receiver_options().credit_window(120));
  std::atomic<bool> got = false;
  peer.hooks->message = [&](proton::delivery&, proton::message&) { got = true; };
  ASSERT_TRUE(peer.RunUntil([&] { return got.load(); }));
  // Frames without a body, in 1020 bytes of extended header each: fast to read.
  std::string empty_frame(1020, '\0');
  empty_frame.replace(0, 8, std::string("\x00\x00\x03\xfc\xff\x00\x00\x00", 8));
  EXPECT_LT(peer.socket.Flood(empty_frame, 200 << 20, 100ms), size_t{50} << 20);
  EXPECT_TRUE(StillOpen(Served(0)));
}

TEST_F(AmqpTest, CloseIsBoundedWhenThePeerHangs) {
  Listen();
  bool open = false;
  const Halt halt(this);
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [&](proton::connection&) { board.Change([&] { open = true; }); };
  });
  ASSERT_TRUE(board.Await([&] { return open; }));
  Freeze freeze;
  freeze(*Served(0)->connection);
  client->connection->Close(50ms);
  EXPECT_EQ(Closed(client).code(), Code::kTimeout);
}

TEST_F(AmqpTest, AnAbortTellsBothSides) {
  Listen();
  const Halt halt(this);
  auto client = Connect();
  auto server = Served(0);
  client->connection->Abort(Status(Code::kCancelled, "enough"));
  EXPECT_EQ(Closed(client), Status(Code::kCancelled, "enough"));
  EXPECT_EQ(Closed(server).code(), Code::kUnavailable);
}

TEST_F(AmqpTest, PostsFromManyThreadsRunOneAtATime) {
  Listen();
  int counted = 0;
  int count = 0;  // no lock: the strand is the lock
  const Halt halt(this);
  auto client = Connect();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) EXPECT_TRUE(client->connection->Post([&] { ++count; }));
    });
  for (std::thread& thread : threads) thread.join();
  client->connection->Post([&] { board.Change([&] { counted = count; }); });
  ASSERT_TRUE(board.Await([&] { return counted > 0; }));
  EXPECT_EQ(counted, 2000);
}

TEST_F(AmqpTest, WhatIsPostedBeforeTheConnectIsSent) {
  std::string address;
  serve = [&](End& end) {
    end.hooks->receiver_open = [&](proton::receiver& r) {
      board.Change([&] { address = r.target().address(); });
      r.open();
    };
  };
  Listen();
  const Halt halt(this);
  auto client = Connect();
  client->connection->Post([c = client->connection.get()] { c->proton().open_sender("early"); });
  EXPECT_TRUE(board.Await([&] { return address == "early"; }));
}

TEST_F(AmqpTest, PostIsRefusedOnceClosed) {
  Listen();
  const Halt halt(this);
  auto client = Connect();
  client->connection->Close();
  (void)Closed(client);
  EXPECT_FALSE(client->connection->Post([] { ADD_FAILURE() << "ran after the end"; }));
}

TEST_F(AmqpTest, AConnectionMayOutliveItsIo) {
  Listen();
  auto end = std::make_shared<End>();
  std::shared_ptr<Connection> connection;
  {
    Io io;
    connection = Connection::Open(io, listener->bound(), Quick(), end->hooks,
                                  [&](const Status& s) { board.Change([&] { end->closed = s; }); });
  }
  EXPECT_EQ(Closed(end).code(), Code::kCancelled);
  EXPECT_FALSE(connection->Post([] {}));
  connection->Close();
  connection->Abort(Status(Code::kCancelled, "late"));
}

TEST_F(AmqpTest, OpenAfterStopIsClosedAtOnce) {
  Listen();
  Io io;
  io.Stop();
  std::optional<Status> closed;
  const Halt halt(this);
  auto c = Connection::Open(io, listener->bound(), Quick(), std::make_shared<Hooks>(),
                            [&](const Status& s) { closed = s; });
  ASSERT_TRUE(closed);
  EXPECT_EQ(closed->code(), Code::kCancelled);
}

TEST_F(AmqpTest, StopUnderLoadIsBoundedAndClosesEachOnce) {
  Listen();
  std::atomic<int> settled = 0, closed = 0;
  auto io = std::make_unique<Io>(2);
  std::vector<std::shared_ptr<Connection>> connections;
  for (int i = 0; i < 20; ++i) {
    auto hooks = std::make_shared<Hooks>();
    hooks->connection_open = [](proton::connection& c) { c.open_sender("load"); };
    hooks->sendable = [tag = uint64_t{0}](proton::sender& s) mutable {
      while (s.credit() > 0) (void)Send(s, proton::message("load"), ++tag);
    };
    hooks->settled = [&](proton::tracker&) { board.Change([&] { ++settled; }); };
    connections.push_back(
        Connection::Open(*io, listener->bound(), Quick(), hooks, [&](const Status&) { ++closed; }));
  }
  ASSERT_TRUE(board.Await([&] { return settled > 2000; }));
  const auto start = std::chrono::steady_clock::now();
  io->Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - start, 2s);
  EXPECT_EQ(closed, 20);
}

TEST_F(AmqpTest, TimersOfAStoppedIoDoNotRun) {
  bool soon = false;
  auto io = std::make_unique<Io>();
  io->After(1h, [] { ADD_FAILURE(); });
  io->After(5ms, [&] { board.Change([&] { soon = true; }); });
  EXPECT_TRUE(board.Await([&] { return soon; }));
  io.reset();
}

TEST_F(AmqpTest, ASecondListenerOnAPortIsRefusedWithTheReason) {
  Listen();
  auto second = Listener::Open(server_io, listener->bound(), Quick(), nullptr);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), Code::kUnavailable);
  EXPECT_EQ(second.status().message(),
            "cannot bind " + listener->bound().ToString() + ": Address already in use");
}

TEST_F(AmqpTest, ConnectionsBeyondTheLimitWaitForAPlace) {
  Listen(Quick(), 1);
  bool open = false;
  const Halt halt(this);
  auto first = Connect();
  (void)Served(0);
  auto second = Connect([&](End& end) {
    end.hooks->connection_open = [&](proton::connection&) { board.Change([&] { open = true; }); };
  });
  EXPECT_FALSE(board.Await([&] { return open; }, 50ms));
  first->connection->Close();
  EXPECT_TRUE(board.Await([&] { return open; }));
}

TEST_F(AmqpTest, AClosedListenerAcceptsNoMoreAndLeavesConnectionsOpen) {
  Listen();
  bool open = false;
  const Halt halt(this);
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [&](proton::connection&) { board.Change([&] { open = true; }); };
  });
  ASSERT_TRUE(board.Await([&] { return open; }));
  listener->Close();
  auto late = Connect();
  EXPECT_FALSE(Closed(late).ok());
  EXPECT_EQ(served.size(), 1u);
  ASSERT_TRUE(client->connection->Post([&] { board.Change([&] { open = false; }); }));
  EXPECT_TRUE(board.Await([&] { return !open; }));
  EXPECT_TRUE(StillOpen(client));
}

}  // namespace
}  // namespace datawire::amqp
