#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "datawire/clock.h"
#include "datawire/directory/v1/directory.pb.h"
#include "datawire/selector.h"
#include "tether.h"

namespace datawire {

/// What the shell does for the core, in order.
struct TetherConnect {
  size_t server;  ///< index; ends an attempt that is still open
};
struct TetherDisconnect {};
struct TetherSend {
  directory::v1::TetherRequest message;
};
struct TetherFinish {
  TetherClient::Done done;
  Result<Revision> result;
};
struct TetherObserve {
  std::string line;
};
using TetherAction =
    std::variant<TetherConnect, TetherDisconnect, TetherSend, TetherFinish, TetherObserve>;

/// The client's end of a tether as a pure state machine: events and `now` in, actions out; no
/// thread, clock or socket. Thread-compatible.
class TetherCore {
 public:
  struct Options {
    size_t servers = 1;
    std::chrono::milliseconds ttl = limits::kSessionTtlDefault;
    std::string host, program;
    uint32_t pid = 0;
  };
  TetherCore(Options options, uint64_t seed);

  void Register(RegistrationSpec spec, TetherClient::Done done, BootTime now);
  void Withdraw(const Address& address, const EndpointUrl& url, TetherClient::Done done,
                BootTime now);
  void Drain(bool undo, TetherClient::Done done, BootTime now);
  void Close(BootTime now);  ///< bye, as soon as the stream is up
  void Abandon();            ///< closed now, without a bye; what is pending is cancelled

  /// From now on there are so many servers, in the order they are tried; until then there may be
  /// none. `present` is where the one in use is among them: if nowhere, it is left at once.
  void SetServers(size_t count, std::optional<size_t> present, BootTime now);
  size_t server() const { return server_; }
  /// None was reached since the last that was.
  bool all_failed() const { return failures_ >= std::max<size_t>(options_.servers, 1); }

  void OnMessage(const directory::v1::TetherResponse& message, BootTime now);
  void OnLost(const Status& why, BootTime now);
  void Tick(BootTime now);

  /// When Tick wants to be called next; nothing: only after the next event.
  std::optional<BootTime> NextDue() const;
  std::vector<TetherAction> TakeActions() { return std::exchange(actions_, {}); }

  bool closed() const { return phase_ == Phase::kClosed; }
  const std::string& session_id() const { return session_id_; }

 private:
  enum class Phase { kIdle, kWaiting, kGreeting, kAttached, kClosed };
  using Key = std::pair<std::string, std::string>;  // address, URL
  struct PendingOp {
    directory::v1::TetherRequest message;
    TetherClient::Done done;
    std::optional<Key> key;  // what it registers or withdraws
    bool sent = false;
    std::optional<BootTime> not_before;  // refused until then
  };

  using Ops = std::map<uint64_t, PendingOp>;

  void Start(BootTime now);
  void Connect(BootTime now);
  void Retry(BootTime now, std::chrono::milliseconds least = {});
  void SendHello();
  void SendDue(BootTime now);
  uint64_t Enqueue(directory::v1::TetherRequest message, TetherClient::Done done);
  void EnqueueRegister(const Key& key, TetherClient::Done done);
  void EnqueueWithdraw(const Key& key, TetherClient::Done done);
  void Supersede(const Key& key);
  /// A later op is for the same address and endpoint.
  bool Overtaken(Ops::const_iterator op) const;
  void OnWelcome(const directory::v1::TetherResponse::Welcome& welcome, BootTime now);
  void OnDone(const directory::v1::TetherResponse::Done& done, BootTime now);
  void OnEnded(const directory::v1::TetherResponse::Ended& ended, BootTime now);
  void NewSession();
  void AfterRestore();
  void Finish(TetherClient::Done done, Result<Revision> result);
  void Observe(std::string line) { actions_.push_back(TetherObserve{std::move(line)}); }
  void BecomeClosed();
  std::chrono::milliseconds BackOffMost() const;

  Options options_;
  Random random_;
  Phase phase_ = Phase::kIdle;
  size_t server_ = 0;
  bool ordered_ = false;   // the servers: after a loss the first is tried again first
  uint32_t failures_ = 0;  // attempts since the last answered heartbeat
  bool renewing_ = false;  // a session ended, and the one after it has not lasted a heartbeat yet
  bool closing_ = false, bye_sent_ = false, draining_ = false;
  bool drain_asked_ = false;  // or its undoing

  std::string session_id_, secret_;
  uint64_t attach_number_ = 0;
  std::chrono::milliseconds ttl_;
  Revision welcomed_at_;

  std::map<Key, RegistrationSpec> wanted_;
  std::set<Key> withdrawn_;  // of this session, as many as it may hold
  Ops ops_;                  // by op id: the order in which they are sent
  uint64_t last_op_ = 0;

  uint64_t last_heartbeat_ = 0;
  BootTime heartbeat_due_{}, waiting_until_{}, greeting_until_{};
  std::optional<BootTime> answer_until_;  // an answer to a heartbeat or op is due by then
  std::vector<TetherAction> actions_;
};

}  // namespace datawire
