#pragma once

#include <memory>
#include <string>

#include "datawire/resolver.h"

namespace datawire {

/// Writes a resolver's state (Resolver::WriteState, JSON lines) whenever the process gets a signal.
/// The library takes no signal by itself: an application that wants this makes one, which must not
/// outlive the resolver. At most one in a process.
class StateOnSignal {
 public:
  /// `file` is replaced as a whole each time, with mode 0600; one that cannot be written is left as
  /// it was. Empty: stderr. kInvalid: `signal` cannot be caught; kConflict: the application handles
  /// it already, or there is another StateOnSignal.
  static Result<std::unique_ptr<StateOnSignal>> Open(Resolver& resolver, int signal,
                                                     std::string file);
  /// The signal does what it did before.
  virtual ~StateOnSignal() = default;
};

}  // namespace datawire
