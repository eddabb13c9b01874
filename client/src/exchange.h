#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <proton/message.hpp>
#include <string>
#include <vector>

#include "datawire/client.h"
#include "datawire/clock.h"
#include "links.h"

namespace datawire {

class DeadLetters;

/// Where answers to exchanges go: the link a message came on. Thread-safe; when that is gone, what
/// is told here is dropped.
class Answerer {
 public:
  virtual ~Answerer() = default;
  virtual void Answer(uint64_t token, Settle how) = 0;
  /// Settles as accepted, too. kInvalid when `reply_to` is not a node of this connection: accepted
  /// all the same.
  virtual Status Reply(uint64_t token, const std::string& reply_to, std::vector<char> encoded) = 0;
};

/// Messages whose memory is used again: a new proton::message is some forty allocations.
/// Thread-safe.
class SpareMessages {
 public:
  explicit SpareMessages(size_t most = limits::kSpareMessages) : most_(most) {}
  /// `message` comes out, one to be filled again stays in its place.
  proton::message Swap(proton::message& message);
  /// Keeps it if it is small and there is room.
  void Return(proton::message message);

 private:
  const size_t most_;
  std::mutex mutex_;
  std::vector<proton::message> messages_;  // guarded by mutex_; at most most_
};

/// A message to be answered; when the last holder lets go of it unanswered, it is released.
struct Exchange::State {
  State(std::shared_ptr<Answerer> where, uint64_t its_token, std::string its_address,
        proton::message its_message, std::shared_ptr<SpareMessages> spare_messages = nullptr,
        std::shared_ptr<DeadLetters> its_dead_letters = nullptr,
        std::shared_ptr<LinkBook::Page> its_link = nullptr);
  ~State() {
    Answer({Settle::Kind::kRelease, {}});
    if (spare) spare->Return(std::move(message));
  }

  /// True the first time: the caller is the one to answer.
  bool Claim() { return !answered.exchange(true); }
  void Answer(Settle how) {
    if (Claim()) answerer->Answer(token, std::move(how));
  }
  /// As modified with delivery-failed, or as a dead letter.
  void Fail(const std::string& reason);
  /// Its time to live passed: it is rejected.
  bool Expired(BootTime now);

  const std::shared_ptr<Answerer> answerer;
  const uint64_t token;
  const std::string address;
  proton::message message;  // const until the end
  const BootTime expires;
  const std::shared_ptr<SpareMessages> spare;
  const std::shared_ptr<DeadLetters> dead_letters;  // null: none
  const std::shared_ptr<LinkBook::Page> link;       // it came on; null: not known
  std::atomic<bool> answered = false;
};

}  // namespace datawire
