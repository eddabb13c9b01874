#pragma once

#include "amqp/pump.h"

namespace datawire::amqp {

template <typename Stream>
void Pump<Stream>::Start() {
  if (over_) return;
  const auto shaken = [self = self()](const boost::system::error_code& error) {
    if (self->over_) return;
    if (error)
      return self->End(Status(
          Code::kUnavailable,
          "no TLS with " + self->peer_ + ": " + Handshake<Stream>::Reason(*self->stream_, error)));
    if (Status known = Handshake<Stream>::Recognise(*self->stream_, self->options_); !known.ok())
      return self->End(Status(known.code(), self->peer_ + " " + known.message()));
    self->connected_ = true;
    self->handshake_deadline_ = Clock::now() + self->options_.handshake_timeout;
    self->Turn();
  };
  handshake_deadline_ = Clock::now() + options_.handshake_timeout;
  Arm(Clock::now(), std::nullopt);
  Handshake<Stream>::Run(*stream_, role_ == Driver::Role::kClient, shaken);
}

template <typename Stream>
bool Pump<Stream>::Post(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (ended_) return false;
    tasks_.push_back(std::move(task));
    if (scheduled_) return true;
    scheduled_ = true;
  }
  return core_->Post(strand_, [self = self()] {
    self->RunTasks();
    self->Turn();
  });
}

template <typename Stream>
void Pump<Stream>::RunTasks() {
  if (!driver_) return;  // Prepare runs them
  std::vector<std::function<void()>> tasks;
  {
    MutexLock lock(mutex_);
    tasks.swap(tasks_);
    scheduled_ = false;
  }
  for (auto& task : tasks) {
    if (over_ || driver_->failed()) return;
    try {
      task();
    } catch (const std::exception& e) {
      driver_->Fail({"amqp:internal-error",
                     Status(Code::kInternal, std::string("a posted task threw: ") + e.what())});
    }
  }
}

template <typename Stream>
void Pump<Stream>::After(std::chrono::milliseconds delay, std::function<void()> task) {
  Post([this, delay, task = std::move(task)]() mutable {
    auto timer = std::make_shared<Timer>(strand_, delay);
    timers_.insert(timer);
    timer->async_wait([self = self(), timer,
                       task = std::move(task)](const boost::system::error_code& error) mutable {
      self->timers_.erase(timer);
      if (!error && !self->over_) self->Post(std::move(task));
    });
  });
}

template <typename Stream>
void Pump<Stream>::Close(std::chrono::milliseconds wait) {
  core_->Post(strand_, [self = self(), wait] {
    if (self->over_ || self->closing_) return;
    self->closing_ = true;
    if (!self->connected_) return self->End(Status::Ok());
    self->close_deadline_ = Clock::now() + wait;
    self->RunTasks();
    self->driver_->Close();
    self->Turn();
  });
}

template <typename Stream>
void Pump<Stream>::Abort(Status why) {
  core_->Post(strand_, [self = self(), why = std::move(why)] {
    self->End(why);
    self->CloseSocket();
  });
}

/// One turn of the pump: callbacks, then output, then see whether it is over.
template <typename Stream>
void Pump<Stream>::Turn() {
  if (over_ || !connected_ || turning_) return;
  turning_ = true;
  const Clock::time_point now = Clock::now();
  HoldTasks();
  const auto tick = driver_->Tick(now);
  driver_->Dispatch();
  RunTasks();
  driver_->Dispatch();
  if (!writing_) {
    out_.clear();
    sent_ = 0;
    driver_->Write(out_, kBuffer);
    driver_->Dispatch();
    if (!out_.empty()) Write();
  }
  turning_ = false;
  if (driver_->opened()) handshake_deadline_.reset();
  if (driver_->failed() && !close_deadline_) close_deadline_ = now + limits::kFlush;
  Decide(now);
  if (over_) return;
  if (!reading_ && !input_ended_ && unread_ < limits::kUnreadBytes) Read();
  Arm(now, tick);
}

template <typename Stream>
void Pump<Stream>::Decide(Clock::time_point now) {
  if (!writing_ && (driver_->finished() || driver_->failed()))
    return End(driver_->reason().value_or(Status::Ok()));
  const auto late = [now](const auto& deadline) { return deadline && now >= *deadline; };
  const auto ms = [](auto duration) { return std::to_string(duration.count()) + " ms"; };
  if (late(close_deadline_))
    End(driver_->reason().value_or(Status(Code::kTimeout, "the peer did not answer the close")));
  else if (late(handshake_deadline_))
    End(Status(Code::kUnavailable, std::string(connected_ ? "no AMQP open from " : "no TLS with ") +
                                       peer_ + " within " + ms(options_.handshake_timeout)));
  else if (late(stall_deadline_))
    End(Status(Code::kUnavailable, peer_ + " has read nothing for " + ms(options_.write_stall)));
}

template <typename Stream>
void Pump<Stream>::Read() {
  reading_ = true;
  stream_->async_read_some(asio::buffer(in_),
                           [self = self()](const boost::system::error_code& error, size_t n) {
                             self->OnRead(error, n);
                           });
}

template <typename Stream>
void Pump<Stream>::OnRead(const boost::system::error_code& error, size_t n) {
  reading_ = false;
  if (over_) {
    if (!lingering_) return;
    if (error) return CloseSocket();
    return Read();
  }
  if (Handshake<Stream>::IsEnd(error) && driver_->remote_closed()) {
    input_ended_ = true;  // our close is still being written
    return Turn();
  }
  if (error) return Lost(error);
  if (writing_) unread_ += n;
  HoldTasks();
  driver_->Read(in_.data(), n);
  // What the callbacks posted to the Io runs before: what that has to say goes out in this turn.
  core_->Post(strand_, [self = self()] { self->Turn(); });
}

template <typename Stream>
void Pump<Stream>::Write() {
  writing_ = true;
  stall_deadline_ = Clock::now() + options_.write_stall;
  stream_->async_write_some(asio::buffer(out_.data() + sent_, out_.size() - sent_),
                            [self = self()](const boost::system::error_code& error, size_t n) {
                              self->OnWritten(error, n);
                            });
}

template <typename Stream>
void Pump<Stream>::OnWritten(const boost::system::error_code& error, size_t n) {
  writing_ = false;
  stall_deadline_.reset();
  unread_ = 0;
  if (over_) return;
  if (error) return Lost(error);
  sent_ += n;
  if (sent_ < out_.size()) Write();
  Turn();
}

}  // namespace datawire::amqp
