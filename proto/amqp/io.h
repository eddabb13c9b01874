#pragma once

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "amqp/connection.h"
#include "datawire/mutex.h"

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
    MutexLock lock(mutex_);
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
  Mutex mutex_;
  Condition empty_;
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  bool dead_ DW_GUARDED_BY(mutex_) = false;
  std::map<Member*, std::weak_ptr<Member>> members_ DW_GUARDED_BY(mutex_);
  std::map<uint64_t, std::shared_ptr<Timer>> timers_ DW_GUARDED_BY(mutex_);
  uint64_t next_timer_ DW_GUARDED_BY(mutex_) = 0;
};

struct Io::Impl {
  std::shared_ptr<Core> core = std::make_shared<Core>();
  asio::executor_work_guard<asio::io_context::executor_type> work{core->context().get_executor()};
  std::vector<std::thread> threads;
};

}  // namespace datawire::amqp
