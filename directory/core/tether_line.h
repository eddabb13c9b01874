#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/ground.h"
#include "core/ops.h"
#include "datawire/mutex.h"

namespace datawire::directory {

inline constexpr size_t kTetherOps = 256;       // in flight or queued of one session
inline constexpr size_t kTetherReplies = 4096;  // unread by a peer that goes on asking
inline constexpr size_t kTetherResults = 256;   // remembered; later ones are in the records

/// One tether stream: where it stands, and what is to be sent on it. `state`, `session_id` and
/// `waiting` are guarded by the lock of Tethers; Put and Next are thread-safe.
class TetherLine {
 public:
  TetherLine(uint64_t number, Peer from, Stream& stream)
      : id(number), peer(std::move(from)), gate(stream) {}

  /// To be sent once the gate is woken.
  void Put(pb::TetherResponse response);
  std::optional<pb::TetherResponse> Next();

  const uint64_t id;
  const Peer peer;
  StreamGate gate;

  enum State { kNew, kOpening, kOpen, kEnded } state = kNew;
  std::string session_id;
  std::deque<pb::TetherRequest> waiting;  // came before the welcome

 private:
  Mutex mu_;
  std::deque<pb::TetherResponse> out_ DW_GUARDED_BY(mu_);
  bool overrun_ DW_GUARDED_BY(mu_) = false;
};

/// A register or withdraw of a session on its way. Fields after `line` are guarded by the lock of
/// Tethers.
struct SessionOp {
  uint64_t op_id = 0;
  std::string session_id;
  uint64_t attach_number = 0;
  std::string identity;
  std::vector<CheckedRegistration> registrations;  // of a register
  std::vector<CheckedWithdrawal> withdrawals;      // of a withdraw
  std::vector<std::string> addresses;
  int attempts = 0;
  std::shared_ptr<TetherLine> line;  // who hears of it: the latest that sent it
  size_t reserved = 0, removed = 0;
};

/// What to do once the lock is released.
struct After {
  std::vector<std::pair<std::shared_ptr<TetherLine>, pb::TetherResponse>> sends;
  std::vector<std::function<void()>> calls;
  void Run() {
    for (auto& [line, response] : sends) line->Put(std::move(response));
    // Once for what goes out on one line together: the first wake may cost this thread its core.
    for (size_t i = 0; i < sends.size(); ++i)
      if (i + 1 == sends.size() || sends[i + 1].first != sends[i].first)
        sends[i].first->gate.Wake();
    for (auto& call : calls) call();
  }
};

}  // namespace datawire::directory
