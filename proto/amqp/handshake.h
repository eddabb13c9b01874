#pragma once

#include <boost/asio/error.hpp>
#include <string>

#include "datawire/status.h"

namespace datawire::amqp {

/// What a pump does differently over different streams: between a connected socket and the first
/// byte of AMQP, and at the end of the input. Here for streams that add nothing.
template <typename Stream>
struct Handshake {
  template <typename Done>
  static void Run(Stream&, bool /*client*/, Done done) {
    done(boost::system::error_code());
  }
  static std::string Reason(Stream&, const boost::system::error_code& error) {
    return error.message();
  }
  /// Not OK: it is not who it has to be.
  template <typename Options>
  static Status Recognise(Stream&, const Options&) {
    return {};
  }
  static bool IsEnd(const boost::system::error_code& error) {
    return error == boost::asio::error::eof;
  }
};

}  // namespace datawire::amqp
