#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "datawire/client.h"
#include "exchange.h"
#include "links.h"
#include "sender_shell.h"

namespace datawire {

/// One receiving link, opened again elsewhere when it is lost. Thread-safe.
class PullReceiver final : public Receiver {
 public:
  PullReceiver(amqp::Io& io, std::shared_ptr<Links> links, const ClientOptions& client,
               Destination destination, ReceiverOptions options);
  ~PullReceiver() override { Close(); }

  /// Follows the answers of `resolver`; null for a physical source.
  void Start(Resolver* resolver);
  Result<Exchange> Receive(std::chrono::milliseconds wait) override;
  void Close() override;

 private:
  class Shell;
  const std::shared_ptr<Shell> shell_;
};

}  // namespace datawire
