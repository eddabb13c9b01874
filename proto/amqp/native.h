#pragma once

#include <proton/connection.hpp>
#include <proton/link.hpp>
#include <proton/message.hpp>
#include <proton/session.hpp>
#include <proton/transfer.hpp>
#include <proton/transport.hpp>

/// The C handles behind proton's C++ objects, for what its C++ API lacks. Private to this room;
/// bound to the strand of the connection.
namespace datawire::amqp::native {

template <typename Object, typename Handle>
struct Access : Object {
  static Handle* Get(const Object& object) { return (object.*(&Access::pn_object))(); }
};

inline pn_connection_t* Of(const proton::connection& c) {
  return Access<proton::connection, pn_connection_t>::Get(c);
}
inline pn_session_t* Of(const proton::session& s) {
  return Access<proton::session, pn_session_t>::Get(s);
}
inline pn_link_t* Of(const proton::link& l) {
  return Access<proton::link, pn_link_t>::Get(l);
}
inline pn_delivery_t* Of(const proton::transfer& t) {
  return Access<proton::transfer, pn_delivery_t>::Get(t);
}
inline pn_data_t* BodyOf(const proton::message& m) {
  struct Body : proton::internal::value_base {
    static const proton::internal::data& Of(const value_base& v) { return v.*(&Body::data_); }
  };
  return Access<proton::internal::data, pn_data_t>::Get(Body::Of(m.body()));
}
inline pn_transport_t* Of(const proton::transport& t) {
  return Access<proton::transport, pn_transport_t>::Get(t);
}

}  // namespace datawire::amqp::native
