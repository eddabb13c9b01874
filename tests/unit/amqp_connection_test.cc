#include "amqp_fixture.h"

namespace datawire::amqp {
namespace {

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

}  // namespace
}  // namespace datawire::amqp
