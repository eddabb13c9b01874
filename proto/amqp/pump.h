#pragma once

#include <array>
#include <atomic>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "amqp/driver.h"
#include "amqp/handshake.h"
#include "amqp/io.h"
#include "datawire/mutex.h"

namespace datawire::amqp {

/// A connection over any Asio stream (a TCP socket, ssl::stream, a WebSocket) whose lowest_layer()
/// is a socket: one read and one write under way at most, and one timer at the next deadline.
/// Thread-safe; all but the Connection interface belongs to the strand.
template <typename Stream>
class Pump final : public Connection, public Core::Member {
 public:
  Pump(std::shared_ptr<Core> core, const Strand& strand, std::unique_ptr<Stream> stream,
       std::string peer, ConnectionOptions options, Driver::Role role,
       std::shared_ptr<proton::messaging_handler> handler, Closed closed)
      : core_(std::move(core)),
        strand_(strand),
        stream_(std::move(stream)),
        peer_(std::move(peer)),
        options_(std::move(options)),
        role_(role),
        handler_(std::move(handler)),
        closed_(std::move(closed)),
        alarm_(strand) {}

  ~Pump() override { core_->Remove(this); }

  const Strand& strand() const { return strand_; }
  Stream& stream() { return *stream_; }
  const ConnectionOptions& options() const { return options_; }
  bool over() const { return over_; }
  /// Called when the socket is closed, after Closed.
  void set_gone(std::function<void()> gone) { gone_ = std::move(gone); }

  /// Joins the Io; false when that is stopped. Once, before all else, by the maker's thread.
  bool Join() { return core_->Add(this, std::static_pointer_cast<Pump>(shared_from_this())); }

  /// Makes the engine; what is posted runs from here on.
  void Prepare() {
    driver_ = std::make_unique<Driver>(options_, role_, std::move(handler_));
    RunTasks();
  }
  /// The socket is connected: the handshake, if there is one, then bytes may flow.
  void Start();
  /// Ends it; idempotent. Not from inside of a callback of the driver.
  void End(Status status);

  // Connection
  bool Post(std::function<void()> task) override;
  void After(std::chrono::milliseconds delay, std::function<void()> task) override;
  void Close(std::chrono::milliseconds wait) override;
  void Abort(Status why) override;
  proton::connection proton() override {
    return driver_ ? driver_->connection() : proton::connection();
  }
  std::string peer() const override { return peer_; }

  // Core::Member
  void Stop() override { Abort(Status(Code::kCancelled, "the program stops")); }

 private:
  static constexpr size_t kBuffer = 64 * 1024;

  std::shared_ptr<Pump> self() { return std::static_pointer_cast<Pump>(shared_from_this()); }
  /// What callbacks post from here on runs in the turn that follows.
  void HoldTasks() {
    MutexLock lock(mutex_);
    scheduled_ = true;
  }
  void RunTasks();
  void Turn();
  void Read();
  void Write();
  void OnRead(const boost::system::error_code& error, size_t n);
  void OnWritten(const boost::system::error_code& error, size_t n);
  void Decide(Clock::time_point now);
  void Arm(Clock::time_point now, std::optional<Clock::time_point> tick);
  void OnAlarm();
  void Linger();
  void CloseSocket();
  void Lost(const boost::system::error_code& error);

  const std::shared_ptr<Core> core_;
  const Strand strand_;
  std::unique_ptr<Stream> stream_;
  const std::string peer_;
  const ConnectionOptions options_;
  const Driver::Role role_;
  std::shared_ptr<proton::messaging_handler> handler_;
  Closed closed_;
  std::function<void()> gone_;
  std::unique_ptr<Driver> driver_;
  Timer alarm_;
  std::optional<Clock::time_point> armed_;
  std::set<std::shared_ptr<Timer>> timers_;

  bool connected_ = false, reading_ = false, writing_ = false, input_ended_ = false;
  bool over_ = false, lingering_ = false, closing_ = false, turning_ = false;
  std::array<char, kBuffer> in_;
  std::vector<char> out_;
  size_t sent_ = 0;
  size_t unread_ = 0;  // bytes read since a write last made progress
  std::optional<Clock::time_point> handshake_deadline_, stall_deadline_, close_deadline_;

  Mutex mutex_;
  std::vector<std::function<void()>> tasks_ DW_GUARDED_BY(mutex_);  // bounded by those who post
  bool scheduled_ DW_GUARDED_BY(mutex_) = false;
  bool ended_ DW_GUARDED_BY(mutex_) = false;
};

}  // namespace datawire::amqp

#include "amqp/pump_end_inl.h"
#include "amqp/pump_inl.h"
