#pragma once

#include <map>
#include <memory>

#include "directory_node.h"
#include "tether_core.h"

namespace datawire::sim {

/// A process that serves: the real TetherCore under a shell of simulated streams, and an
/// application that registers, withdraws and drains. Bound to its Scheduler.
class ServiceProcess final : public Process {
 public:
  struct Options {
    std::chrono::milliseconds ttl{15'000};
    std::vector<Address> addresses;  ///< it picks among
    double duplicates = 0;           ///< chance that a message arrives twice
  };
  ServiceProcess(Network& network, Oracle& oracle, std::vector<DirectoryNode*> servers,
                 std::string name, Options options);

  /// A new life: it registers what it is meant to serve.
  void Start();
  /// Without a bye. `silently`: the machine too.
  void Kill(bool silently);
  /// A bye; down when it is through, or after 1 s.
  void Stop();

  /// What the application does now and then, from now on.
  void Play(Time until);
  void Register(const Address& address);
  void Withdraw(const Address& address);
  void Drain(bool undo);

  /// A tap on the wire sends an old stream again, from its hello on; one that resumed a session
  /// (a hello for a new one opens a new one: that is TLS's affair).
  void Replay();

  /// Its session is held, all it wants is registered, all else is not; else why not.
  std::string Settled() const;
  std::string url() const { return url_; }
  std::string program() const { return name + "." + std::to_string(run); }
  const std::string& session() const { return core_->session_id(); }
  bool wants(const Address& address) const { return wanted_.contains(address.text()); }
  size_t sessions_seen() const { return sessions_seen_; }
  size_t expiries_seen() const { return expiries_seen_; }

 private:
  void Act();
  void Connect(size_t server);
  void Send(const pb::TetherRequest& message);
  void Tick();
  void Arm();
  void PlayOnce(Time until);

  Network& network_;
  Scheduler& scheduler_;
  Oracle& oracle_;
  const std::vector<DirectoryNode*> servers_;
  const Options options_;
  std::unique_ptr<TetherCore> core_;
  std::shared_ptr<Wire> wire_;
  DirectoryNode* server_ = nullptr;
  uint64_t attempt_ = 0;
  std::string url_;
  std::map<std::string, Address> wanted_;
  std::map<std::string, uint64_t> asked_;  // how often, at the address
  bool draining_ = false, closing_ = false;
  std::optional<BootTime> armed_;
  size_t pending_ = 0, sessions_seen_ = 0, expiries_seen_ = 0;
  struct Recorded {
    DirectoryNode* server;
    std::vector<pb::TetherRequest> messages;
  };
  std::deque<Recorded> recorded_;  // the latest streams
};

}  // namespace datawire::sim
