#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <proton/connection.hpp>
#include <proton/connection_options.hpp>
#include <proton/delivery.hpp>
#include <proton/message.hpp>
#include <proton/messaging_handler.hpp>
#include <proton/receiver.hpp>
#include <proton/receiver_options.hpp>
#include <proton/sender.hpp>
#include <proton/sender_options.hpp>
#include <proton/session.hpp>
#include <proton/source.hpp>
#include <proton/target.hpp>
#include <proton/tracker.hpp>
#include <proton/transport.hpp>
#include <string>
#include <utility>
#include <vector>

#include "amqp/connection.h"
#include "amqp/proton_extras.h"

namespace datawire::amqp {

using namespace std::chrono_literals;

/// A value that one thread sets and another waits for. Thread-safe.
class Board {
 public:
  static constexpr std::chrono::seconds kDeadline{10};

  void Change(const std::function<void()>& change) {
    std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  /// False when the deadline passed.
  bool Await(const std::function<bool()>& condition,
             std::chrono::milliseconds deadline = kDeadline) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, deadline, condition);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

/// A handler whose callbacks are functions; what is not set does what proton does by default,
/// except for errors, which are only noted.
class Hooks : public proton::messaging_handler {
 public:
  std::function<void(proton::connection&)> connection_open;
  std::function<void(proton::receiver&)> receiver_open;
  std::function<void(proton::sender&)> sender_open;
  std::function<void(proton::sender&)> sendable, drain_start, sender_error, sender_close;
  std::function<void(proton::receiver&)> receiver_error, receiver_close, drain_finish;
  std::function<void(proton::delivery&, proton::message&)> message;
  std::function<void(proton::delivery&)> delivery_settle;
  std::function<void(proton::tracker&)> settled;
  std::function<void(proton::transport&)> transport_error;

  void on_connection_open(proton::connection& c) override {
    if (connection_open) connection_open(c);
    proton::messaging_handler::on_connection_open(c);
  }
  void on_receiver_open(proton::receiver& r) override {
    if (receiver_open) return receiver_open(r);
    proton::messaging_handler::on_receiver_open(r);
  }
  void on_sender_open(proton::sender& s) override {
    if (sender_open) return sender_open(s);
    proton::messaging_handler::on_sender_open(s);
  }
  void on_sendable(proton::sender& s) override { Run(sendable, s); }
  void on_sender_drain_start(proton::sender& s) override { Run(drain_start, s); }
  void on_sender_error(proton::sender& s) override { Run(sender_error, s); }
  void on_sender_close(proton::sender& s) override { Run(sender_close, s); }
  void on_receiver_error(proton::receiver& r) override { Run(receiver_error, r); }
  void on_receiver_close(proton::receiver& r) override { Run(receiver_close, r); }
  void on_receiver_drain_finish(proton::receiver& r) override { Run(drain_finish, r); }
  void on_message(proton::delivery& d, proton::message& m) override {
    if (message) message(d, m);
  }
  void on_delivery_settle(proton::delivery& d) override { Run(delivery_settle, d); }
  void on_tracker_settle(proton::tracker& t) override { Run(settled, t); }
  void on_transport_error(proton::transport& t) override { Run(transport_error, t); }
  void on_connection_error(proton::connection&) override {}
  void on_session_error(proton::session&) override {}
  void on_error(const proton::error_condition&) override {}

 private:
  template <typename F, typename O>
  static void Run(F& f, O& object) {
    if (f) f(object);
  }
};

/// One end of a connection and how it ended.
struct End {
  std::shared_ptr<Connection> connection;
  std::shared_ptr<Hooks> hooks = std::make_shared<Hooks>();
  std::optional<Status> closed;
};

/// Two Ios, a listener on loopback, and the ends of its connections.
class AmqpTest : public testing::Test {
 protected:
  /// Stops the Ios before the test's own variables go, which callbacks refer to: declare it after
  /// them.
  struct Halt {
    explicit Halt(AmqpTest* t) : test(t) {}
    ~Halt() {
      test->client_io.Stop();
      test->server_io.Stop();
    }
    AmqpTest* test;
  };

  static ConnectionOptions Quick() {
    ConnectionOptions options;
    options.connect_timeout = 2000ms;
    options.handshake_timeout = 5000ms;
    options.idle_timeout = 5000ms;
    return options;
  }

  void Listen(ConnectionOptions options = Quick(), size_t most = 1024) {
    auto listener_or = Listener::Open(
        server_io, {"127.0.0.1", 0}, options,
        [this] {
          auto end = std::make_shared<End>();
          if (serve) serve(*end);
          board.Change([&] { served.push_back(end); });
          return Listener::Accepted{
              end->hooks,
              [this, end](const Status& status) { board.Change([&] { end->closed = status; }); },
              [this, end](std::shared_ptr<Connection> c) {
                board.Change([&] { end->connection = std::move(c); });
              }};
        },
        most);
    ASSERT_TRUE(listener_or.ok()) << listener_or.status().ToString();
    listener = std::move(listener_or).value();
  }

  std::shared_ptr<End> Connect(const std::function<void(End&)>& prepare = nullptr,
                               ConnectionOptions options = Quick()) {
    auto end = std::make_shared<End>();
    if (prepare) prepare(*end);
    end->connection = Connection::Open(
        client_io, listener->bound(), options, end->hooks,
        [this, end](const Status& status) { board.Change([&] { end->closed = status; }); });
    return end;
  }

  /// How it ended; fails the test when it has not.
  Status Closed(const std::shared_ptr<End>& end) {
    if (board.Await([&] { return end->closed.has_value(); })) return *end->closed;
    ADD_FAILURE() << "the connection is still open";
    return Status(Code::kTimeout, "still open");
  }
  bool StillOpen(const std::shared_ptr<End>& end) {
    bool open = false;
    board.Change([&] { open = !end->closed; });
    return open;
  }
  std::shared_ptr<End> Served(size_t index) {
    EXPECT_TRUE(board.Await([&] { return served.size() > index && served[index]->connection; }));
    return served.at(index);
  }

  /// A client that sends one message on a new connection; true once it is accepted.
  bool Works(ConnectionOptions options = Quick()) {
    auto accepted = std::make_shared<bool>(false);
    auto end = Connect(
        [&](End& e) {
          e.hooks->connection_open = [](proton::connection& c) { c.open_sender("probe"); };
          e.hooks->sendable = [sent = false](proton::sender& s) mutable {
            if (s.credit() > 0 && !std::exchange(sent, true))
              (void)Send(s, proton::message("probe"), 1);
          };
          e.hooks->settled = [this, accepted](proton::tracker& t) {
            board.Change([&] { *accepted = Outcome(t).kind == RemoteOutcome::Kind::kAccepted; });
          };
        },
        std::move(options));
    const bool works = board.Await([&] { return *accepted || end->closed; });
    const bool ok = works && *accepted;
    end->connection->Close();
    (void)Closed(end);
    return ok;
  }

  Board board;
  std::function<void(End&)> serve;
  std::vector<std::shared_ptr<End>> served;
  Io client_io, server_io;
  std::unique_ptr<Listener> listener;
};

}  // namespace datawire::amqp
