#pragma once

#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <memory>
#include <string>
#include <utility>

#include "amqp/connection.h"
#include "amqp/handshake.h"
#include "amqp/io.h"
#include "amqp/tls.h"
#include "datawire/mutex.h"

namespace datawire::amqp {

using TlsStream = asio::ssl::stream<Socket>;

struct Tls::Impl {
  explicit Impl(TlsFiles of) : files(std::move(of)) {}
  /// With what the files hold now, if that is in order. Null: it never was.
  std::shared_ptr<asio::ssl::context> Now();

  const TlsFiles files;
  Mutex mutex;
  std::string seen DW_GUARDED_BY(mutex);  // how the files looked when they were read
  std::shared_ptr<asio::ssl::context> context DW_GUARDED_BY(mutex);
  std::string why DW_GUARDED_BY(mutex);  // they were not taken; empty: they were
};

/// A client's, for a connection to `host`: its certificate has to name it.
void ExpectHost(TlsStream& stream, const std::string& host);

template <>
struct Handshake<TlsStream> {
  template <typename Done>
  static void Run(TlsStream& stream, bool client, Done done) {
    stream.async_handshake(client ? TlsStream::client : TlsStream::server, std::move(done));
  }
  /// Why it failed, as exactly as is known.
  static std::string Reason(TlsStream& stream, const boost::system::error_code& error);
  /// Its certificate names the identity that `options` want, if any, and no other.
  static Status Recognise(TlsStream& stream, const ConnectionOptions& options);
  /// A peer that closes without saying so to TLS has said so to AMQP.
  static bool IsEnd(const boost::system::error_code& error) {
    return error == asio::error::eof || error == asio::ssl::error::stream_truncated;
  }
};

}  // namespace datawire::amqp
