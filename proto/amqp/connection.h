#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "datawire/endpoint_url.h"
#include "datawire/limits.h"
#include "datawire/result.h"

namespace proton {
class messaging_handler;
class connection;
}  // namespace proton

namespace datawire::amqp {

class Tls;

/// Bounds of one connection. Value. Defaults: limits.h.
struct ConnectionOptions {
  std::chrono::milliseconds connect_timeout = limits::kConnect;      ///< TCP connect, each address
  std::chrono::milliseconds handshake_timeout = limits::kHandshake;  ///< of TLS, and until the open
  std::chrono::milliseconds idle_timeout = limits::kIdleTimeout;     ///< both directions
  uint32_t max_frame_size = limits::kFrameBytes;
  size_t max_message_bytes = limits::kMessageBytes;  ///< a larger incoming one ends the connection
  uint32_t max_channels = limits::kChannels;         ///< a further begin ends the connection
  uint32_t max_links = limits::kLinks;  ///< of the peer's making; a further attach is refused
  std::chrono::milliseconds write_stall = limits::kWriteStall;  ///< the peer reads nothing we write
  bool sasl = true;          ///< as client: SASL ANONYMOUS first, as stock clients do
  std::string container_id;  ///< empty: a random one
  std::shared_ptr<Tls> tls;  ///< none: plaintext
  std::string identity;      ///< with tls: the one URI that the peer's certificate must name, else
                             ///< kDenied before the first byte of AMQP; empty: any
  std::string virtual_host;  ///< the host name in open; rhea sends an empty one unless told
};

/// Threads that run connections. Each connection lives on one strand of it; all callbacks of a
/// connection and of its proton objects come from there, one at a time. Thread-safe.
class Io {
 public:
  explicit Io(int threads = 1);
  ~Io();  ///< Stop()
  Io(const Io&) = delete;
  Io& operator=(const Io&) = delete;

  /// Runs soon, on an Io thread, outside any strand.
  void Post(std::function<void()> task);
  /// Runs once, not before `delay` passed, outside any strand; not at all after Stop.
  void After(std::chrono::milliseconds delay, std::function<void()> task);
  /// Whether this thread may wait for what it posts: not one of its own, and not after Stop.
  bool MayBeWaitedFor();
  /// Aborts what is open, joins the threads. Idempotent; not from an Io thread.
  void Stop();

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// One AMQP connection on proton::io::connection_driver. Its messaging_handler sees every proton
/// event; handlers of single links are not called. An exception that escapes a handler or a posted
/// task, or that proton throws inside its own dispatch, ends this connection only, and the handler
/// hears no more. Links and sessions are freed after on_*_close: what is held of them stays valid,
/// and says nothing to the peer. Thread-safe; the proton objects belong to the strand, their copies
/// and destructors too: let go of them in `closed` or before.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Closed = std::function<void(const Status&)>;  ///< once, last, on the strand; OK = orderly

  /// Starts to connect to host:port (every address of it in turn) and returns at once.
  static std::shared_ptr<Connection> Open(Io& io, const HostPort& peer, ConnectionOptions options,
                                          std::shared_ptr<proton::messaging_handler> handler,
                                          Closed closed);
  virtual ~Connection() = default;

  /// Runs `task` on the strand, then pumps what it wrote; dropped when closed (returns false if
  /// that is already known). From any thread.
  virtual bool Post(std::function<void()> task) = 0;
  /// Post, after `delay`.
  virtual void After(std::chrono::milliseconds delay, std::function<void()> task) = 0;
  /// Orderly AMQP close, then the socket; aborts after `wait`.
  virtual void Close(std::chrono::milliseconds wait = std::chrono::seconds(1)) = 0;
  /// Drops the socket now.
  virtual void Abort(Status why) = 0;
  /// The proton connection; only on the strand.
  virtual proton::connection proton() = 0;
  /// `1.2.3.4:567`, for logs and errors.
  virtual std::string peer() const = 0;
};

/// Accepts AMQP connections. Thread-safe.
class Listener {
 public:
  /// Makes the handler and the closed callback of each accepted connection, on an Io thread. No
  /// handler, or an exception: the socket is closed.
  struct Accepted {
    std::shared_ptr<proton::messaging_handler> handler;
    Connection::Closed closed;
    std::function<void(std::shared_ptr<Connection>)> opened;  ///< called before any proton event
  };
  using Accept = std::function<Accepted()>;

  /// Binds and listens (port 0 allowed, SO_REUSEPORT off); kUnavailable with the address and the
  /// system's reason. `most` connections at a time; further ones wait in the backlog.
  static Result<std::unique_ptr<Listener>> Open(Io& io, const HostPort& at,
                                                ConnectionOptions options, Accept accept,
                                                size_t most = 1024);
  virtual ~Listener() = default;
  /// The bound address, with the real port.
  virtual HostPort bound() const = 0;
  /// Accepts no more; open connections live on. After it returns Accept is not called again, unless
  /// it was called on an Io thread. Idempotent.
  virtual void Close() = 0;
};

}  // namespace datawire::amqp
