#include "amqp/guard.h"

#include <proton/connection.h>
#include <proton/link.h>
#include <proton/session.h>

#include <algorithm>
#include <proton/connection.hpp>
#include <proton/delivery.hpp>
#include <proton/error.hpp>
#include <proton/error_condition.hpp>
#include <proton/receiver.hpp>
#include <proton/sender.hpp>
#include <proton/tracker.hpp>
#include <proton/transport.hpp>

#include "amqp/native.h"
#include "amqp/proton_extras.h"

namespace datawire::amqp {

void Guard::Threw(const char* what) {
  failure_ = Failure{"amqp:internal-error",
                     Status(Code::kInternal, std::string("an AMQP handler threw: ") + what)};
}

namespace {
bool HasLinks(const proton::session& session) {
  pn_session_t* s = native::Of(session);
  for (pn_link_t* l = pn_link_head(pn_session_connection(s), 0); l; l = pn_link_next(l, 0)) {
    if (pn_link_session(l) == s) return true;
  }
  return false;
}
}  // namespace

void Guard::Sweep() {
  for (proton::link& link : closed_links_) {
    std::erase(refused_, link);
    std::erase(admitted_, link);
    Free(link);
  }
  for (proton::session& session : closed_sessions_) {
    const auto within = [&](const proton::link& link) { return link.session() == session; };
    std::erase_if(refused_, within);
    std::erase_if(admitted_, within);
    if (!HasLinks(session)) {
      Free(session);
    } else if (++kept_sessions_ > max_links_ && !failure_) {
      failure_ = Failure{
          "amqp:resource-limit-exceeded",
          Status(Code::kUnavailable, "the peer ended more than " + std::to_string(max_links_) +
                                         " sessions with links on them")};
    }
  }
  closed_links_.clear();
  closed_sessions_.clear();
}

bool Guard::Admit(proton::link link) {
  if (!link.uninitialized()) return true;  // the answer to an attach of ours
  if (admitted_.size() < max_links_) {
    admitted_.push_back(link);
    return true;
  }
  Refuse(link, "amqp:resource-limit-exceeded",
         "this connection has " + std::to_string(max_links_) + " links already, the most it may");
  refused_.push_back(link);
  return false;
}

bool Guard::Refused(const proton::link& link) const {
  return std::find(refused_.begin(), refused_.end(), link) != refused_.end();
}

void Guard::on_transport_open(proton::transport& t) {
  Call([&] { inner_->on_transport_open(t); });
}
void Guard::on_transport_close(proton::transport& t) {
  Call([&] { inner_->on_transport_close(t); });
}
// The default on_error throws; here the connection has ended already, with a reason of its own.
void Guard::on_transport_error(proton::transport& t) {
  if (silent_ || failure_) return;
  try {
    inner_->on_transport_error(t);
  } catch (...) {
  }
}
void Guard::on_connection_open(proton::connection& c) {
  opened_ = true;
  Call([&] { inner_->on_connection_open(c); });
}
void Guard::on_connection_close(proton::connection& c) {
  remote_closed_ = true;
  Call([&] { inner_->on_connection_close(c); });
}
void Guard::on_connection_error(proton::connection& c) {
  const proton::error_condition error = c.error();
  remote_error_ = Failure{error.name(),
                          Status(CodeOfCondition(error.name()),
                                 "the peer closed: " + error.name() + ": " + error.description())};
  if (silent_ || failure_) return;
  try {
    inner_->on_connection_error(c);
  } catch (...) {
  }
}
void Guard::on_connection_wake(proton::connection& c) {
  Call([&] { inner_->on_connection_wake(c); });
}
void Guard::on_session_open(proton::session& s) {
  Call([&] { inner_->on_session_open(s); });
}
void Guard::on_session_close(proton::session& s) {
  Call([&] { inner_->on_session_close(s); });
  closed_sessions_.push_back(s);
}
void Guard::on_session_error(proton::session& s) {
  Call([&] { inner_->on_session_error(s); });
}
void Guard::on_receiver_open(proton::receiver& r) {
  Call([&] {
    if (Admit(r)) inner_->on_receiver_open(r);
  });
}
void Guard::on_receiver_detach(proton::receiver& r) {
  Call([&] {
    if (!Refused(r)) inner_->on_receiver_detach(r);
  });
  closed_links_.push_back(r);
}
void Guard::on_receiver_close(proton::receiver& r) {
  Call([&] {
    if (!Refused(r)) inner_->on_receiver_close(r);
  });
  closed_links_.push_back(r);
}
void Guard::on_receiver_error(proton::receiver& r) {
  Call([&] { inner_->on_receiver_error(r); });
}
void Guard::on_receiver_drain_finish(proton::receiver& r) {
  Call([&] { inner_->on_receiver_drain_finish(r); });
}
void Guard::on_sender_open(proton::sender& s) {
  Call([&] {
    if (Admit(s)) inner_->on_sender_open(s);
  });
}
void Guard::on_sender_detach(proton::sender& s) {
  Call([&] {
    if (!Refused(s)) inner_->on_sender_detach(s);
  });
  closed_links_.push_back(s);
}
void Guard::on_sender_close(proton::sender& s) {
  Call([&] {
    if (!Refused(s)) inner_->on_sender_close(s);
  });
  closed_links_.push_back(s);
}
void Guard::on_sender_error(proton::sender& s) {
  Call([&] { inner_->on_sender_error(s); });
}
void Guard::on_sender_drain_start(proton::sender& s) {
  Call([&] { inner_->on_sender_drain_start(s); });
}
void Guard::on_sendable(proton::sender& s) {
  Call([&] { inner_->on_sendable(s); });
}
void Guard::on_message(proton::delivery& d, proton::message& m) {
  // Proton does not hold senders to their credit; it is below zero after one message too many.
  if (d.receiver().credit() < 0 && !failure_)
    failure_ = Failure{"amqp:link:transfer-limit-exceeded",
                       Status(Code::kUnavailable, "the peer sent a message without credit for it")};
  Call([&] { inner_->on_message(d, m); });
  // Proton's auto_accept must not accept what the handler has not seen, or has thrown at.
  if (silent_ || failure_) throw proton::error("the connection has failed");
}
void Guard::on_delivery_settle(proton::delivery& d) {
  Call([&] { inner_->on_delivery_settle(d); });
}
void Guard::on_tracker_accept(proton::tracker& t) {
  Call([&] { inner_->on_tracker_accept(t); });
}
void Guard::on_tracker_reject(proton::tracker& t) {
  Call([&] { inner_->on_tracker_reject(t); });
}
void Guard::on_tracker_release(proton::tracker& t) {
  Call([&] { inner_->on_tracker_release(t); });
}
void Guard::on_tracker_settle(proton::tracker& t) {
  Call([&] { inner_->on_tracker_settle(t); });
}
void Guard::on_error(const proton::error_condition& e) {
  Call([&] { inner_->on_error(e); });
}

}  // namespace datawire::amqp
