#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/directory.h"

namespace datawire::directory {

/// What a pull brought. Value.
struct Pulled {
  Status status;                     ///< not OK: the stream ends with it
  std::optional<std::string> bytes;  ///< nothing: wait for Wake
  bool last = false;                 ///< the stream ends, OK, once it is written
  bool more = false;                 ///< the next pull brings bytes too: they may share a packet
};

/// The outgoing half of one stream: turns Wakes into pulls and pulls into writes, one at a time,
/// and ends the stream once, when neither runs. Knows no gRPC: what pulls, writes and ends is given
/// to it. Held by shared_ptr. Thread-safe.
class Outflow final : public Stream, public std::enable_shared_from_this<Outflow> {
 public:
  struct Actions {
    std::function<Pulled()> pull;  ///< never concurrently; not after `end`
    /// Written follows; with `more` also before it reached the socket.
    std::function<void(std::string bytes, bool more)> write;
    std::function<void(Status status)> end;          ///< once, last
    std::function<void(std::function<void()>)> run;  ///< later, on another thread; must not block
  };
  explicit Outflow(Actions actions) : actions_(std::move(actions)) {}

  /// What pulls is ready: Wakes before this are kept until it.
  void Start();
  void Wake() override;
  /// From now on Wakes wait for Release, which pulls and writes on this thread what they told of:
  /// what a message is answered with at once then costs no other thread.
  void Hold();
  void Release();
  /// The write is over; not `ok`: the peer is gone.
  void Written(bool ok);
  /// Ends as soon as a write under way is over, without further pulls. The first status holds.
  void Close(Status status);
  /// As Close, after what can be pulled now has been written.
  void DrainAndClose(Status status);
  bool ended() const;

 private:
  void Run();
  void Pump(std::unique_lock<std::mutex> lock);
  void Schedule(std::unique_lock<std::mutex>& lock);

  const Actions actions_;
  mutable std::mutex mutex_;
  bool woken_ = false;     // something may be there to pull
  bool scheduled_ = true;  // Run is on its way, at first by Start
  bool held_ = false;      // between Hold and Release
  bool pumping_ = false;   // a thread is in Pump
  bool writing_ = false;   // between write and Written
  bool draining_ = false;  // pull until nothing comes, then close
  bool ended_ = false;
  std::optional<Status> closing_;
};

}  // namespace datawire::directory
