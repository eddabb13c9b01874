#pragma once

#include <exception>
#include <memory>
#include <optional>
#include <proton/link.hpp>
#include <proton/messaging_handler.hpp>
#include <proton/session.hpp>
#include <string>
#include <vector>

#include "amqp/connection.h"

namespace datawire::amqp {

/// Why a connection ends from our side: what the peer reads and what our caller reads.
struct Failure {
  std::string condition;
  Status status;
};

/// Stands between proton and a user's handler: keeps exceptions in, refuses links beyond the limit,
/// notices senders that overrun their credit, frees what was closed. Bound to the strand.
class Guard final : public proton::messaging_handler {
 public:
  Guard(const ConnectionOptions& options, std::shared_ptr<proton::messaging_handler> inner)
      : max_links_(options.max_links), inner_(std::move(inner)) {}

  /// The first failure; from then on the inner handler hears nothing.
  const std::optional<Failure>& failure() const { return failure_; }
  void Silence() { silent_ = true; }
  bool opened() const { return opened_; }
  /// The peer closed the connection; its error, if it gave one.
  bool remote_closed() const { return remote_closed_; }
  const std::optional<Failure>& remote_error() const { return remote_error_; }

  /// Frees closed links and sessions, which proton keeps for as long as their connection; outside
  /// of a dispatch only. A session that ended with links on it stays: freeing it would free them
  /// under those who hold them, whom proton tells nothing of their end.
  void Sweep();

  void on_transport_open(proton::transport& t) override;
  void on_transport_close(proton::transport& t) override;
  void on_transport_error(proton::transport& t) override;
  void on_connection_open(proton::connection& c) override;
  void on_connection_close(proton::connection& c) override;
  void on_connection_error(proton::connection& c) override;
  void on_connection_wake(proton::connection& c) override;
  void on_session_open(proton::session& s) override;
  void on_session_close(proton::session& s) override;
  void on_session_error(proton::session& s) override;
  void on_receiver_open(proton::receiver& r) override;
  void on_receiver_detach(proton::receiver& r) override;
  void on_receiver_close(proton::receiver& r) override;
  void on_receiver_error(proton::receiver& r) override;
  void on_receiver_drain_finish(proton::receiver& r) override;
  void on_sender_open(proton::sender& s) override;
  void on_sender_detach(proton::sender& s) override;
  void on_sender_close(proton::sender& s) override;
  void on_sender_error(proton::sender& s) override;
  void on_sender_drain_start(proton::sender& s) override;
  void on_sendable(proton::sender& s) override;
  void on_message(proton::delivery& d, proton::message& m) override;
  void on_delivery_settle(proton::delivery& d) override;
  void on_tracker_accept(proton::tracker& t) override;
  void on_tracker_reject(proton::tracker& t) override;
  void on_tracker_release(proton::tracker& t) override;
  void on_tracker_settle(proton::tracker& t) override;
  void on_error(const proton::error_condition& e) override;

 private:
  template <typename Event>
  void Call(Event event) {
    if (silent_ || failure_) return;
    try {
      event();
    } catch (const std::exception& e) {
      Threw(e.what());
    } catch (...) {
      Threw("an exception that is no std::exception");
    }
  }
  void Threw(const char* what);
  bool Admit(proton::link link);
  bool Refused(const proton::link& link) const;

  const uint32_t max_links_;
  const std::shared_ptr<proton::messaging_handler> inner_;
  bool silent_ = false;
  bool opened_ = false;
  bool remote_closed_ = false;
  std::optional<Failure> failure_;
  std::optional<Failure> remote_error_;
  std::vector<proton::link> closed_links_;
  std::vector<proton::session> closed_sessions_;
  size_t kept_sessions_ = 0;                      // ended with links on them; at most max_links_
  std::vector<proton::link> admitted_, refused_;  // of the peer's making, not closed by it yet
};

}  // namespace datawire::amqp
