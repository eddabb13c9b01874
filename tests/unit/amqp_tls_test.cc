#include <string>

#include "amqp/tls.h"
#include "amqp_fixture.h"
#include "amqp_peer.h"
#include "certificates.h"

namespace datawire::amqp {
namespace {

class AmqpTlsTest : public AmqpTest {
 protected:
  static ConnectionOptions With(const TlsFiles& files) {
    ConnectionOptions options = Quick();
    auto tls = Tls::Open(files);
    EXPECT_TRUE(tls.ok()) << tls.status().ToString();
    if (tls.ok()) options.tls = *tls;
    return options;
  }
  /// Why a connection with `options` to the listener ended; no message: it opened.
  std::string Fails(ConnectionOptions options) {
    bool open = false;
    const auto end = Connect(
        [&](End& e) {
          e.hooks->connection_open = [&](proton::connection&) {
            board.Change([&] { open = true; });
          };
        },
        std::move(options));
    EXPECT_TRUE(board.Await([&] { return open || end->closed; }));
    end->connection->Abort(Status(Code::kCancelled, "enough"));
    const std::string why = Closed(end).message();
    return open ? "" : why;
  }

  Certificates ca{"amqp_tls_test"}, foreign{"amqp_tls_test-foreign"};
  const TlsFiles server = ca.Issue("server"), client = ca.Issue("client");
};

TEST_F(AmqpTlsTest, BothEndsShowCertificatesAndMessagesFlow) {
  Listen(With(server));
  const Halt halt(this);
  EXPECT_TRUE(Works(With(client)));
}

TEST_F(AmqpTlsTest, AServerOfAnotherCaIsRefusedWithTheReason) {
  Listen(With(server));
  TlsFiles trusts_others = client;
  trusts_others.ca = foreign.Path("ca.crt");
  const Halt halt(this);
  const std::string why = Fails(With(trusts_others));
  EXPECT_NE(why.find("certificate does not pass"), std::string::npos) << why;
}

TEST_F(AmqpTlsTest, AServerThatIsNotTheHostIsRefused) {
  Listen(With(ca.Issue("elsewhere", "DNS:elsewhere.example")));
  const Halt halt(this);
  const std::string why = Fails(With(client));
  EXPECT_NE(why.find("does not pass"), std::string::npos) << why;
}

TEST_F(AmqpTlsTest, AClientOfAnotherCaIsRefusedAndHearsOfIt) {
  Listen(With(server));
  TlsFiles mallory = foreign.Issue("client");
  mallory.ca = ca.Path("ca.crt");
  const Halt halt(this);
  const std::string why = Fails(With(mallory));
  EXPECT_NE(why.find("unknown ca"), std::string::npos) << why;
  EXPECT_NE(Closed(Served(0)).message().find("does not pass"), std::string::npos);
}

TEST_F(AmqpTlsTest, PlaintextAndTlsDoNotMeet) {
  Listen(With(server));
  const Halt halt(this);
  EXPECT_NE(Fails(Quick()), "");
  EXPECT_NE(Closed(Served(0)).message().find("no TLS with"), std::string::npos);
  Listen();
  const std::string why = Fails(With(client));
  EXPECT_NE(why.find("no TLS with"), std::string::npos) << why;
}

TEST_F(AmqpTlsTest, WhoStopsInTheHandshakeIsGoneAtItsTimeout) {
  ConnectionOptions options = With(server);
  options.handshake_timeout = 60ms;
  Listen(options);
  const Halt halt(this);
  const Plain silent = Plain::Connect(listener->bound().port);
  const std::string server_side = Closed(Served(0)).message();
  EXPECT_NE(server_side.find("no TLS with 127.0.0.1"), std::string::npos) << server_side;
  EXPECT_NE(server_side.find("within 60 ms"), std::string::npos) << server_side;

  const Plain deaf = Plain::Listening();
  options = With(client);
  options.handshake_timeout = 60ms;
  auto end = std::make_shared<End>();
  auto c = Connection::Open(client_io, {"127.0.0.1", deaf.port()}, options, end->hooks,
                            [&](const Status& s) { board.Change([&] { end->closed = s; }); });
  EXPECT_NE(Closed(end).message().find("no TLS with 127.0.0.1"), std::string::npos);
}

TEST_F(AmqpTlsTest, StopEndsAHandshakeInProgress) {
  Listen(With(server));
  const Plain silent = Plain::Connect(listener->bound().port);
  const auto end = Served(0);
  server_io.Stop();
  EXPECT_EQ(Closed(end).code(), Code::kCancelled);
}

TEST_F(AmqpTlsTest, RenewedFilesAreTakenAtTheNextConnectionAndHalfRenewedOnesAreNot) {
  Listen(With(server));
  const ConnectionOptions options = With(client);
  const Halt halt(this);
  EXPECT_TRUE(Works(options));
  std::filesystem::copy_file(server.key, ca.Path("server.key.kept"));
  std::filesystem::copy_file(client.key, server.key,
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(Works(options)) << "what was read before holds";
  ca.Issue("server", "DNS:elsewhere.example");
  EXPECT_NE(Fails(options), "") << "the new one is shown";
  ca.Issue("server");
  EXPECT_TRUE(Works(options));
  // A client's, too.
  const TlsFiles other = foreign.Issue("client");
  std::filesystem::rename(other.key, client.key);
  std::filesystem::rename(other.cert, client.cert);
  EXPECT_NE(Fails(options), "") << "the new one is shown";
}

TEST_F(AmqpTlsTest, AFileThatIsWrongIsNamed) {
  TlsFiles files = server;
  files.ca = ca.Path("none");
  const auto tls = Tls::Open(files);
  EXPECT_EQ(tls.status().code(), Code::kInvalid);
  EXPECT_NE(tls.status().message().find("tls-ca"), std::string::npos) << tls.status().message();
}

}  // namespace
}  // namespace datawire::amqp
