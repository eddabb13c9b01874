#include "datawire/client.h"

#include <algorithm>
#include <list>
#include <random>

#include "amqp/tls.h"
#include "link_book.h"
#include "receiver.h"
#include "sender_shell.h"
#include "service.h"
#include "tether.h"

namespace datawire {

namespace {

/// Stands in when the options name no usable directory: knows nothing, and says why.
class NoResolver final : public Resolver {
 public:
  explicit NoResolver(Status why) : why_(std::move(why)) {}
  AnswerPtr Resolve(const Address& address, ResolveOptions) override { return Nothing(address); }
  void Resolve(const Address& address, ResolveOptions, Callback done) override {
    done(Nothing(address));
  }
  std::unique_ptr<Subscription> Subscribe(const Address& address, Callback changed) override {
    changed(Nothing(address));
    return std::make_unique<Subscription>();
  }
  ResolverStats Stats() const override { return {}; }
  Status LastError() const override { return why_; }
  std::vector<std::string> Servers() const override { return {}; }

 private:
  static AnswerPtr Nothing(const Address& address) {
    return std::make_shared<const Answer>(Answer{.address = address});
  }
  const Status why_;
};

class ShellSender final : public Sender {
 public:
  explicit ShellSender(std::shared_ptr<SenderShell> shell) : shell_(std::move(shell)) {}
  ~ShellSender() override { shell_->Close(std::chrono::milliseconds(0)); }
  Delivery Send(const proton::message& message, SendOptions options) override {
    return shell_->Send(message, std::move(options));
  }
  std::vector<proton::message> Close(std::chrono::milliseconds wait) override {
    return shell_->Close(wait);
  }
  Counters counters() const override { return shell_->counters(); }

 private:
  const std::shared_ptr<SenderShell> shell_;
};

std::string ContainerId(const std::string& program) {
  std::random_device device;
  char text[32];
  std::snprintf(text, sizeof text, "-%08x%08x", device(), device());
  return (program.empty() ? "datawire" : program) + text;
}

/// Of amqps links; null: there are none.
Result<std::shared_ptr<amqp::Tls>> OpenTls(const TlsFiles& given) {
  DW_ASSIGN(const TlsFiles files, FindTlsFiles(given));
  return amqp::Tls::Open(files);
}

}  // namespace

struct Client::Impl {
  explicit Impl(ClientOptions given)
      : options(std::move(given)),
        container_id(ContainerId(options.program)),
        io(std::max(options.io_threads, 1)),
        tls(OpenTls(options.resolver.tls)),
        book(std::make_shared<LinkBook>(options.link_observer)),
        links(
            std::make_shared<datawire::Links>(io, container_id, tls.ok() ? *tls : nullptr, book)) {}

  ~Impl() {
    for (auto& [address, shell] : requesters) shell->Close(std::chrono::milliseconds(0));
    requesters.clear();
    if (tether) tether->Close(std::chrono::seconds(1));
    tether.reset();
    resolver.reset();
    links->Close(std::chrono::milliseconds(200));
    io.Stop();
  }

  /// The resolver, made at the first use: a physical URL asks no directory.
  Resolver& OpenResolver() {
    const std::lock_guard lock(mutex);
    if (!resolver) {
      auto opened = Resolver::Open(options.resolver);
      resolver_status = opened.status();
      resolver =
          opened.ok() ? std::move(opened).value() : std::make_unique<NoResolver>(opened.status());
    }
    return *resolver;
  }

  /// Null for a physical destination.
  Result<Resolver*> ResolverFor(const Destination& destination) {
    if (!tls.ok()) return tls.status();
    DW_RETURN_IF_ERROR(options.selection.Check());
    if (destination.physical && destination.physical->secure() && !*tls)
      return NeedsCertificates(*destination.physical);
    if (destination.physical) return static_cast<Resolver*>(nullptr);
    Resolver& opened = OpenResolver();
    const std::lock_guard lock(mutex);
    if (!resolver_status.ok()) return resolver_status;
    return &opened;
  }

  Result<TetherClient*> OpenTether() {
    const std::lock_guard lock(mutex);
    if (!tether) {
      TetherOptions tether_options;
      tether_options.directory = options.resolver.directory;
      tether_options.domain = options.resolver.domain;
      tether_options.dns_server = options.resolver.dns_server;
      tether_options.tls = options.resolver.tls;
      tether_options.ttl = options.session_ttl;
      tether_options.program = options.program;
      DW_ASSIGN(tether, TetherClient::Open(std::move(tether_options)));
    }
    return tether.get();
  }

  /// The sender that requests to `text` share.
  Result<std::shared_ptr<SenderShell>> Requester(std::string_view text) {
    DW_ASSIGN(const Destination destination, Destination::Parse(text));
    const std::string key =
        destination.physical ? destination.physical->text() : destination.address->text();
    DW_ASSIGN(Resolver * from, ResolverFor(destination));
    std::shared_ptr<SenderShell> shell, dropped;
    {
      const std::lock_guard lock(mutex);
      const auto it = std::find_if(requesters.begin(), requesters.end(),
                                   [&key](const auto& entry) { return entry.first == key; });
      if (it != requesters.end()) {
        requesters.splice(requesters.begin(), requesters, it);
        return it->second;
      }
      shell = std::make_shared<SenderShell>(io, links, options, destination, SenderOptions{}, true);
      requesters.emplace_front(key, shell);
      const auto unused = [](const auto& entry) { return entry.second.use_count() == 1; };
      const auto last = std::find_if(requesters.rbegin(), requesters.rend(), unused);
      if (requesters.size() > limits::kRequesters && last != requesters.rend()) {
        dropped = std::move(last->second);
        requesters.erase(std::next(last).base());
      }
    }
    shell->Start(from);
    if (dropped) dropped->Close(std::chrono::milliseconds(0));
    return shell;
  }

  const ClientOptions options;
  const std::string container_id;
  amqp::Io io;
  const Result<std::shared_ptr<amqp::Tls>> tls;
  const std::shared_ptr<LinkBook> book;
  std::shared_ptr<datawire::Links> links;
  std::mutex mutex;
  std::unique_ptr<Resolver> resolver;    // set once, under mutex
  Status resolver_status;                // guarded by mutex
  std::unique_ptr<TetherClient> tether;  // set once, under mutex
  std::list<std::pair<std::string, std::shared_ptr<SenderShell>>> requesters;  // guarded by mutex
};

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Client::~Client() = default;

Result<std::unique_ptr<Service>> Client::Serve(std::string_view address, Handler handler,
                                               ServiceOptions options) {
  DW_ASSIGN(Address parsed, Address::Parse(address));
  const ResolverOptions& place = impl_->options.resolver;
  DW_ASSIGN(const DirectoryPlace directory,
            FindDirectory({place.directory, place.domain, place.dns_server}));
  DW_ASSIGN(TetherClient * tether, impl_->OpenTether());
  DW_ASSIGN(std::shared_ptr<amqp::Tls> tls, impl_->tls);
  if (options.region.empty() && options.zone.empty()) {
    options.region = impl_->options.locality.region;
    options.zone = impl_->options.locality.zone;
  }
  std::unique_ptr<Sender> dead_letters;
  if (!options.dead_letter.empty()) {
    if (options.tries == 0)
      return Status(Code::kInvalid, "dead_letter " + Shown(options.dead_letter) +
                                        " without tries: after how many is not said");
    DW_ASSIGN(dead_letters, OpenSender(options.dead_letter, {.when_full = WhenFull::kFail}));
  }
  DW_ASSIGN(std::unique_ptr<Service> service,
            LinkedService::Open(impl_->io, tether, impl_->container_id, std::move(parsed),
                                std::move(handler), std::move(options), directory, std::move(tls),
                                std::move(dead_letters), impl_->book));
  return service;
}

Result<std::unique_ptr<Sender>> Client::OpenSender(std::string_view address,
                                                   SenderOptions options) {
  DW_ASSIGN(Destination destination, Destination::Parse(address));
  if (options.buffer == 0) return Status(Code::kInvalid, "buffer is 0 messages, at least 1");
  DW_ASSIGN(Resolver * from, impl_->ResolverFor(destination));
  auto shell = std::make_shared<SenderShell>(impl_->io, impl_->links, impl_->options,
                                             std::move(destination), options, false);
  shell->Start(from);
  return std::unique_ptr<Sender>(std::make_unique<ShellSender>(std::move(shell)));
}

Result<std::unique_ptr<Receiver>> Client::OpenReceiver(std::string_view address,
                                                       ReceiverOptions options) {
  DW_ASSIGN(Destination destination, Destination::Parse(address));
  DW_ASSIGN(Resolver * from, impl_->ResolverFor(destination));
  auto receiver = std::make_unique<PullReceiver>(impl_->io, impl_->links, impl_->options,
                                                 std::move(destination), options);
  receiver->Start(from);
  return std::unique_ptr<Receiver>(std::move(receiver));
}

Result<proton::message> Client::Request(std::string_view address, const proton::message& message,
                                        std::chrono::milliseconds timeout) {
  DW_ASSIGN(const std::shared_ptr<SenderShell> shell, impl_->Requester(address));
  return shell->Request(message, timeout);
}

void Client::Request(std::string_view address, const proton::message& message,
                     std::chrono::milliseconds timeout,
                     std::function<void(Result<proton::message>)> done) {
  auto shell = impl_->Requester(address);
  if (!shell.ok()) return done(shell.status());
  (*shell)->Request(message, timeout, std::move(done));
}

std::vector<LinkReport> Client::Links() {
  return impl_->book->Reports();
}

Resolver& Client::resolver() {
  return impl_->OpenResolver();
}

}  // namespace datawire
