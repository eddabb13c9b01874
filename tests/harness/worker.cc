// A service that works on each message for a while. Marks in a file what became of every message:
// `R id` received, `P id` processed (before it is accepted), `A id` accepted.

#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <deque>
#include <mutex>
#include <proton/message_id.hpp>
#include <thread>

#include "datawire/client.h"
#include "datawire/clock.h"
#include "flags.h"
#include "marks.h"

namespace {

using datawire::BootClock;
using std::chrono::milliseconds;

/// Accepts each exchange `delay` after it came, in that order, on a thread of its own.
class Desk {
 public:
  Desk(milliseconds delay, datawire::harness::Marks& marks)
      : delay_(delay), marks_(marks), thread_([this] { Work(); }) {}
  ~Desk() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  void Take(datawire::Exchange exchange) {
    marks_.Line("R " + proton::to_string(exchange.message().id()));
    const std::lock_guard lock(mutex_);
    waiting_.emplace_back(BootClock::now() + delay_, std::move(exchange));
    changed_.notify_one();
  }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    while (!stopping_ || !waiting_.empty()) {
      if (waiting_.empty()) {
        changed_.wait(lock);
        continue;
      }
      const auto left = waiting_.front().first - BootClock::now();
      if (left.count() > 0) {
        changed_.wait_for(lock, left);
        continue;
      }
      datawire::Exchange exchange = std::move(waiting_.front().second);
      waiting_.pop_front();
      lock.unlock();
      const std::string id = proton::to_string(exchange.message().id());
      marks_.Line("P " + id);
      exchange.Accept();
      marks_.Line("A " + id);
      lock.lock();
    }
  }

  const milliseconds delay_;
  datawire::harness::Marks& marks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<datawire::BootTime, datawire::Exchange>> waiting_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

int main(int argc, char** argv) {
  const datawire::harness::Flags flags(argc, argv,
                                       {{"--directory", ""},
                                        {"--address", ""},
                                        {"--marks", ""},
                                        {"--zone", ""},
                                        {"--delay-ms", "0"},
                                        {"--ttl-ms", "15000"}});
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before there are threads, so that none takes it

  datawire::harness::Marks marks(flags["--marks"]);
  datawire::ClientOptions options;
  options.resolver.directory = datawire::harness::Split(flags["--directory"]);
  options.session_ttl = milliseconds(flags.Number("--ttl-ms"));
  if (flags.Has("--zone")) options.locality.zone = flags["--zone"];
  datawire::Client client(options);
  Desk desk(milliseconds(flags.Number("--delay-ms")), marks);
  auto service = client.Serve(
      flags["--address"], [&desk](datawire::Exchange exchange) { desk.Take(std::move(exchange)); });
  if (!service.ok()) flags.Fail(service.status().ToString());
  std::printf("listening %s\n", (*service)->url().c_str());
  std::fflush(stdout);
  if (datawire::Status status = (*service)->WaitRegistered(std::chrono::minutes(2)); !status.ok()) {
    flags.Fail(status.ToString());
  }
  std::printf("registered\n");
  std::fflush(stdout);
  int signal = 0;
  sigwait(&ends, &signal);
  (*service)->Stop(std::chrono::seconds(5));
  return 0;
}
