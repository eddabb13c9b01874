#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "datawire/clock.h"
#include "datawire/feed.h"

namespace datawire::intermediaries {

/// Which message of a queue goes out next, again or never more. No clock, thread, disc or body:
/// messages are numbers, `now` is an argument. Thread-compatible.
class QueueCore {
 public:
  using Number = uint64_t;
  struct Options {
    uint32_t tries = 0;  ///< 0: for ever
  };
  explicit QueueCore(Options options) : options_(options) {}

  /// It is stored, and `deliveries` were tried before.
  void Add(Number number, uint32_t deliveries, BootTime expires = BootTime::max());

  /// Lets those go out again whose pause is over.
  void Wake(BootTime now);

  struct Next {
    Number number;
    uint32_t deliveries;  ///< tried before, to be added to its delivery-count
  };
  /// The oldest that may go out, which then is out; it is to be settled.
  std::optional<Next> Take();

  enum class Fate {
    kDone,  ///< to be removed
    kWaits,
    kDead,  ///< still out, on its way to the dead letters: Buried or Waits ends that
  };
  /// What a consumer made of one that is out.
  Fate Settled(Number number, const Verdict& verdict, BootTime now);
  /// One that was dead, or out, goes back and waits a little.
  void Back(Number number, BootTime now);
  void Buried(Number number) { out_.erase(number); }

  /// Those whose time to live has passed and that are not out; they become dead, as above.
  std::optional<Number> TakeExpired(BootTime now);
  /// When Wake or TakeExpired have something to do.
  std::optional<BootTime> NextWake() const;

  size_t depth() const { return ready_.size() + waiting_.size() + out_.size(); }
  size_t out() const { return out_.size(); }

 private:
  struct Entry {
    uint32_t deliveries = 0, pauses = 0;
    BootTime expires;
  };
  const Options options_;
  std::map<Number, Entry> ready_;
  std::multimap<BootTime, std::pair<Number, Entry>> waiting_;
  std::unordered_map<Number, Entry> out_;
  std::multimap<BootTime, Number> expiries_;  // may name ended ones
};

}  // namespace datawire::intermediaries
