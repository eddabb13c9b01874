#pragma once

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "amqp/connection.h"

namespace datawire::amqp {

namespace asio = boost::asio;
using Strand = asio::strand<asio::io_context::executor_type>;
using Socket = asio::basic_stream_socket<asio::ip::tcp, Strand>;
using Clock = std::chrono::steady_clock;
using Timer = asio::basic_waitable_timer<Clock, asio::wait_traits<Clock>, Strand>;

/// What Io shares with its connections, so that one may outlive the Io. Thread-safe.
class Core {
 public:
  /// Something to be ended by Stop: a connection or a listener.
  struct Member {
    virtual ~Member() = default;
    /// From any thread; ends soon, then calls Remove.
    virtual void Stop() = 0;
  };

  asio::io_context& context() { return context_; }
  /// False after Stop: the member will not run.
  bool Add(Member* member, std::weak_ptr<Member> weak);
  void Remove(Member* member);
  bool stopping();
  /// Posts to a strand; false, and nothing, once the threads are gone: what stays queued would hold
  /// its connection, and that this context, for ever.
  template <typename Task>
  bool Post(const Strand& strand, Task task) {
    std::lock_guard lock(mutex_);
    if (dead_) return false;
    asio::post(strand, std::move(task));
    return true;
  }
  /// On a thread of this Io.
  bool here() const;

 private:
  friend class Io;
  friend struct Io::Impl;

  asio::io_context context_;
  std::mutex mutex_;
  std::condition_variable empty_;
  bool stopping_ = false;                              // guarded by mutex_
  bool dead_ = false;                                  // guarded by mutex_
  std::map<Member*, std::weak_ptr<Member>> members_;   // guarded by mutex_
  std::map<uint64_t, std::shared_ptr<Timer>> timers_;  // guarded by mutex_
  uint64_t next_timer_ = 0;                            // guarded by mutex_
};

struct Io::Impl {
  std::shared_ptr<Core> core = std::make_shared<Core>();
  asio::executor_work_guard<asio::io_context::executor_type> work{core->context().get_executor()};
  std::vector<std::thread> threads;
};

}  // namespace datawire::amqp
