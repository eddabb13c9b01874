#pragma once

#include <cstdint>
#include <map>
#include <proton/delivery.hpp>
#include <proton/link.hpp>
#include <proton/message.hpp>
#include <proton/receiver.hpp>
#include <proton/sender.hpp>
#include <proton/session.hpp>
#include <proton/tracker.hpp>
#include <proton/transfer.hpp>
#include <string>
#include <string_view>

#include "datawire/result.h"

/// What proton's C++ API lacks or gets wrong (0.37), each in one function. All of it belongs to the
/// strand of the connection, and none of it throws. Lists of names and values are AMQP maps with
/// symbol keys and string values.
namespace datawire::amqp {

using Info = std::map<std::string, std::string>;

/// Settles as rejected, with a condition the sender can read; proton's reject() has none.
void Reject(proton::delivery& delivery, std::string_view condition, std::string_view description);

/// Settles as modified, with its flags; proton's modify() sets none.
void Modify(proton::delivery& delivery, bool failed, bool undeliverable_here);

/// How the receiver settled, as the sender sees it.
struct RemoteOutcome {
  enum class Kind { kNone, kAccepted, kRejected, kReleased, kModified };
  Kind kind = Kind::kNone;  ///< kNone: settled without an outcome, or nothing heard yet
  std::string condition;    ///< of kRejected
  std::string description;
  bool failed = false;              ///< of kModified
  bool undeliverable_here = false;  ///< of kModified
};
RemoteOutcome Outcome(const proton::tracker& tracker);

/// Sends with a tag of the caller's, unique among the unsettled of the link: proton's own are not.
/// kOverloaded without credit (proton would send all the same), kUnavailable on a link that is not
/// open, kInvalid for a message that proton cannot encode.
Result<proton::tracker> Send(proton::sender& sender, const proton::message& message, uint64_t tag);

/// The same with a message encoded before (proton::message::encode()).
Status SendEncoded(proton::sender& sender, std::string_view message, uint64_t tag);
/// The tag given to Send; 0 for one that is not ours.
uint64_t TagOf(const proton::transfer& transfer);
/// Settles what was sent with `tag`, if the link still has it unsettled; the peer is told.
void Forget(proton::sender& sender, uint64_t tag);

/// Its body takes at most 4 KiB: a message worth keeping for its memory.
bool IsSmall(const proton::message& message);

/// The peer answered an attach without the terminus asked for: an error follows (see Refuse).
bool Refused(const proton::link& link);

/// Closes with an error and its info map, which proton's close(error_condition) drops.
void CloseWithError(proton::link& link, std::string_view condition, std::string_view description,
                    const Info& info = {});

/// Refuses an attach as the specification wants it: the reply has no source or target, so that the
/// peer does not take it for success, and the detach has the error.
void Refuse(proton::link& link, std::string_view condition, std::string_view description,
            const Info& info = {});

/// The error with which the peer closed the link; its info map keeps what is a string or symbol.
struct RemoteError {
  std::string condition;  ///< empty: none
  std::string description;
  Info info;
};
RemoteError ErrorOf(const proton::link& link);

/// Releases what proton keeps of a closed link until its connection ends. Connections of this room
/// do it themselves after on_*_close; again is harmless.
void Free(proton::link& link);
void Free(proton::session& session);

/// Tells the peer the largest message we take; before the link is opened.
void SetMaxMessageSize(proton::receiver& receiver, uint64_t bytes);
/// The largest message the peer takes; 0: it set no limit.
uint64_t RemoteMaxMessageSize(const proton::sender& sender);

/// Returns the credit left over when the receiver asks for that (a drain). For the end of
/// on_sendable, when all that can be sent now is sent; false: it does not ask.
bool ReturnCreditIfDraining(proton::sender& sender);

/// The Code of an AMQP error condition; kUnavailable for one that is not in our table.
Code CodeOfCondition(std::string_view condition);

}  // namespace datawire::amqp
