#pragma once

#include "amqp/pump.h"
#include "datawire/assert.h"

/// How a pump ends: its deadlines, its last callbacks, its socket.
namespace datawire::amqp {

template <typename Stream>
void Pump<Stream>::Lost(const boost::system::error_code& error) {
  const std::string what =
      Handshake<Stream>::IsEnd(error) ? " closed the socket" : ": " + error.message();
  End(driver_->reason().value_or(Status(Code::kUnavailable, peer_ + what)));
}

template <typename Stream>
void Pump<Stream>::Arm(Clock::time_point now, std::optional<Clock::time_point> tick) {
  std::optional<Clock::time_point> next = tick;
  for (const auto& deadline : {handshake_deadline_, stall_deadline_, close_deadline_})
    if (deadline && (!next || *deadline < *next)) next = deadline;
  if (!next) return;
  if (armed_ && *armed_ <= *next && *armed_ > now) return;  // it fires in time and looks again
  armed_ = next;
  alarm_.expires_at(*next);
  alarm_.async_wait([self = self()](const boost::system::error_code& error) {
    if (!error) self->OnAlarm();
  });
}

template <typename Stream>
void Pump<Stream>::OnAlarm() {
  armed_.reset();
  if (lingering_) return CloseSocket();
  if (!connected_ && !over_) return Decide(Clock::now());  // in the handshake
  Turn();
}

template <typename Stream>
void Pump<Stream>::End(Status status) {
  if (over_) return;
  DW_ASSERT(!turning_);
  over_ = true;
  std::vector<std::function<void()>> tasks;  // their captures end on the strand, too
  {
    MutexLock lock(mutex_);
    ended_ = true;
    tasks.swap(tasks_);
  }
  const bool flushed =
      driver_ && connected_ && !writing_ && driver_->failed() && !driver_->remote_closed();
  if (driver_) driver_->Finish(status.ok() ? "closed" : status.message());
  for (const auto& timer : timers_) timer->cancel();
  if (closed_) std::exchange(closed_, nullptr)(status);
  tasks.clear();
  driver_.reset();
  handler_.reset();
  if (flushed)
    Linger();
  else
    CloseSocket();
}

/// Closing with input unread would reset the connection and take our close frame with it.
template <typename Stream>
void Pump<Stream>::Linger() {
  boost::system::error_code ignored;
  stream_->lowest_layer().shutdown(asio::socket_base::shutdown_send, ignored);
  lingering_ = true;
  armed_.reset();
  close_deadline_ = Clock::now() + limits::kLinger;
  handshake_deadline_.reset();
  stall_deadline_.reset();
  Arm(Clock::now(), std::nullopt);
  if (!reading_) Read();
}

template <typename Stream>
void Pump<Stream>::CloseSocket() {
  lingering_ = false;
  boost::system::error_code ignored;
  stream_->lowest_layer().close(ignored);
  alarm_.cancel();
  core_->Remove(this);
  if (gone_) std::exchange(gone_, nullptr)();
}

}  // namespace datawire::amqp
