#include "probe.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <proton/connection.hpp>
#include <proton/error_condition.hpp>
#include <proton/messaging_handler.hpp>
#include <thread>

#include "amqp/connection.h"

namespace datawire::cli {

/// One probe: what its thread and ours share. It has no end of its own; it is cancelled.
struct Prober::Job {
  Job(CheckSpec with, EndpointUrl at, std::shared_ptr<amqp::Tls> files)
      : spec(std::move(with)), url(std::move(at)), tls(std::move(files)) {}
  ~Job() { ::close(wake); }

  /// Waits for `events` of `fd`, or for Wake with fd -1; false: cancelled.
  bool Wait(int fd, short events) {
    pollfd either[] = {{.fd = wake, .events = POLLIN, .revents = 0},
                       {.fd = fd, .events = events, .revents = 0}};
    while (::poll(either, 2, -1) < 0 && errno == EINTR) continue;
    if (uint64_t times = 0; either[0].revents != 0) (void)!::read(wake, &times, sizeof times);
    std::lock_guard lock(mutex);
    return !cancelled;
  }
  void Wake() const {
    const uint64_t one = 1;
    (void)!::write(wake, &one, sizeof one);
  }

  const CheckSpec spec;
  const EndpointUrl url;
  const std::shared_ptr<amqp::Tls> tls;
  const int wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  std::mutex mutex;
  std::condition_variable over;
  bool cancelled = false, ended = false;
  std::optional<std::string> outcome;
};

namespace {

constexpr std::chrono::milliseconds kEndMost{500};
constexpr size_t kStatusLineMost = 1024;

using Job = Prober::Job;

// Closed at the end.
struct Socket {
  explicit Socket(int number) : fd(number) {}
  ~Socket() {
    if (fd >= 0) ::close(fd);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  const int fd;
};

// 0, or the errno of the attempt.
int Connect(Job& job, const addrinfo& to, int fd) {
  if (fd < 0) return errno;
  if (::connect(fd, to.ai_addr, to.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  int error = 0;
  socklen_t size = sizeof error;
  if (!job.Wait(fd, POLLOUT)) return ECANCELED;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

// Why there is no good answer.
std::string Get(Job& job, int fd) {
  const std::string what = "GET " + job.spec.path;
  const std::string request = what + " HTTP/1.1\r\nHost: " + job.url.authority() +
                              "\r\nUser-Agent: dw\r\nConnection: close\r\n\r\n";
  for (size_t sent = 0; sent < request.size();) {
    if (!job.Wait(fd, POLLOUT)) return "cancelled";
    const ssize_t n = ::send(fd, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (n > 0) sent += n;
    if (n < 0 && errno != EAGAIN && errno != EINTR) return what + ": " + std::strerror(errno);
  }
  std::string line;
  while (line.find("\r\n") == std::string::npos) {
    if (!job.Wait(fd, POLLIN)) return "cancelled";
    char bytes[256];
    const ssize_t n = ::recv(fd, bytes, sizeof bytes, 0);
    if (n > 0) line.append(bytes, n);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return what + ": " + std::strerror(errno);
    if (n == 0 || line.size() > kStatusLineMost) return what + ": no status line of HTTP came";
  }
  // HTTP/1.1 200 OK
  const std::string status = line.substr(0, line.find("\r\n"));
  const size_t space = status.find(' ');
  if (!status.starts_with("HTTP/1.") || space == std::string::npos)
    return what + ": " + Shown(status) + " is no status line of HTTP";
  const std::string code = status.substr(space + 1, 3);
  const bool good = code.size() == 3 && (code[0] == '2' || code[0] == '3');
  return good ? "" : what + " answered " + Shown(code);
}

// TCP, and HTTP over it: the first address of the host that takes the connection.
std::string OverTcp(Job& job) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const uint16_t port = job.spec.port != 0 ? job.spec.port : job.url.port();
  if (const int error =
          ::getaddrinfo(job.url.host().c_str(), std::to_string(port).c_str(), &hints, &found))
    return ::gai_strerror(error);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> all(found, ::freeaddrinfo);
  int error = 0;
  for (const addrinfo* to = found; to != nullptr && error != ECANCELED; to = to->ai_next) {
    const Socket socket(
        ::socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, to->ai_protocol));
    error = Connect(job, *to, socket.fd);
    if (error == 0) return job.spec.kind == CheckSpec::Kind::kHttp ? Get(job, socket.fd) : "";
  }
  return std::strerror(error);
}

// What the connection said, for the thread of the probe. The proton objects stay on their strand.
struct Heard final : proton::messaging_handler {
  explicit Heard(std::shared_ptr<Job> of) : job(std::move(of)) {}
  void on_connection_open(proton::connection&) override {
    std::lock_guard lock(job->mutex);
    open = true;
    job->Wake();
  }
  void on_error(const proton::error_condition&) override {}  // the connection's end tells
  void OnClosed(const Status& status) {
    std::lock_guard lock(job->mutex);
    closed = status;
    job->Wake();
  }

  const std::shared_ptr<Job> job;
  bool open = false;
  std::optional<Status> closed;
};

// Healthy: opened, and our close is answered.
std::string OverAmqp(const std::shared_ptr<Job>& job) {
  amqp::Io io;
  const auto heard = std::make_shared<Heard>(job);
  amqp::ConnectionOptions options;
  options.virtual_host = job->url.host();
  if (job->url.secure()) options.tls = job->tls;
  const auto connection =
      amqp::Connection::Open(io, HostPort{job->url.host(), job->url.port()}, std::move(options),
                             heard, [heard](const Status& status) { heard->OnClosed(status); });
  bool closing = false;
  while (job->Wait(-1, 0)) {
    std::lock_guard lock(job->mutex);
    if (heard->closed && !heard->closed->ok()) return heard->closed->message();
    if (heard->closed) return heard->open ? "" : "closed before its AMQP open";
    if (heard->open && !closing) connection->Close();
    closing = heard->open;
  }
  return "cancelled";
}

void Run(const std::shared_ptr<Job>& job) {
  std::string outcome = job->spec.kind == CheckSpec::Kind::kAmqp ? OverAmqp(job) : OverTcp(*job);
  std::lock_guard lock(job->mutex);
  job->outcome = std::move(outcome);
  job->ended = true;
  job->over.notify_all();
}

}  // namespace

Prober::~Prober() {
  if (!job_) return;
  Cancel();
  std::unique_lock lock(job_->mutex);
  job_->over.wait_for(lock, kEndMost, [this] { return job_->ended; });
}

bool Prober::Start() {
  if (job_) {
    std::lock_guard lock(job_->mutex);
    if (!job_->ended) return false;
  }
  job_ = std::make_shared<Job>(spec_, url_, tls_);
  // Not joined: nobody can end the lookup of a name.
  std::thread([job = job_] { Run(job); }).detach();
  return true;
}

std::optional<std::string> Prober::Take() {
  if (!job_) return std::nullopt;
  std::lock_guard lock(job_->mutex);
  if (job_->cancelled) return std::nullopt;
  return std::exchange(job_->outcome, std::nullopt);
}

void Prober::Cancel() {
  std::lock_guard lock(job_->mutex);
  job_->cancelled = true;
  job_->Wake();
}

bool HealthCheck::Up(BootTime now) {
  if (auto outcome = prober_.Take()) {
    Judge(std::move(*outcome));
  } else if (core_.Overdue(now)) {
    prober_.Cancel();
    Judge(started_ ? "no answer within " + std::to_string(timeout_.count()) + " ms"
                   : "its name is still being looked up");
  }
  if (core_.Due(now)) {
    core_.Begin(now);
    started_ = false;
  }
  if (core_.probing() && !started_) started_ = prober_.Start();
  return core_.up();
}

void HealthCheck::Judge(std::string reason) {
  core_.OnResult(reason.empty());
  reason_ = std::move(reason);
}

std::string HealthCheck::in_a_row() const {
  return std::to_string(core_.in_a_row()) + (core_.in_a_row() == 1 ? " probe" : " probes in a row");
}

}  // namespace datawire::cli
