#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "datawire/stage.h"
#include "queue_core.h"
#include "queue_store.h"
#include "turns.h"

namespace datawire::intermediaries {

/// A queue: what comes is stored, then accepted; what is stored goes to one consumer after the
/// other and is removed once one has accepted it. Events come in from any thread and are worked on
/// by one thread of its own, many at a time: they share a sync. Thread-safe.
class Queue {
 public:
  struct Options {
    std::string address;       ///< its own, for dead letters
    size_t depth = 1'000'000;  ///< messages
    bool reject = false;       ///< when full; else it gives no more credit
    uint32_t tries = 0;        ///< 0: for ever
    size_t window = 100;       ///< pushed and not settled
  };
  struct Figures {
    std::atomic<uint64_t> depth{0}, out{0}, consumers{0}, held{0};
    std::atomic<uint64_t> stored{0}, refused{0}, given{0}, accepted{0}, again{0}, dead{0},
        discarded{0};
  };

  /// Loads what is stored. `push`: competing consumers to send to; `dead_letters`; each null: none.
  /// Both outlive it. `tell`: of failures of the store, from its thread.
  static Result<std::unique_ptr<Queue>> Open(std::unique_ptr<QueueStore> store, Options options,
                                             Sender* push, Sender* dead_letters,
                                             std::function<void(const std::string&)> tell);
  ~Queue();  ///< Stop

  /// What a service of the queue is given.
  Handler handler();
  Feed feed();
  const Figures& figures() const { return figures_; }

  /// Takes no more, and lets go of what it has not taken. What is out may still be settled.
  void TakeNoMore();
  /// Idempotent.
  void Stop();

 private:
  struct Settled {
    uint64_t number;
    Verdict verdict;
    bool dead = false;  // it was a dead letter
    bool pushed = false;
  };
  Queue(std::unique_ptr<QueueStore> store, Options options, Sender* push, Sender* dead_letters,
        std::function<void(const std::string&)> tell);

  std::optional<BootTime> Turn();
  void Store();
  void Settle();
  void GiveOut();
  std::shared_ptr<Outlet> Choose();
  void Give(const QueueCore::Next& next, const std::shared_ptr<Outlet>& to);
  void Bury(uint64_t number, const std::string& reason);
  void NoteFigures();

  const std::unique_ptr<QueueStore> store_;
  const Options options_;
  Sender* const push_;
  Sender* const dead_letters_;
  const std::function<void(const std::string&)> tell_;
  Figures figures_;

  // Its thread only.
  QueueCore core_;
  std::deque<Exchange> taken_;  // not stored; more than there is room for waits here
  uint64_t next_number_ = 1;
  size_t pushed_ = 0, turn_ = 0;
  std::vector<uint64_t> done_;  // to be removed
  bool failing_ = false;

  // Changed by Note and Look only.
  std::vector<Exchange> came_;    // bounded by credit
  std::vector<Settled> settled_;  // bounded by credit
  std::vector<std::shared_ptr<Outlet>> outlets_;
  bool closed_ = false;
  Turns turns_;  // last: it ends before the rest
};

}  // namespace datawire::intermediaries
