#include "amqp/driver.h"

#include <proton/condition.h>
#include <proton/connection.h>
#include <proton/delivery.h>
#include <proton/link.h>
#include <proton/session.h>
#include <proton/transport.h>

#include <algorithm>
#include <cstring>
#include <proton/connection_options.hpp>
#include <proton/duration.hpp>
#include <proton/error_condition.hpp>
#include <proton/timestamp.hpp>
#include <proton/transport.hpp>
#include <proton/uuid.hpp>

#include "amqp/native.h"
#include "amqp/proton_extras.h"

namespace datawire::amqp {

namespace {

std::string Describe(pn_condition_t* condition) {
  const char* name = pn_condition_get_name(condition);
  const char* text = pn_condition_get_description(condition);
  return std::string(name ? name : "no name") + ": " + (text ? text : "no description");
}

}  // namespace

Driver::Driver(const ConnectionOptions& options, Role role,
               std::shared_ptr<proton::messaging_handler> handler)
    : options_(options), guard_(options, std::move(handler)) {
  proton::connection_options o;
  o.handler(guard_)
      .container_id(options.container_id.empty() ? proton::uuid::random().str()
                                                 : options.container_id)
      .max_frame_size(options.max_frame_size)
      .max_sessions(static_cast<uint16_t>(options.max_channels - 1))  // proton: the highest number
      .idle_timeout(proton::duration(static_cast<uint64_t>(options.idle_timeout.count())));
  if (!options.virtual_host.empty()) o.virtual_host(options.virtual_host);
  if (role == Role::kServer) {
    o.sasl_allowed_mechs("ANONYMOUS");
    driver_.accept(o);
    return;
  }
  o.sasl_enabled(options.sasl);
  if (options.sasl) o.sasl_allowed_mechs("ANONYMOUS");
  driver_.connect(o);
}

void Driver::Read(const char* data, size_t size) {
  // A slice is at most one message long, so that only a link's current delivery can be too large.
  const size_t slice = std::max<size_t>(options_.max_message_bytes, 512);
  while (size > 0 && !failed() && !finished_) {
    proton::io::mutable_buffer room = driver_.read_buffer();
    if (room.size == 0) return;  // the peer's close has been read: what follows is none of AMQP
    const size_t n = std::min({size, room.size, slice});
    std::memcpy(room.data, data, n);
    driver_.read_done(n);
    data += n;
    size -= n;
    CheckBytes();
    Dispatch();
  }
}

void Driver::Write(std::vector<char>& out, size_t most) {
  BoundSessions();
  while (out.size() < most) {
    const proton::io::const_buffer pending = driver_.write_buffer();
    if (pending.size == 0) return;
    out.insert(out.end(), pending.data, pending.data + pending.size);
    driver_.write_done(pending.size);
  }
}

void Driver::Dispatch() {
  DispatchOnce();
  if (guard_.failure() && !failure_) Fail(*guard_.failure());
  guard_.Sweep();
}

void Driver::DispatchOnce() {
  const bool alive = driver_.dispatch();
  if (!alive) finished_ = true;
  pn_condition_t* condition = pn_transport_condition(native::Of(driver_.transport()));
  if (!pn_condition_is_set(condition)) return;
  const char* name = pn_condition_get_name(condition);
  if (name && std::strcmp(name, "exception") == 0) {
    // Proton notes so what the guard threw, or what it threw itself at a delivery that it could
    // not make a message of.
    const char* what = pn_condition_get_description(condition);
    const std::string text = what ? what : "no reason";
    pn_condition_clear(condition);
    if (!failed() && !guard_.failure())
      Fail({"amqp:decode-error", Status(Code::kUnavailable, "the peer sent no message: " + text)});
    return;
  }
  if (failed()) return;
  transport_failed_ = true;
  transport_error_ = Status(Code::kUnavailable, Describe(condition));
}

void Driver::CheckBytes() {
  pn_connection_t* connection = native::Of(driver_.connection());
  size_t held = 0;
  for (pn_session_t* s = pn_session_head(connection, 0); s; s = pn_session_next(s, 0))
    held += pn_session_incoming_bytes(s);
  if (held <= options_.max_message_bytes) return;
  for (pn_link_t* l = pn_link_head(connection, 0); l; l = pn_link_next(l, 0)) {
    pn_delivery_t* delivery = pn_link_is_receiver(l) ? pn_link_current(l) : nullptr;
    if (!delivery || pn_delivery_pending(delivery) <= options_.max_message_bytes) continue;
    const std::string text = "a message of " + std::to_string(pn_delivery_pending(delivery)) +
                             " bytes or more, at most " +
                             std::to_string(options_.max_message_bytes);
    Fail({"amqp:link:message-size-exceeded", Status(Code::kUnavailable, "the peer sent " + text)});
    return;
  }
  const size_t most = limits::kPartialMessages * options_.max_message_bytes;
  if (held > most + options_.max_frame_size)
    Fail({"amqp:resource-limit-exceeded",
          Status(Code::kUnavailable, "the peer holds " + std::to_string(held) +
                                         " bytes of unfinished messages, at most " +
                                         std::to_string(most))});
}

void Driver::BoundSessions() {
  const size_t capacity = size_t{limits::kSessionFrames} * options_.max_frame_size;
  for (pn_session_t* s = pn_session_head(native::Of(driver_.connection()), 0); s;
       s = pn_session_next(s, 0))
    if (pn_session_get_incoming_capacity(s) != capacity)
      pn_session_set_incoming_capacity(s, capacity);
}

std::optional<Driver::Now> Driver::Tick(Now now) {
  using std::chrono::milliseconds;
  // One hour ahead: proton takes 0 for "never".
  const auto ms =
      std::chrono::duration_cast<milliseconds>(now.time_since_epoch()).count() + 3600000;
  const int64_t next = driver_.tick(proton::timestamp(ms)).milliseconds();
  if (next <= 0) return std::nullopt;
  return now + milliseconds(std::max<int64_t>(next - ms, 1));
}

void Driver::Close() {
  if (!failed()) driver_.connection().close();
}

void Driver::Fail(Failure failure) {
  if (failed()) return;
  guard_.Silence();
  driver_.connection().close(proton::error_condition(failure.condition, failure.status.message()));
  failure_ = std::move(failure);
}

void Driver::Finish(const std::string& reason) {
  driver_.disconnected(proton::error_condition("amqp:connection:forced", reason));
  driver_.dispatch();
  guard_.Silence();
}

std::optional<Status> Driver::reason() const {
  if (failure_) return failure_->status;
  if (guard_.remote_error()) return guard_.remote_error()->status;
  return transport_error_;
}

}  // namespace datawire::amqp
