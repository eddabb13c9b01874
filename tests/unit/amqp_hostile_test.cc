#include <proton/delivery.h>
#include <proton/link.h>

#include <cstdlib>
#include <random>
#include <stdexcept>

#include "amqp/native.h"
#include "amqp_fixture.h"
#include "amqp_peer.h"

namespace datawire::amqp {
namespace {

/// A server that other connections use while one peer misbehaves.
class AmqpHostileTest : public AmqpTest {
 protected:
  void Start(ConnectionOptions options = Quick()) {
    Listen(options);
    bystander_ = Connect([&](End& end) {
      end.hooks->connection_open = [&](proton::connection&) {
        board.Change([&] { bystanding_ = true; });
      };
    });
    ASSERT_TRUE(board.Await([&] { return bystanding_; }));
  }
  /// A sending link of the peer with credit.
  pn_link_t* Attached(Peer& peer, const char* name = "evil") {
    proton::sender sender = peer.driver.connection().open_sender(name);
    EXPECT_TRUE(peer.RunUntil([&] { return sender.credit() > 0; }));
    return native::Of(sender);
  }
  /// The peer's connection ends with a Status; those that share its thread do not notice.
  void EndsAlone(Peer& peer, const std::string& condition) {
    EXPECT_EQ(peer.CloseError(), condition);
    EXPECT_FALSE(Closed(Served(1)).ok());
    EXPECT_TRUE(StillOpen(bystander_));
    EXPECT_TRUE(Works());
    EXPECT_TRUE(StillOpen(bystander_));
  }

  bool bystanding_ = false;
  std::shared_ptr<End> bystander_;
};

pn_delivery_t* Deliver(pn_link_t* link, uint64_t tag, std::string_view bytes) {
  pn_delivery_t* d = pn_delivery(link, pn_dtag(reinterpret_cast<const char*>(&tag), sizeof tag));
  if (!bytes.empty()) pn_link_send(link, bytes.data(), bytes.size());
  return d;
}

TEST_F(AmqpHostileTest, AnEmptyDeliveryEndsOnlyItsConnection) {
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  pn_link_t* link = Attached(peer);
  Deliver(link, 1, "");
  pn_link_advance(link);
  EndsAlone(peer, "amqp:decode-error");
}

TEST_F(AmqpHostileTest, AnAbortedDeliveryEndsOnlyItsConnection) {
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  pn_delivery_t* delivery = Deliver(Attached(peer), 1, std::string(100'000, 'x'));
  peer.Flush();
  pn_delivery_abort(delivery);
  EndsAlone(peer, "amqp:decode-error");
}

TEST_F(AmqpHostileTest, AGarbageDeliveryHarmsNobodyElse) {
  serve = [](End& end) {
    end.hooks->message = [](proton::delivery&, proton::message& m) {
      (void)proton::get<std::string>(m.body());  // throws on the empty value that garbage leaves
    };
  };
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  pn_link_t* link = Attached(peer);
  Deliver(link, 1, "\xff\x13garbage\x01");
  pn_link_advance(link);
  EXPECT_FALSE(peer.CloseError().empty());
  EXPECT_FALSE(Closed(Served(1)).ok());
  EXPECT_TRUE(StillOpen(bystander_));
  EXPECT_TRUE(Works());
}

TEST_F(AmqpHostileTest, AThrowingHandlerEndsOnlyItsConnectionAndAcceptsNothing) {
  int accepted = 0, heard = 0;
  serve = [&](End& end) {
    end.hooks->message = [&](proton::delivery&, proton::message& m) {
      if (m.subject() != "evil") return;
      ++heard;
      throw std::runtime_error("no");
    };
  };
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  peer.hooks->settled = [&](proton::tracker&) { ++accepted; };
  pn_link_t* link = Attached(peer);
  proton::message m("x");
  m.subject("evil");
  const std::vector<char> bytes = m.encode();
  for (uint64_t tag = 1; tag <= 3; ++tag) {
    Deliver(link, tag, {bytes.data(), bytes.size()});
    pn_link_advance(link);
  }
  EndsAlone(peer, "amqp:internal-error");
  EXPECT_EQ(accepted, 0) << "auto_accept took a message that the handler threw at";
  EXPECT_EQ(heard, 1) << "the handler was called after it threw";
  EXPECT_EQ(*Served(1)->closed, Status(Code::kInternal, "an AMQP handler threw: no"));
}

TEST_F(AmqpHostileTest, TheDefaultOnErrorEndsOnlyItsConnection) {
  struct Plain : proton::messaging_handler {};  // its on_error throws
  auto end = std::make_shared<End>();
  const Halt halt(this);
  serve = [](End& e) {
    e.hooks->receiver_open = [](proton::receiver& r) {
      if (r.target().address() == "probe") return r.open();
      Refuse(r, "amqp:not-found", "nobody");
    };
  };
  Start();
  auto c = Connection::Open(client_io, listener->bound(), Quick(), std::make_shared<Plain>(),
                            [&](const Status& s) { board.Change([&] { end->closed = s; }); });
  c->Post([c] { c->proton().open_sender("x"); });
  EXPECT_EQ(Closed(end).code(), Code::kInternal);
  EXPECT_NE(end->closed->message().find("nobody"), std::string::npos) << end->closed->ToString();
  EXPECT_TRUE(StillOpen(bystander_));
  EXPECT_TRUE(Works());
}

TEST_F(AmqpHostileTest, WhatIsThrownNeedNotBeAStdException) {
  serve = [](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      if (r.target().address() != "probe") throw 42;
      r.open();
    };
    end.hooks->transport_error = [](proton::transport&) { throw 43; };
  };
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  peer.driver.connection().open_sender("x");
  EndsAlone(peer, "amqp:internal-error");
  {
    Peer rude(listener->bound().port);
    ASSERT_TRUE(rude.RunUntil([&] { return rude.driver.opened(); }));
    (void)Served(3);  // after the probe
  }
  EXPECT_EQ(Closed(Served(3)).code(), Code::kUnavailable);
  EXPECT_TRUE(Works());
}

TEST_F(AmqpHostileTest, AThrowingTaskEndsOnlyItsConnection) {
  const Halt halt(this);
  Start();
  auto client = Connect();
  client->connection->Post([] { throw std::runtime_error("task"); });
  EXPECT_EQ(Closed(client), Status(Code::kInternal, "a posted task threw: task"));
  EXPECT_TRUE(StillOpen(bystander_));
}

TEST_F(AmqpHostileTest, AMessageBeyondTheLimitEndsItsConnectionBeforeItIsWhole) {
  bool heard = false;
  serve = [&](End& end) {
    end.hooks->message = [&](proton::delivery&, proton::message& m) {
      if (m.subject() == "evil") heard = true;
    };
  };
  ConnectionOptions options = Quick();
  options.max_message_bytes = 100'000;
  const Halt halt(this);
  Start(options);
  Peer peer(listener->bound().port);
  Deliver(Attached(peer), 1, std::string(150'000, 'x'));
  EndsAlone(peer, "amqp:link:message-size-exceeded");
  EXPECT_FALSE(heard);
}

TEST_F(AmqpHostileTest, APeerStillWritingReadsWhyItWasEnded) {
  ConnectionOptions options = Quick();
  options.max_message_bytes = 10'000;
  const Halt halt(this);
  Start(options);
  Peer peer(listener->bound().port);
  // More than the sockets hold: closed at once, the rest would be answered by a reset.
  Deliver(Attached(peer), 1, std::string(20'000'000, 'x'));
  EndsAlone(peer, "amqp:link:message-size-exceeded");
}

TEST_F(AmqpHostileTest, AMessageJustBeyondTheLimitIsNotDelivered) {
  std::vector<size_t> got;
  serve = [&](End& end) {
    end.hooks->message = [&](proton::delivery&, proton::message& m) {
      if (proton::get<std::string>(m.body()) != "probe")
        board.Change([&] { got.push_back(proton::get<std::string>(m.body()).size()); });
    };
  };
  ConnectionOptions options = Quick();
  options.max_message_bytes = 1000;
  const Halt halt(this);
  Start(options);
  Peer peer(listener->bound().port);
  pn_link_t* link = Attached(peer);
  uint64_t tag = 0;
  for (const size_t size : {900, 1000}) {  // the encoding adds a few bytes
    const std::vector<char> bytes = proton::message(std::string(size, 'x')).encode();
    Deliver(link, ++tag, {bytes.data(), bytes.size()});
    pn_link_advance(link);
  }
  EndsAlone(peer, "amqp:link:message-size-exceeded");
  EXPECT_EQ(got, std::vector<size_t>{900});
}

TEST_F(AmqpHostileTest, UnfinishedMessagesOnManyLinksAreBounded) {
  ConnectionOptions options = Quick();
  options.max_message_bytes = 50'000;
  const Halt halt(this);
  Start(options);
  Peer peer(listener->bound().port);
  std::vector<pn_link_t*> links;
  for (int i = 0; i < 10; ++i) links.push_back(Attached(peer, std::to_string(i).c_str()));
  for (pn_link_t* link : links) {
    Deliver(link, 1, std::string(40'000, 'x'));
    if (!peer.Flush()) break;
  }
  EndsAlone(peer, "amqp:resource-limit-exceeded");
  EXPECT_NE(Closed(Served(1)).message().find("bytes of unfinished messages, at most 200000"),
            std::string::npos)
      << served[1]->closed->ToString();
}

TEST_F(AmqpHostileTest, AFrameBeyondTheLimitEndsItsConnection) {
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  (void)Attached(peer);
  // A frame header that announces 1 MiB; the body need not come.
  ASSERT_TRUE(peer.socket.Send(std::string_view("\x00\x10\x00\x00\x02\x00\x00\x00", 8)));
  EndsAlone(peer, "amqp:connection:framing-error");
}

TEST_F(AmqpHostileTest, ASenderThatOverrunsItsCreditIsEnded) {
  int heard = 0;
  serve = [&](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      if (r.target().address() == "probe") return r.open();
      r.open(proton::receiver_options().credit_window(0));
      r.add_credit(2);
    };
    end.hooks->message = [&](proton::delivery&, proton::message& m) {
      if (m.subject() == "evil") ++heard;
    };
  };
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  pn_link_t* link = Attached(peer);
  proton::message m("x");
  m.subject("evil");
  const std::vector<char> bytes = m.encode();
  // Proton's sender obeys; so the frames of two messages are sent again with the next numbers.
  Deliver(link, 1, {bytes.data(), bytes.size()});
  pn_link_advance(link);
  std::string frame = peer.Output();
  ASSERT_TRUE(peer.socket.Send(frame));
  const size_t id = frame.find(std::string("\x52\x00", 2));  // handle 0 and delivery-id 0 are 0x43
  ASSERT_EQ(id, std::string::npos);
  const size_t place = frame.find(std::string("\x43\x43\xa0\x08", 4));
  ASSERT_NE(place, std::string::npos);
  for (char next = 1; next <= 3; ++next) {
    std::string again = frame;
    again.replace(place + 1, 1, std::string("\x52", 1) + next);  // smalluint
    again[3] = static_cast<char>(again[3] + 1);                  // frame size
    const size_t list = again.find("\xc0");
    if (list != std::string::npos && list < place) again[list + 1] = char(again[list + 1] + 1);
    ASSERT_TRUE(peer.socket.Send(again));
  }
  EndsAlone(peer, "amqp:link:transfer-limit-exceeded");
  EXPECT_EQ(heard, 2);
}

TEST_F(AmqpHostileTest, LinksBeyondTheLimitAreRefusedAndTheRestLives) {
  ConnectionOptions options = Quick();
  options.max_links = 3;
  const Halt halt(this);
  Start(options);
  Peer peer(listener->bound().port);
  std::vector<std::string> refused;
  peer.hooks->sender_error = [&](proton::sender& s) { refused.push_back(ErrorOf(s).condition); };
  std::vector<proton::sender> senders;
  for (int i = 0; i < 5; ++i)
    senders.push_back(peer.driver.connection().open_sender(std::to_string(i)));
  EXPECT_TRUE(peer.RunUntil([&] { return refused.size() == 2; }));
  EXPECT_EQ(refused[0], "amqp:resource-limit-exceeded");
  EXPECT_TRUE(senders[2].active());
  EXPECT_FALSE(peer.driver.remote_closed());
  senders[0].close();  // makes room
  EXPECT_TRUE(peer.RunUntil([&] { return senders[0].closed(); }));
  proton::sender again;
  for (int tries = 0; tries < 100 && !(again && again.credit() > 0); ++tries) {
    again = peer.driver.connection().open_sender("again" + std::to_string(tries));
    EXPECT_TRUE(peer.RunUntil([&] { return again.credit() > 0 || again.closed(); }));
  }
  EXPECT_GT(again.credit(), 0);
}

TEST_F(AmqpHostileTest, ASessionThatEndsUnderItsLinksHarmsNobodyEvenOnItsConnection) {
  std::vector<proton::delivery> held;
  serve = [&](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      r.open(proton::receiver_options().auto_accept(r.target().address() == "probe"));
    };
    end.hooks->message = [&](proton::delivery& d, proton::message&) { held.push_back(d); };
  };
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  for (uint64_t round = 1; round <= 20; ++round) {
    proton::session session = peer.driver.connection().open_session();
    proton::sender sender = session.open_sender("evil");
    ASSERT_TRUE(peer.RunUntil([&] { return sender.credit() > 0; })) << round;
    ASSERT_TRUE(Send(sender, proton::message("m"), round).ok());
    session.close();
    ASSERT_TRUE(peer.RunUntil([&] { return session.closed(); })) << round;
  }
  auto server = Served(1);
  bool settled = false;
  server->connection->Post([&] {
    for (proton::delivery& d : held) d.accept();  // as a handler does that answers late
    held.clear();
    board.Change([&] { settled = true; });
  });
  EXPECT_TRUE(board.Await([&] { return settled; }));
  EXPECT_TRUE(StillOpen(server));
  EXPECT_TRUE(Works());
}

TEST_F(AmqpHostileTest, SessionsThatEndUnderTheirLinksAreBounded) {
  const Halt halt(this);
  Start();
  Peer peer(listener->bound().port);
  for (int round = 0; round < 200 && !peer.driver.remote_closed(); ++round) {
    proton::session session = peer.driver.connection().open_session();
    proton::sender sender = session.open_sender("evil");
    peer.RunUntil([&] { return sender.credit() > 0 || peer.driver.remote_closed(); });
    session.close();
    peer.RunUntil([&] { return session.closed() || peer.driver.remote_closed(); });
  }
  EndsAlone(peer, "amqp:resource-limit-exceeded");
  EXPECT_NE(Served(1)->closed->message().find("more than 64 sessions"), std::string::npos)
      << Served(1)->closed->message();
}

TEST_F(AmqpHostileTest, AChannelBeyondTheLimitEndsItsConnection) {
  ConnectionOptions options = Quick();
  options.max_channels = 4;
  const Halt halt(this);
  Start(options);
  Peer peer(listener->bound().port);
  (void)Attached(peer);
  // begin on channel 4: the fifth
  ASSERT_TRUE(peer.socket.Send(std::string_view(
      "\x00\x00\x00\x14\x02\x00\x00\x04\x00\x53\x11\xc0\x07\x04\x40\x43\x52\x10\x52\x10", 20)));
  EndsAlone(peer, "amqp:connection:framing-error");
}

constexpr size_t kTransferBytes = 32;

/// Bytes that a well-behaved client sends, to be damaged; last, a transfer.
std::string Session() {
  ConnectionOptions options;
  options.sasl = false;
  options.container_id = "fuzz";
  Driver driver(options, Driver::Role::kClient, std::make_shared<Hooks>());
  driver.connection().open_sender("a");
  driver.connection().open_receiver("b");
  std::vector<char> out;
  driver.Dispatch();
  driver.Write(out, 1 << 20);
  std::string bytes(out.begin(), out.end());
  // A transfer of an amqp-value string on handle 0, delivery-id 0.
  bytes += std::string(
      "\x00\x00\x00\x20\x02\x00\x00\x00\x00\x53\x14\xc0\x09\x06\x43\x43\xa0\x01t\x43\x42\x42"
      "\x00\x53\x77\xa1\x05hello",
      kTransferBytes);
  return bytes;
}

unsigned Seed() {
  const char* set = std::getenv("DATAWIRE_SEED");
  const unsigned seed = set ? static_cast<unsigned>(std::atoi(set)) : std::random_device()();
  std::printf("DATAWIRE_SEED=%u\n", seed);
  return seed;
}

std::string Hostile(std::mt19937& random, const std::string& good) {
  std::string bytes = good;
  const auto below = [&](size_t n) { return random() % n; };
  switch (below(4)) {
    case 0:  // noise alone
      bytes.assign(below(2000), '\0');
      for (char& c : bytes) c = static_cast<char>(random());
      break;
    case 1:  // a header, then noise
      bytes.resize(8 + below(600));
      for (size_t i = 8; i < bytes.size(); ++i) bytes[i] = static_cast<char>(random());
      break;
    case 2:  // a few bytes changed
      for (size_t i = 0, n = 1 + below(8); i < n; ++i)
        bytes[8 + below(bytes.size() - 8)] = static_cast<char>(random());
      break;
    default:  // a piece missing or doubled
      const size_t at = below(bytes.size()), n = below(40);
      if (below(2))
        bytes.erase(at, n);
      else
        bytes.insert(at, bytes.substr(at, n));
  }
  return bytes;
}

TEST(AmqpFuzzTest, RandomInputNeverEndsMoreThanItsDriver) {
  std::mt19937 random(Seed());
  const std::string good = Session();
  {
    auto hooks = std::make_shared<Hooks>();
    std::string heard;
    hooks->message = [&](proton::delivery&, proton::message& m) {
      heard = proton::get<std::string>(m.body());
    };
    Driver driver({}, Driver::Role::kServer, hooks);
    std::vector<char> answer;  // no transfer is allowed before our begin
    driver.Read(good.data(), good.size() - kTransferBytes);
    driver.Write(answer, 1 << 20);
    driver.Read(good.data() + good.size() - kTransferBytes, kTransferBytes);
    ASSERT_EQ(heard, "hello") << "what is damaged below is no good session";
  }
  for (int i = 0; i < 5000; ++i) {
    const std::string bytes = Hostile(random, good);
    auto hooks = std::make_shared<Hooks>();
    hooks->message = [](proton::delivery&, proton::message& m) {
      (void)proton::get<std::string>(m.body());
    };
    Driver driver({}, i % 2 ? Driver::Role::kServer : Driver::Role::kClient, hooks);
    std::vector<char> out;
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = std::min<size_t>(1 + random() % 300, bytes.size() - at);
      driver.Read(bytes.data() + at, n);
      driver.Write(out, 1 << 20);
      (void)driver.Tick(std::chrono::steady_clock::now());
      at += n;
    }
    driver.Finish("the end");
  }
}

TEST_F(AmqpHostileTest, RandomBytesOnSocketsHarmNobodyElse) {
  ConnectionOptions options = Quick();
  options.handshake_timeout = 300ms;
  options.idle_timeout = 300ms;
  const Halt halt(this);
  Start(options);
  std::mt19937 random(Seed());
  const std::string good = Session();
  std::vector<Plain> sockets;
  for (int i = 0; i < 300; ++i) {
    sockets.push_back(Plain::Connect(listener->bound().port));
    (void)sockets.back().Send(Hostile(random, good));
    if (i % 3 == 0) sockets.pop_back();  // gone at once; the others stay and are silent
  }
  for (const Plain& socket : sockets) EXPECT_TRUE(socket.AwaitEnd());
  EXPECT_TRUE(StillOpen(bystander_));
  EXPECT_TRUE(Works());
}

}  // namespace
}  // namespace datawire::amqp
