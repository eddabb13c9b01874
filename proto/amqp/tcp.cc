#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <deque>
#include <future>

#include "amqp/pump.h"
#include "amqp/tls_stream.h"

namespace datawire::amqp {

namespace {

using asio::ip::tcp;
using Resolver = asio::ip::basic_resolver<tcp, Strand>;

std::string Text(const tcp::endpoint& endpoint) {
  return HostPort{endpoint.address().to_string(), endpoint.port()}.ToString();
}

/// Without the brackets of an IPv6 address.
std::string Bare(const std::string& host) {
  return host.size() > 2 && host.front() == '[' ? host.substr(1, host.size() - 2) : host;
}

/// Connects a pump to the first address that takes it. Bound to the pump's strand.
template <typename Stream>
class Dialer : public std::enable_shared_from_this<Dialer<Stream>> {
 public:
  Dialer(std::shared_ptr<Pump<Stream>> pump, HostPort peer)
      : pump_(std::move(pump)),
        peer_(std::move(peer)),
        resolver_(pump_->strand()),
        timer_(pump_->strand()) {}

  void Start() {
    pump_->Prepare();
    boost::system::error_code error;
    const std::string host = Bare(peer_.host);
    const asio::ip::address address = asio::ip::make_address(host, error);
    if (!error) {
      addresses_.emplace_back(address, peer_.port);
      return Next("no address");
    }
    // The look-up itself cannot be cancelled; nothing waits for it after the time-out.
    resolving_ = true;
    Expect();
    resolver_.async_resolve(host, std::to_string(peer_.port),
                            [weak = this->weak_from_this()](const boost::system::error_code& e,
                                                            const Resolver::results_type& results) {
                              if (auto self = weak.lock()) self->OnResolved(e, results);
                            });
  }
  void Cancel() { timer_.cancel(); }

 private:
  void OnResolved(const boost::system::error_code& error, const Resolver::results_type& results) {
    if (!std::exchange(resolving_, false) || pump_->over()) return;
    timer_.cancel();
    for (const auto& result : results) addresses_.push_back(result.endpoint());
    Next(error ? error.message() : "no address");
  }

  void Next(const std::string& reason) {
    if (pump_->over()) return;
    if (addresses_.empty())
      return pump_->End(
          Status(Code::kUnavailable, "cannot connect to " + peer_.ToString() + ": " + reason));
    const tcp::endpoint to = addresses_.front();
    addresses_.pop_front();
    Expect();
    boost::system::error_code ignored;
    socket().close(ignored);
    socket().async_connect(
        to, [self = this->shared_from_this()](const boost::system::error_code& error) {
          self->timer_.cancel();
          if (self->pump_->over()) return;
          if (error) return self->Next(self->late_ ? self->Late() : error.message());
          boost::system::error_code unset;
          self->socket().set_option(tcp::no_delay(true), unset);
          self->pump_->Start();
        });
  }

  /// Starts the time-out of one step.
  void Expect() {
    late_ = false;
    timer_.expires_after(pump_->options().connect_timeout);
    timer_.async_wait([self = this->shared_from_this()](const boost::system::error_code& error) {
      if (error || self->pump_->over()) return;
      self->late_ = true;
      boost::system::error_code ignored;
      if (std::exchange(self->resolving_, false)) return self->Next("look-up: " + self->Late());
      self->socket().close(ignored);
    });
  }
  std::string Late() const {
    return "no answer within " + std::to_string(pump_->options().connect_timeout.count()) + " ms";
  }

  typename Stream::lowest_layer_type& socket() { return pump_->stream().lowest_layer(); }

  const std::shared_ptr<Pump<Stream>> pump_;
  const HostPort peer_;
  Resolver resolver_;
  Timer timer_;
  std::deque<tcp::endpoint> addresses_;
  bool resolving_ = false, late_ = false;
};

/// Accepts on a strand of its own. Thread-safe.
class TcpListener final : public Core::Member, public std::enable_shared_from_this<TcpListener> {
 public:
  TcpListener(std::shared_ptr<Core> core, ConnectionOptions options, Listener::Accept accept,
              size_t most)
      : core_(std::move(core)),
        options_(std::move(options)),
        accept_(std::move(accept)),
        most_(std::max<size_t>(most, 1)),
        strand_(asio::make_strand(core_->context())),
        acceptor_(strand_),
        pause_(strand_) {}

  Result<HostPort> Bind(const HostPort& at) {
    boost::system::error_code error;
    DW_ASSIGN(const tcp::endpoint where, Resolve(at));
    const auto refused = [&at, &error](const char* what) {
      return Status(Code::kUnavailable,
                    std::string("cannot ") + what + " " + at.ToString() + ": " + error.message());
    };
    if (acceptor_.open(where.protocol(), error)) return refused("open a socket for");
    // A restarted server takes its port back at once; SO_REUSEPORT stays off: two never share one.
    acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (acceptor_.bind(where, error)) return refused("bind");
    if (acceptor_.listen(asio::socket_base::max_listen_connections, error))
      return refused("listen on");
    const tcp::endpoint bound = acceptor_.local_endpoint(error);
    if (error) return refused("name the address of");
    return HostPort{at.host, bound.port()};
  }

  void Start() {
    if (!core_->Add(this, weak_from_this())) return;
    core_->Post(strand_, [self = shared_from_this()] { self->Next(); });
  }

  void Stop() override { Shut(nullptr); }

  /// Accepts no more; then `done`, on the strand. False when a stopped Io has done it.
  bool Shut(std::function<void()> done) {
    return core_->Post(strand_, [self = shared_from_this(), done = std::move(done)] {
      boost::system::error_code ignored;
      self->acceptor_.close(ignored);
      self->pause_.cancel();
      self->core_->Remove(self.get());
      if (done) done();
    });
  }

  const Core& core() const { return *core_; }

 private:
  Result<tcp::endpoint> Resolve(const HostPort& at) {
    boost::system::error_code error;
    const std::string host = Bare(at.host);
    const asio::ip::address address = asio::ip::make_address(host, error);
    if (!error) return tcp::endpoint(address, at.port);
    const auto found = Resolver(strand_).resolve(host, std::to_string(at.port), error);
    if (error || found.empty())
      return Status(Code::kUnavailable, "cannot resolve " + host + ": " + error.message());
    return found.begin()->endpoint();
  }

  void Next() {
    if (!acceptor_.is_open() || accepting_ || open_ >= most_) return;
    accepting_ = true;
    acceptor_.async_accept(
        asio::make_strand(core_->context()),
        [self = shared_from_this()](const boost::system::error_code& error, Socket socket) {
          self->accepting_ = false;
          self->OnAccept(error, std::move(socket));
        });
  }

  void OnAccept(const boost::system::error_code& error, Socket socket) {
    if (!acceptor_.is_open()) return;
    if (error) return Pause();
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    const tcp::endpoint from = socket.remote_endpoint(ignored);
    if (!ignored) Serve(std::move(socket), Text(from));
    Next();
  }

  void Serve(Socket socket, std::string peer) {
    Listener::Accepted accepted;
    try {
      accepted = accept_();
    } catch (const std::exception&) {
      return;  // no handler, no connection: the peer sees the socket close
    }
    if (!accepted.handler) return;
    const auto& executor = socket.get_executor();
    const Strand strand = executor;
    if (!options_.tls)
      return Take(strand, std::make_unique<Socket>(std::move(socket)), std::move(peer),
                  std::move(accepted));
    const auto context = options_.tls->impl().Now();
    Take(strand, std::make_unique<TlsStream>(std::move(socket), *context), std::move(peer),
         std::move(accepted));
  }

  template <typename Stream>
  void Take(const Strand& strand, std::unique_ptr<Stream> stream, std::string peer,
            Listener::Accepted accepted) {
    auto pump = std::make_shared<Pump<Stream>>(
        core_, strand, std::move(stream), std::move(peer), options_, Driver::Role::kServer,
        std::move(accepted.handler), std::move(accepted.closed));
    ++open_;
    pump->set_gone([self = shared_from_this()] {
      self->core_->Post(self->strand_, [self] {
        --self->open_;
        self->Next();
      });
    });
    core_->Post(strand, [pump, opened = std::move(accepted.opened)] {
      if (!pump->Join()) return pump->End(Status(Code::kCancelled, "the program stops"));
      pump->Prepare();
      if (opened) opened(pump);
      pump->Start();
    });
  }

  /// Out of descriptors, most likely: try again a little later.
  void Pause() {
    pause_.expires_after(std::chrono::milliseconds(100));
    pause_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error) self->Next();
    });
  }

  const std::shared_ptr<Core> core_;
  const ConnectionOptions options_;
  const Listener::Accept accept_;
  const size_t most_;
  Strand strand_;
  asio::basic_socket_acceptor<tcp, Strand> acceptor_;
  Timer pause_;
  size_t open_ = 0;
  bool accepting_ = false;
};

/// What the caller holds. Thread-safe.
class ListenerHandle final : public Listener {
 public:
  ListenerHandle(std::shared_ptr<TcpListener> listener, HostPort bound)
      : listener_(std::move(listener)), bound_(std::move(bound)) {}
  ~ListenerHandle() override { Close(); }

  HostPort bound() const override { return bound_; }
  void Close() override {
    auto done = std::make_shared<std::promise<void>>();
    if (listener_->Shut([done] { done->set_value(); }) && !listener_->core().here())
      done->get_future().wait_for(std::chrono::seconds(1));
  }

 private:
  const std::shared_ptr<TcpListener> listener_;
  const HostPort bound_;
};

}  // namespace

Result<std::unique_ptr<Listener>> Listener::Open(Io& io, const HostPort& at,
                                                 ConnectionOptions options, Accept accept,
                                                 size_t most) {
  auto listener =
      std::make_shared<TcpListener>(io.impl().core, std::move(options), std::move(accept), most);
  DW_ASSIGN(HostPort bound, listener->Bind(at));
  listener->Start();
  return std::unique_ptr<Listener>(
      std::make_unique<ListenerHandle>(std::move(listener), std::move(bound)));
}

namespace {

template <typename Stream>
std::shared_ptr<Connection> Dial(const std::shared_ptr<Core>& core, const Strand& strand,
                                 std::unique_ptr<Stream> stream, const HostPort& peer,
                                 ConnectionOptions options,
                                 std::shared_ptr<proton::messaging_handler> handler,
                                 Connection::Closed closed) {
  auto pump = std::make_shared<Pump<Stream>>(core, strand, std::move(stream), peer.ToString(),
                                             std::move(options), Driver::Role::kClient,
                                             std::move(handler), std::move(closed));
  if (!pump->Join()) {
    pump->End(Status(Code::kCancelled, "the program stops"));
    return pump;
  }
  auto dialer = std::make_shared<Dialer<Stream>>(pump, peer);
  pump->set_gone([weak = std::weak_ptr(dialer)] {
    if (auto strong = weak.lock()) strong->Cancel();
  });
  core->Post(strand, [dialer] { dialer->Start(); });
  return pump;
}

}  // namespace

std::shared_ptr<Connection> Connection::Open(Io& io, const HostPort& peer,
                                             ConnectionOptions options,
                                             std::shared_ptr<proton::messaging_handler> handler,
                                             Closed closed) {
  const std::shared_ptr<Core>& core = io.impl().core;
  const Strand strand = asio::make_strand(core->context());
  if (!options.tls)
    return Dial(core, strand, std::make_unique<Socket>(strand), peer, std::move(options),
                std::move(handler), std::move(closed));
  auto stream = std::make_unique<TlsStream>(strand, *options.tls->impl().Now());
  ExpectHost(*stream, Bare(peer.host));
  return Dial(core, strand, std::move(stream), peer, std::move(options), std::move(handler),
              std::move(closed));
}

}  // namespace datawire::amqp
