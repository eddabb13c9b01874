#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "amqp/connection.h"
#include "datawire/client.h"
#include "service_connection.h"
#include "tether.h"

namespace datawire {

/// Runs a service's handler on a thread of its own, so that it may block; or where the messages
/// come in. One message at a time, in the order they came. Bounded by the credit given.
/// Thread-safe.
class HandlerThread {
 public:
  explicit HandlerThread(Handler handler, bool inline_handler = false);
  ~HandlerThread();  ///< Stop()
  void Push(std::vector<std::shared_ptr<Exchange::State>>& states);
  /// Lets go of what waits (released), joins after the handler's present call, however long that
  /// takes. Idempotent.
  void Stop();

 private:
  void Run();
  void Handle(const std::shared_ptr<Exchange::State>& state);

  const Handler handler_;
  const bool inline_;
  std::mutex
      handling_;  // held while the handler runs inline: several connections may have messages
  std::mutex mutex_;
  std::condition_variable work_;
  std::vector<std::shared_ptr<Exchange::State>> waiting_;  // guarded by mutex_
  bool idle_ = false;                                      // guarded by mutex_
  std::atomic<bool> stopped_ = false;                      // set under mutex_
  std::thread thread_;
};

/// A listener, its connections, its registration. Thread-safe.
class LinkedService final : public Service {
 public:
  static Result<std::unique_ptr<LinkedService>> Open(amqp::Io& io, TetherClient* tether,
                                                     std::string container_id, Address address,
                                                     Handler handler, ServiceOptions options,
                                                     const DirectoryPlace& directory,
                                                     const std::shared_ptr<amqp::Tls>& tls,
                                                     std::unique_ptr<Sender> dead_letters,
                                                     std::shared_ptr<LinkBook> book);
  ~LinkedService() override;

  std::string url() const override { return url_->text(); }
  void Stop(std::chrono::milliseconds wait) override;
  Status WaitRegistered(std::chrono::milliseconds wait) override;

 private:
  /// Outlives the service: callbacks of connections and of the tether end here.
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::set<std::shared_ptr<ServiceConnection>> connections;  // guarded by mutex
    std::optional<Status> registered;                          // guarded by mutex
    bool withdrawn = false;                                    // guarded by mutex
  };
  LinkedService(TetherClient* tether, Address address, Handler handler, bool inline_handler)
      : tether_(tether),
        address_(std::move(address)),
        handlers_(std::make_shared<HandlerThread>(std::move(handler), inline_handler)) {}

  amqp::Listener::Accept Acceptor(std::shared_ptr<const ServiceNode> node) const;
  void Register(const ServiceOptions& options, std::string identity);

  TetherClient* const tether_;  // null: not registered anywhere
  const Address address_;
  const std::shared_ptr<HandlerThread> handlers_;
  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  std::shared_ptr<DeadLetters> dead_letters_;  // null: none
  std::optional<EndpointUrl> url_;
  std::unique_ptr<amqp::Listener> listener_;
  std::mutex stop_mutex_;
  bool stopped_ = false;  // guarded by stop_mutex_
};

}  // namespace datawire
