#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "datawire/stage.h"
#include "turns.h"

namespace datawire::intermediaries {

/// A topic: what comes goes to every subscriber that is there, and is accepted once each of them
/// has settled it, or is gone. A subscriber that does not settle a message within `slow` is cut
/// off, so that it holds up the others for no longer. Events come in from any thread and are worked
/// on by one of its own. Thread-safe.
class Topic {
 public:
  struct Options {
    std::chrono::milliseconds slow{5'000};
  };
  struct Figures {
    std::atomic<uint64_t> subscribers{0}, waiting{0};
    std::atomic<uint64_t> published{0}, unheard{0}, given{0}, accepted{0}, cut_off{0}, missed{0};
  };

  /// `targets`: addresses to push to, subscribers as any; they outlive it.
  Topic(Options options, std::vector<Sender*> targets);
  ~Topic();  ///< Stop

  Handler handler();
  Feed feed();
  const Figures& figures() const { return figures_; }
  /// Takes no more. What is under way may still be settled.
  void TakeNoMore();
  /// Idempotent.
  void Stop();

 private:
  /// One message, until all have settled it.
  struct Published {
    explicit Published(Exchange exchange) : input(std::move(exchange)) {}
    Exchange input;
    size_t left = 0;  // subscribers that have not settled it
    BootTime since;
  };
  using Shared = std::shared_ptr<Published>;
  struct Subscriber {
    std::shared_ptr<Outlet> outlet;  // null: a target
    Sender* target = nullptr;
    struct Waiting {
      Shared message;
      BootTime not_before;
      uint32_t deliveries = 0;
    };
    std::deque<Waiting> waiting;      // in order; bounded by the publishers' credit
    std::map<uint64_t, Waiting> out;  // by a number of its own
  };
  struct Settled {
    uint64_t subscriber, number;
    Verdict verdict;
  };

  // In the turn.
  std::optional<BootTime> Turn();
  void TakeEvents();
  void Publish(Exchange exchange, BootTime now);
  void HandOut(uint64_t id, Subscriber& subscriber, BootTime now);
  void Hear(Settled& settled, BootTime now);
  void Drop(uint64_t id);
  void Done(const Shared& message);
  void CutOffTheSlow(BootTime now);
  std::optional<BootTime> NextWake() const;

  const Options options_;
  Figures figures_;
  // In the turn.
  std::map<uint64_t, Subscriber> subscribers_;
  uint64_t next_ = 1;

  // Changed by Note and Look only.
  std::vector<Exchange> came_;    // bounded by credit
  std::vector<Settled> settled_;  // bounded by credit
  std::vector<std::shared_ptr<Outlet>> attached_, gone_;
  bool closed_ = false;
  Turns turns_;  // last: it ends before the rest
};

}  // namespace datawire::intermediaries
