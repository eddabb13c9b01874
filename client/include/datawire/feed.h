#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <proton/message.hpp>
#include <string>

namespace datawire {

/// How a peer settled a message that it was given.
struct Verdict {
  enum class Kind {
    kAccepted,
    kRejected,  ///< final, with the peer's condition
    kReleased,  ///< not worked on; also what was not sent, because there was no credit any more
    kFailed,    ///< modified with delivery-failed
    kLost,      ///< sent, and its link was lost: nobody knows
  };
  Kind kind = Kind::kAccepted;
  std::string condition, description;
};

/// The link of a peer that attached to a service to be given messages: a Receiver, or any AMQP 1.0
/// client. Thread-safe.
class Outlet {
 public:
  virtual ~Outlet() = default;
  virtual const std::string& address() const = 0;  ///< the logical address it asked for
  virtual const std::string& peer() const = 0;     ///< HOST:PORT of its end
  /// Messages it would take now, beyond those given.
  virtual uint32_t credit() const = 0;
  /// Gives it a message, `more_deliveries` added to its delivery-count. `done` runs exactly once,
  /// on a thread of the client; must not block.
  virtual void Give(const proton::message& message, uint32_t more_deliveries,
                    std::function<void(const Verdict&)> done) = 0;
  /// Detaches it with an error; what it has not settled is lost.
  virtual void Close(const std::string& condition, const std::string& why) = 0;
};

/// What a service does with peers that want to be given messages. Called on threads of the client,
/// for one outlet one after the other; must not block.
struct Feed {
  using Event = std::function<void(const std::shared_ptr<Outlet>&)>;
  Event attached;  ///< none: such peers are refused
  Event credit;    ///< it takes more than before
  Event detached;  ///< last; its messages have got their verdicts
};

}  // namespace datawire
