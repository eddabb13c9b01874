#include <proton/connection.h>
#include <proton/link.h>
#include <proton/session.h>

#include <set>

#include "amqp/native.h"
#include "amqp_fixture.h"
#include "amqp_peer.h"

namespace datawire::amqp {
namespace {

using Kind = RemoteOutcome::Kind;

/// Each function of proton_extras.h, by what the peer sees on the wire.
class AmqpExtrasTest : public AmqpTest {
 protected:
  /// A receiver that settles by itself what it gets.
  void Settle(const std::function<void(proton::delivery&)>& settle) {
    serve = [settle](End& end) {
      end.hooks->receiver_open = [](proton::receiver& r) {
        r.open(proton::receiver_options().credit_window(10).auto_accept(false));
      };
      end.hooks->message = [settle](proton::delivery& d, proton::message&) { settle(d); };
    };
  }
  /// Sends one message to a server and returns how it was settled.
  RemoteOutcome Sent() {
    const Halt halt(this);
    Listen();
    Peer peer(listener->bound().port);
    std::optional<RemoteOutcome> outcome;
    peer.hooks->settled = [&](proton::tracker& t) { outcome = Outcome(t); };
    peer.hooks->sendable = [sent = false](proton::sender& s) mutable {
      if (std::exchange(sent, true)) return;
      EXPECT_TRUE(Send(s, proton::message("m"), 7).ok());
    };
    peer.driver.connection().open_sender("x");
    EXPECT_TRUE(peer.RunUntil([&] { return outcome.has_value(); }));
    return outcome.value_or(RemoteOutcome{});
  }
};

TEST_F(AmqpExtrasTest, ARejectTellsItsCondition) {
  Settle([](proton::delivery& d) { Reject(d, "app:bad", "line 3 is no number"); });
  const RemoteOutcome outcome = Sent();
  EXPECT_EQ(outcome.kind, Kind::kRejected);
  EXPECT_EQ(outcome.condition, "app:bad");
  EXPECT_EQ(outcome.description, "line 3 is no number");
}

TEST_F(AmqpExtrasTest, AModifyTellsThatItFailed) {
  Settle([](proton::delivery& d) { Modify(d, true, false); });
  const RemoteOutcome outcome = Sent();
  EXPECT_EQ(outcome.kind, Kind::kModified);
  EXPECT_TRUE(outcome.failed);
  EXPECT_FALSE(outcome.undeliverable_here);
}

TEST_F(AmqpExtrasTest, AModifyTellsThatItIsUndeliverableHere) {
  Settle([](proton::delivery& d) { Modify(d, false, true); });
  const RemoteOutcome outcome = Sent();
  EXPECT_EQ(outcome.kind, Kind::kModified);
  EXPECT_FALSE(outcome.failed);
  EXPECT_TRUE(outcome.undeliverable_here);
}

TEST_F(AmqpExtrasTest, AcceptedAndReleasedAreTold) {
  Settle([](proton::delivery& d) { d.accept(); });
  EXPECT_EQ(Sent().kind, Kind::kAccepted);
}

TEST_F(AmqpExtrasTest, ReleasedIsTold) {
  Settle([](proton::delivery& d) { d.release(); });
  EXPECT_EQ(Sent().kind, Kind::kReleased);
}

TEST_F(AmqpExtrasTest, ACloseCarriesItsErrorWithTheInfoMap) {
  serve = [](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      r.open();
      CloseWithError(r, "amqp:link:redirect", "over there",
                     {{"network-host", "10.0.0.1"}, {"address", "//a/b"}});
    };
  };
  const Halt halt(this);
  Listen();
  Peer peer(listener->bound().port);
  std::optional<RemoteError> error;
  peer.hooks->sender_error = [&](proton::sender& s) { error = ErrorOf(s); };
  peer.driver.connection().open_sender("x");
  ASSERT_TRUE(peer.RunUntil([&] { return error.has_value(); }));
  EXPECT_EQ(error->condition, "amqp:link:redirect");
  EXPECT_EQ(error->description, "over there");
  EXPECT_EQ(error->info, (Info{{"network-host", "10.0.0.1"}, {"address", "//a/b"}}));
}

TEST_F(AmqpExtrasTest, ARefusalHasNoTerminusAndThenTheError) {
  serve = [](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      Refuse(r, "amqp:not-found", "no //a/b here", {{"hint", "x"}});
    };
    end.hooks->sender_open = [](proton::sender& s) { Refuse(s, "amqp:not-found", "nor this"); };
  };
  const Halt halt(this);
  Listen();
  Peer peer(listener->bound().port);
  int refused = 0, errors = 0;
  peer.hooks->sender_open = [&](proton::sender& s) {
    EXPECT_EQ(s.target().address(), "");
    refused += Refused(s);
  };
  peer.hooks->receiver_open = [&](proton::receiver& r) {
    EXPECT_EQ(r.source().address(), "");
    refused += Refused(r);
  };
  peer.hooks->sender_error = [&](proton::sender& s) {
    EXPECT_EQ(ErrorOf(s).description, "no //a/b here");
    EXPECT_EQ(ErrorOf(s).info, (Info{{"hint", "x"}}));
    ++errors;
  };
  peer.hooks->receiver_error = [&](proton::receiver& r) {
    EXPECT_EQ(ErrorOf(r).condition, "amqp:not-found");
    ++errors;
  };
  peer.driver.connection().open_sender("//a/b");
  peer.driver.connection().open_receiver("//a/b");
  EXPECT_TRUE(peer.RunUntil([&] { return errors == 2; }));
  EXPECT_EQ(refused, 2);
}

TEST_F(AmqpExtrasTest, AnAcceptedAttachIsNotTakenForARefusal) {
  const Halt halt(this);
  Listen();
  Peer peer(listener->bound().port);
  bool open = false;
  peer.hooks->sender_open = [&](proton::sender& s) {
    EXPECT_FALSE(Refused(s));
    open = true;
  };
  peer.driver.connection().open_sender("x");
  EXPECT_TRUE(peer.RunUntil([&] { return open; }));
}

TEST_F(AmqpExtrasTest, EveryMessageCarriesItsOwnTag) {
  std::set<uint64_t> tags;
  serve = [&](End& end) {
    end.hooks->message = [&](proton::delivery& d, proton::message&) {
      board.Change([&] { tags.insert(TagOf(d)); });
    };
  };
  const Halt halt(this);
  Listen();
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [](proton::connection& c) { c.open_sender("x"); };
    end.hooks->sendable = [tag = uint64_t{0}](proton::sender& s) mutable {
      while (tag < 20 && s.credit() > 0) {
        proton::sender fresh = s;  // proton's own counter starts again in each wrapper
        if (++tag == 5) {
          const std::vector<char> bytes = proton::message("encoded").encode();
          EXPECT_TRUE(SendEncoded(fresh, {bytes.data(), bytes.size()}, tag).ok());
        } else {
          EXPECT_TRUE(Send(fresh, proton::message("m"), tag).ok());
        }
      }
    };
  });
  EXPECT_TRUE(board.Await([&] { return tags.size() == 20; }));
  EXPECT_EQ(*tags.begin(), 1u);
}

TEST_F(AmqpExtrasTest, SendObeysCreditAndTheState) {
  proton::sender none;
  EXPECT_EQ(Send(none, proton::message("m"), 1).status().code(), Code::kUnavailable);
  serve = [](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      r.open(proton::receiver_options().credit_window(0));
      r.add_credit(2);
    };
  };
  const Halt halt(this);
  Listen();
  Peer peer(listener->bound().port);
  proton::sender sender = peer.driver.connection().open_sender("x");
  EXPECT_EQ(Send(sender, proton::message("m"), 1).status().code(), Code::kOverloaded);
  ASSERT_TRUE(peer.RunUntil([&] { return sender.credit() == 2; }));
  EXPECT_TRUE(Send(sender, proton::message("m"), 1).ok());
  EXPECT_TRUE(Send(sender, proton::message("m"), 2).ok());
  EXPECT_EQ(Send(sender, proton::message("m"), 3).status().code(), Code::kOverloaded);
  EXPECT_EQ(SendEncoded(sender, "m", 3).code(), Code::kOverloaded);
  sender.close();
  EXPECT_EQ(Send(sender, proton::message("m"), 3).status().code(), Code::kUnavailable);
}

TEST_F(AmqpExtrasTest, ForgottenDeliveriesAreSettledTowardsThePeer) {
  std::vector<uint64_t> settled;
  serve = [&](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      r.open(proton::receiver_options().auto_accept(false));
    };
    end.hooks->delivery_settle = [&](proton::delivery& d) {
      board.Change([&] { settled.push_back(TagOf(d)); });
    };
  };
  const Halt halt(this);
  Listen();
  Peer peer(listener->bound().port);
  proton::sender sender = peer.driver.connection().open_sender("x");
  ASSERT_TRUE(peer.RunUntil([&] { return sender.credit() > 0; }));
  EXPECT_TRUE(Send(sender, proton::message("m"), 41).ok());
  EXPECT_TRUE(Send(sender, proton::message("m"), 42).ok());
  ASSERT_TRUE(peer.Flush());
  Forget(sender, 42);
  Forget(sender, 42);
  EXPECT_EQ(pn_link_unsettled(native::Of(sender)), 1);
  ASSERT_TRUE(peer.Flush());
  EXPECT_TRUE(board.Await([&] { return !settled.empty(); }));
  EXPECT_EQ(settled, std::vector<uint64_t>{42});
}

TEST_F(AmqpExtrasTest, ADrainReturnsTheCredit) {
  bool finished = false;
  int credit = -1, heard = 0;
  serve = [&](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      r.open(proton::receiver_options().credit_window(0));
      r.add_credit(10);
      r.drain();
    };
    end.hooks->message = [&](proton::delivery&, proton::message&) { ++heard; };
    end.hooks->drain_finish = [&](proton::receiver& r) {
      board.Change([&] {
        finished = true;
        credit = r.credit();
      });
    };
  };
  const Halt halt(this);
  Listen();
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [](proton::connection& c) { c.open_sender("x"); };
    end.hooks->sendable = [sent = false](proton::sender& s) mutable {
      if (!std::exchange(sent, true)) {
        EXPECT_TRUE(Send(s, proton::message("m"), 1).ok());
      }
      EXPECT_TRUE(ReturnCreditIfDraining(s) || s.credit() == 0);
    };
  });
  EXPECT_TRUE(board.Await([&] { return finished; }));
  EXPECT_EQ(credit, 0);
  EXPECT_EQ(heard, 1) << "what could be sent was not";
}

TEST_F(AmqpExtrasTest, ADrainCanBeAnsweredInItsFirstCallback) {
  bool finished = false;
  serve = [&](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      r.open(proton::receiver_options().credit_window(0));
      r.add_credit(10);
      r.drain();
    };
    end.hooks->drain_finish = [&](proton::receiver&) { board.Change([&] { finished = true; }); };
  };
  const Halt halt(this);
  Listen();
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [](proton::connection& c) { c.open_sender("x"); };
    end.hooks->drain_start = [](proton::sender& s) { EXPECT_TRUE(ReturnCreditIfDraining(s)); };
  });
  EXPECT_TRUE(board.Await([&] { return finished; }));
}

TEST_F(AmqpExtrasTest, TheLargestMessageIsTold) {
  serve = [](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      SetMaxMessageSize(r, 4321);
      r.open();
    };
  };
  const Halt halt(this);
  Listen();
  Peer peer(listener->bound().port);
  proton::sender sender = peer.driver.connection().open_sender("x");
  ASSERT_TRUE(peer.RunUntil([&] { return sender.credit() > 0; }));
  EXPECT_EQ(RemoteMaxMessageSize(sender), 4321u);
}

TEST_F(AmqpExtrasTest, ClosedLinksAndSessionsAreFreedOnBothSides) {
  size_t closes = 0, at_server = 0;
  bool counted = false;
  const Halt halt(this);
  Listen();
  Peer peer(listener->bound().port);
  const auto kept = [](const proton::connection& connection) {
    pn_connection_t* c = native::Of(connection);
    size_t n = 0;
    for (pn_link_t* l = pn_link_head(c, 0); l; l = pn_link_next(l, 0)) ++n;
    for (pn_session_t* s = pn_session_head(c, 0); s; s = pn_session_next(s, 0)) ++n;
    return n;
  };
  peer.hooks->sender_close = [&](proton::sender&) { ++closes; };
  proton::session session = peer.driver.connection().open_session();
  for (size_t i = 1; i <= 500; ++i) {
    {
      proton::sender sender = session.open_sender("x");
      ASSERT_TRUE(peer.RunUntil([&] { return sender.credit() > 0; }));
      ASSERT_TRUE(Send(sender, proton::message("m"), i).ok());
      sender.close();
    }
    ASSERT_TRUE(peer.RunUntil([&] { return closes == i; }));
    ASSERT_EQ(kept(peer.driver.connection()), 1u) << "links of an open session";
    if (i % 10 != 0) continue;
    session.close();
    ASSERT_TRUE(peer.RunUntil([&] { return kept(peer.driver.connection()) == 0; })) << i;
    session = peer.driver.connection().open_session();
  }
  auto server = Served(0);
  server->connection->Post([&, c = server->connection.get()] {
    board.Change([&] {
      at_server = kept(c->proton());
      counted = true;
    });
  });
  ASSERT_TRUE(board.Await([&] { return counted; }));
  EXPECT_LE(at_server, 1u);  // the session that is open
  EXPECT_TRUE(StillOpen(server));
}

TEST_F(AmqpExtrasTest, FreeingTwiceAndSettlingAfterwardsAreHarmless) {
  bool done = false;
  std::optional<proton::delivery> held;
  std::optional<proton::receiver> link;
  serve = [&](End& end) {
    end.hooks->receiver_open = [](proton::receiver& r) {
      if (r.target().address() == "probe") return r.open();
      r.open(proton::receiver_options().auto_accept(false));
    };
    end.hooks->message = [&](proton::delivery& d, proton::message&) {
      if (d.receiver().target().address() == "probe") return;
      held = d;
      link = d.receiver();
    };
    end.hooks->receiver_close = [&](proton::receiver&) { board.Change([&] { done = true; }); };
  };
  const Halt halt(this);
  Listen();
  auto client = Connect([&](End& end) {
    end.hooks->connection_open = [](proton::connection& c) { c.open_sender("x"); };
    end.hooks->sendable = [](proton::sender& s) {
      if (s.credit() <= 0) return;
      EXPECT_TRUE(Send(s, proton::message("m"), 1).ok());
      s.close();
    };
  });
  ASSERT_TRUE(board.Await([&] { return done; }));
  auto server = Served(0);
  bool settled = false;
  server->connection->Post([&] {
    Free(*link);
    Free(*link);
    held->accept();  // as a handler does that answers late
    held.reset();
    link.reset();
    board.Change([&] { settled = true; });
  });
  ASSERT_TRUE(board.Await([&] { return settled; }));
  EXPECT_TRUE(Works());
  EXPECT_TRUE(StillOpen(server));
}

TEST_F(AmqpExtrasTest, ReadingAnEmptyValueThrowsWhereWeCatchIt) {
  // Proton's fact 6, on which the guard's promise rests.
  proton::value empty;
  EXPECT_TRUE(empty.empty());
  EXPECT_THROW((void)proton::get<std::string>(empty), std::exception);
}

TEST(AmqpConditionTest, EveryCodeComesBackFromItsCondition) {
  for (int i = 1; i <= static_cast<int>(Code::kInternal); ++i) {
    const CodeMapping& row = MappingOf(static_cast<Code>(i));
    const Code back = CodeOfCondition(row.amqp_condition);
    EXPECT_EQ(MappingOf(back).amqp_condition, row.amqp_condition);
  }
  EXPECT_EQ(CodeOfCondition("amqp:not-found"), Code::kNotFound);
  EXPECT_EQ(CodeOfCondition("vendor:special"), Code::kUnavailable);
}

}  // namespace
}  // namespace datawire::amqp
