#include "service.h"

#include "amqp/tls.h"
#include "announce.h"
#include "dead_letters.h"

namespace datawire {

namespace {

/// Waits for `done` until `until`, on the project's clock.
template <typename Done>
bool WaitUntil(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, BootTime until,
               Done done) {
  while (!done()) {
    const auto left = until - BootClock::now();
    if (left <= left.zero()) return false;
    changed.wait_for(lock, left, done);
  }
  return true;
}

}  // namespace

HandlerThread::HandlerThread(Handler handler, bool inline_handler)
    : handler_(std::move(handler)), inline_(inline_handler) {
  if (!inline_) thread_ = std::thread([this] { Run(); });
}

HandlerThread::~HandlerThread() {
  Stop();
}

void HandlerThread::Push(std::vector<std::shared_ptr<Exchange::State>>& states) {
  if (inline_) {
    const std::lock_guard lock(handling_);
    for (auto& state : states) {
      if (!stopped_) Handle(state);
      state.reset();
    }
    return;
  }
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  waiting_.insert(waiting_.end(), std::move_iterator(states.begin()),
                  std::move_iterator(states.end()));
  if (idle_) work_.notify_one();
}

void HandlerThread::Stop() {
  std::vector<std::shared_ptr<Exchange::State>> released;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    released.swap(waiting_);
    work_.notify_one();
  }
  released.clear();
  if (inline_) const std::lock_guard lock(handling_);
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

void HandlerThread::Run() {
  std::vector<std::shared_ptr<Exchange::State>> batch;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      idle_ = true;
      work_.wait(lock, [this] { return stopped_ || !waiting_.empty(); });
      idle_ = false;
      if (stopped_) return;
      batch.swap(waiting_);
    }
    for (auto& state : batch) {
      if (!stopped_) Handle(state);
      state.reset();
    }
    batch.clear();
  }
}

void HandlerThread::Handle(const std::shared_ptr<Exchange::State>& state) {
  if (state->Expired(BootClock::now())) return;
  try {
    handler_(Exchange(state));
  } catch (const std::exception& e) {
    state->Fail(e.what());
  } catch (...) {
    state->Fail("the handler failed");
  }
}

Result<std::unique_ptr<LinkedService>> LinkedService::Open(
    amqp::Io& io, TetherClient* tether, std::string container_id, Address address, Handler handler,
    ServiceOptions options, const DirectoryPlace& directory, const std::shared_ptr<amqp::Tls>& tls,
    std::unique_ptr<Sender> dead_letters, std::shared_ptr<LinkBook> book) {
  if (!handler) return Status(Code::kInvalid, "a service needs a handler");
  if (options.credit == 0) return Status(Code::kInvalid, "credit is 0, at least 1");
  if (options.weight > limits::kWeightMost) {
    return Status(Code::kInvalid, "weight is " + std::to_string(options.weight) + ", at most " +
                                      std::to_string(limits::kWeightMost));
  }
  DW_ASSIGN(const HostPort listen, HostPort::Parse(options.listen));
  std::unique_ptr<LinkedService> service(
      new LinkedService(tether, std::move(address), std::move(handler), options.inline_handler));
  auto node = std::make_shared<ServiceNode>(ServiceNode{service->address_});
  node->subtree = options.subtree;
  node->credit = options.credit;
  node->spare = std::make_shared<SpareMessages>(
      options.inline_handler ? 1 : std::clamp<size_t>(options.credit, 1, limits::kSpareMessages));
  node->feed = options.feed;
  node->book = std::move(book);
  if (options.tries > 0)
    service->dead_letters_ = node->dead_letters =
        std::make_shared<DeadLetters>(options.tries, std::move(dead_letters));
  node->deliver = [handlers =
                       service->handlers_](std::vector<std::shared_ptr<Exchange::State>>& states) {
    handlers->Push(states);
  };
  amqp::ConnectionOptions connection;
  connection.container_id = std::move(container_id);
  connection.tls = tls;
  const bool secure = tls != nullptr;
  DW_ASSIGN(service->listener_, amqp::Listener::Open(io, listen, std::move(connection),
                                                     service->Acceptor(std::move(node))));
  DW_ASSIGN(service->url_,
            AnnouncedUrl(service->listener_->bound(), options.announce, directory, secure));
  service->Register(options, secure ? tls->identity() : "");
  return service;
}

amqp::Listener::Accept LinkedService::Acceptor(std::shared_ptr<const ServiceNode> node) const {
  return [shared = shared_, node = std::move(node)] {
    auto handler = std::make_shared<ServiceConnection>(node);
    amqp::Listener::Accepted accepted;
    accepted.handler = handler;
    accepted.opened = [shared, handler](const std::shared_ptr<amqp::Connection>& connection) {
      handler->Opened(connection);
      const std::lock_guard lock(shared->mutex);
      shared->connections.insert(handler);
    };
    accepted.closed = [shared, handler](const Status&) {
      handler->Closed();
      const std::lock_guard lock(shared->mutex);
      shared->connections.erase(handler);
      shared->changed.notify_all();
    };
    return accepted;
  };
}

void LinkedService::Register(const ServiceOptions& options, std::string identity) {
  if (!tether_) return;
  RegistrationSpec spec{.address = address_, .url = *url_};
  spec.subtree = options.subtree;
  spec.priority = options.priority;
  spec.weight = options.weight;
  spec.region = options.region;
  spec.zone = options.zone;
  spec.labels = options.labels;
  spec.identity = std::move(identity);
  tether_->Register(std::move(spec), [shared = shared_](const Result<Revision>& done) {
    const std::lock_guard lock(shared->mutex);
    shared->registered = done.ok() ? Status::Ok() : done.status();
    shared->changed.notify_all();
  });
}

LinkedService::~LinkedService() {
  Stop(std::chrono::seconds(5));
}

Status LinkedService::WaitRegistered(std::chrono::milliseconds wait) {
  std::unique_lock lock(shared_->mutex);
  const auto known = [this] { return shared_->registered.has_value(); };
  if (!WaitUntil(shared_->changed, lock, BootClock::now() + wait, known)) {
    return Status(Code::kTimeout, address_.text() + " was not registered within " +
                                      std::to_string(wait.count()) + " ms");
  }
  return *shared_->registered;
}

void LinkedService::Stop(std::chrono::milliseconds wait) {
  const std::lock_guard once(stop_mutex_);
  if (std::exchange(stopped_, true)) return;
  const BootTime until = BootClock::now() + wait;
  Shared& shared = *shared_;
  if (tether_ && url_) {
    tether_->Withdraw(address_, *url_, [kept = shared_](const Result<Revision>&) {
      const std::lock_guard lock(kept->mutex);
      kept->withdrawn = true;
      kept->changed.notify_all();
    });
    std::unique_lock lock(shared.mutex);
    // Without a directory nobody learns of it; the exchanges have the rest of the time.
    if (shared.registered && shared.registered->ok()) {
      WaitUntil(shared.changed, lock, BootClock::now() + wait / 4,
                [&] { return shared.withdrawn; });
    }
  }
  if (listener_) listener_->Close();
  const auto each = [&shared](auto act) {
    std::set<std::shared_ptr<ServiceConnection>> connections;
    {
      const std::lock_guard lock(shared.mutex);
      connections = shared.connections;
    }
    for (const auto& connection : connections) act(*connection);
  };
  each([](ServiceConnection& connection) { connection.Drain(); });
  const auto empty = [&shared] { return shared.connections.empty(); };
  bool closed = false;
  {
    std::unique_lock lock(shared.mutex);
    closed = WaitUntil(shared.changed, lock, until, empty);
  }
  if (!closed) {
    each([](ServiceConnection& connection) { connection.Abort(); });
    std::unique_lock lock(shared.mutex);
    WaitUntil(shared.changed, lock, BootClock::now() + std::chrono::milliseconds(500), empty);
  }
  handlers_->Stop();
  if (dead_letters_) dead_letters_->Close();
}

}  // namespace datawire
