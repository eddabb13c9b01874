#pragma once

#include <memory>

#include "datawire/result.h"
#include "datawire/tls_files.h"

namespace datawire::amqp {

/// Certificates for connections: TLS 1.2 at least, one wanted of both ends, a server's checked
/// against the host that was connected to. The files are looked at for each new connection and read
/// again when they have changed; while they do not fit together, what was read before holds.
/// Thread-safe.
class Tls {
 public:
  /// kInvalid when the files do not fit together. None at all: null, which is plaintext.
  static Result<std::shared_ptr<Tls>> Open(const TlsFiles& files);
  ~Tls();
  /// The one URI that the own certificate names, as it is now; empty: it names none, or several.
  std::string identity();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  explicit Tls(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace datawire::amqp
