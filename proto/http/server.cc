#include "http/server.h"

#include <httplib.h>

#include <atomic>
#include <deque>
#include <thread>
#include <vector>

#include "datawire/mutex.h"
#include "http/bind_failure.h"

namespace datawire {
namespace {

constexpr size_t kThreads = 4;
constexpr size_t kWaiting = 16;  // accepted connections without a thread; then accepting waits
constexpr std::chrono::seconds kRequestTime{2};
constexpr size_t kBodyBytes = 8 * 1024;

/// A bounded pool: httplib's own takes any number of connections. Thread-safe.
class BoundedPool final : public httplib::TaskQueue {
 public:
  BoundedPool() {
    for (size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Work(); });
  }

  void enqueue(std::function<void()> task) override {
    MutexLock lock(mutex_);
    // Each task ends within the time-outs below, so room comes.
    room_.wait(lock,
               [this]() DW_REQUIRES(mutex_) { return tasks_.size() < kWaiting || stopping_; });
    tasks_.push_back(std::move(task));
    work_.notify_one();
  }

  void shutdown() override {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  void Work() {
    for (;;) {
      std::function<void()> task;
      {
        MutexLock lock(mutex_);
        work_.wait(lock, [this]() DW_REQUIRES(mutex_) { return !tasks_.empty() || stopping_; });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
        room_.notify_one();
      }
      task();
    }
  }

  Mutex mutex_;
  Condition work_, room_;
  std::deque<std::function<void()>> tasks_ DW_GUARDED_BY(mutex_);
  bool stopping_ DW_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace

struct HttpServer::Running {
  httplib::Server server;
  HttpPages pages;
  uint16_t port = 0;
  std::atomic<bool> ended{false};
  std::thread thread;
};

Result<std::unique_ptr<HttpServer>> HttpServer::Start(const HostPort& at, HttpPages pages) {
  auto running = std::make_unique<Running>();
  running->pages = std::move(pages);
  httplib::Server& server = running->server;
  server.new_task_queue = [] { return new BoundedPool; };
  server.set_socket_options([](socket_t socket) {
    const int on = 1;  // not SO_REUSEPORT, httplib's default: a second server would share the port
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  });
  server.set_keep_alive_max_count(100);
  server.set_keep_alive_timeout(1);
  server.set_read_timeout(kRequestTime);
  server.set_write_timeout(kRequestTime);
  server.set_payload_max_length(kBodyBytes);
  server.Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("ok\n", "text/plain");
  });
  const HttpPages& shown = running->pages;
  server.Get("/readyz", [&shown](const httplib::Request&, httplib::Response& response) {
    const Status status = shown.ready();
    response.status = status.ok() ? 200 : 503;
    response.set_content(status.ok() ? "ok\n" : status.message() + "\n", "text/plain");
  });
  server.Get("/metrics", [&shown](const httplib::Request&, httplib::Response& response) {
    response.set_content(shown.metrics(), "text/plain; version=0.0.4; charset=utf-8");
  });
  const int port = at.port != 0 ? (server.bind_to_port(at.host, at.port) ? at.port : -1)
                                : server.bind_to_any_port(at.host);
  if (port <= 0) return BindFailure(at);
  running->port = static_cast<uint16_t>(port);
  running->thread = std::thread([run = running.get()] {
    run->server.listen_after_bind();
    run->ended = true;
  });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(running)));
}

HttpServer::HttpServer(std::unique_ptr<Running> running) : running_(std::move(running)) {}

HttpServer::~HttpServer() {
  Stop();
}

uint16_t HttpServer::port() const {
  return running_->port;
}

void HttpServer::Stop() {
  if (!running_->thread.joinable()) return;
  // stop() does nothing before the loop runs.
  while (!running_->server.is_running() && !running_->ended) std::this_thread::yield();
  running_->server.stop();
  running_->thread.join();
}

}  // namespace datawire
