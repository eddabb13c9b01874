#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "datawire/status.h"
#include "scheduler.h"

namespace datawire::sim {

class Network;

/// One stream between a client and a server process, as HTTP/2 gives it: in order, or broken. What
/// a cut path holds back arrives when it heals, also after one end has given up. Bound to its
/// Scheduler.
class Wire : public std::enable_shared_from_this<Wire> {
 public:
  using Task = Scheduler::Task;

  Wire(Network& network, uint64_t the_number, Process& client, Process& server)
      : number(the_number), network_(network), client_(client), server_(server) {}

  const uint64_t number;  ///< in the order they were made

  /// `accepted` runs at the server, `lost` at the client, when it ends from there or never began.
  void Open(Task accepted, Task connected, std::function<void(const Status&)> lost);
  /// At the server: runs when the client's end is gone.
  void OnGone(Task gone) { gone_ = std::move(gone); }

  void Up(Task deliver);    ///< from the client
  void Down(Task deliver);  ///< from the server
  void CloseByClient();
  void CloseByServer(const Status& status);
  /// A middlebox resets it: what is under way is lost.
  void Break();
  /// The process at one end has died; `silently`: its machine too, so the other hears nothing.
  void EndDied(const Process& which, bool silently);

  bool client_open() const { return client_open_; }
  bool server_open() const { return server_open_; }
  Process& client() const { return client_; }
  Process& server() const { return server_; }

 private:
  friend class Network;
  void TellLost(const Status& status);
  void TellGone();

  Network& network_;
  Process& client_;
  Process& server_;
  bool client_open_ = true, server_open_ = false, refused_ = false, broken_ = false;
  Time up_last_{0}, down_last_{0};
  Task gone_;
  std::function<void(const Status&)> lost_;
};

/// Paths between processes, each direction by itself: delays, cuts. Bound to its Scheduler.
class Network {
 public:
  explicit Network(Scheduler& scheduler) : scheduler_(scheduler) {}

  std::shared_ptr<Wire> MakeWire(Process& client, Process& server);
  /// One message without a stream: half of a unary call.
  void Send(Process& from, Process& to, Scheduler::Task arrived) {
    Send(from, to, {nullptr, nullptr, std::move(arrived), false});
  }

  void Cut(Process& from, Process& to) { PathOf(from, to).cut++; }
  /// Cuts add up; what was held goes when the last one heals.
  void Heal(Process& from, Process& to);
  void HealAll();
  /// All streams of the process are reset.
  void BreakAll(Process& process);
  void Died(Process& process, bool silently);

  /// Most of a message's delay; small ones are much more frequent.
  Time delay_most = 5ms;

  Scheduler& scheduler() { return scheduler_; }

 private:
  struct Message {
    std::shared_ptr<Wire> wire;  // null: no stream
    Time* last;                  // of the stream's direction: order is kept
    Scheduler::Task arrived;
    bool tells;  // of the stream's end: arrives also when the stream is broken
  };
  struct Path {
    int cut = 0;
    std::deque<Message> held;
  };
  using Key = std::pair<const Process*, const Process*>;
  friend class Wire;
  Path& PathOf(Process& from, Process& to);
  void Send(Process& from, Process& to, Message message);
  Time Delay();

  Scheduler& scheduler_;
  std::map<Key, Path> paths_;
  std::vector<std::pair<Process*, Process*>> known_;  // in the order of first use
  std::vector<std::shared_ptr<Wire>> wires_;
  uint64_t made_ = 0;
};

}  // namespace datawire::sim
