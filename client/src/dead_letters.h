#pragma once

#include <memory>
#include <string>

#include "datawire/client.h"
#include "exchange.h"

namespace datawire {

/// What becomes of messages that a service failed at too often. Thread-safe.
class DeadLetters {
 public:
  /// `sender`: to the dead-letter address; null: the message is rejected.
  DeadLetters(uint32_t tries, std::unique_ptr<Sender> sender)
      : tries_(tries), sender_(std::move(sender)) {}

  /// Ends what is on its way. The connections of a service may outlive it by a moment.
  void Close() {
    if (sender_) sender_->Close(std::chrono::milliseconds(0));
  }
  /// Settles a message that failed, or is about to have it settled: as accepted once the
  /// dead-letter address has it. False: it has tries left.
  bool Take(const std::shared_ptr<Answerer>& answerer, uint64_t token, const std::string& address,
            const proton::message& message, const std::string& reason);

 private:
  const uint32_t tries_;
  const std::unique_ptr<Sender> sender_;
};

}  // namespace datawire
