#pragma once

#include <atomic>
#include <map>
#include <proton/sender.hpp>
#include <proton/tracker.hpp>
#include <vector>

#include "amqp/connection.h"
#include "datawire/feed.h"
#include "link_book.h"

namespace datawire {

/// An outlet of a service's connection. Its Outlet interface is thread-safe, all else is bound to
/// the strand of the connection.
class LinkOutlet final : public Outlet, public std::enable_shared_from_this<LinkOutlet> {
 public:
  LinkOutlet(const std::shared_ptr<amqp::Connection>& connection, proton::sender sender,
             std::string address, std::shared_ptr<LinkBook::Page> page)
      : connection_(connection),
        address_(std::move(address)),
        peer_(connection->peer()),
        page_(std::move(page)),
        sender_(std::move(sender)) {}

  const std::string& address() const override { return address_; }
  const std::string& peer() const override { return peer_; }
  uint32_t credit() const override;
  void Give(const proton::message& message, uint32_t more_deliveries,
            std::function<void(const Verdict&)> done) override;
  void Close(const std::string& condition, const std::string& why) override;

  bool Has(const proton::sender& sender) const { return !!sender_ && sender_ == sender; }
  /// Takes over what the peer grants now.
  void NoteCredit();
  /// The peer asked for its credit back: it gets what is left.
  void ReturnCredit();
  void Settled(const proton::tracker& tracker);
  /// Is given no more; what it has it may settle.
  void Drain() { draining_ = true; }
  bool busy() const { return !given_out_.empty(); }
  /// The link is gone: verdicts for all it had.
  void Lose();

 private:
  using Done = std::function<void(const Verdict&)>;
  void Send(const std::vector<char>& encoded, Done done);
  void EndAll();

  const std::weak_ptr<amqp::Connection> connection_;
  const std::string address_, peer_;
  std::atomic<uint64_t> granted_ = 0, given_ = 0;  // of all time
  std::atomic<bool> draining_ = false;
  const std::shared_ptr<LinkBook::Page> page_;
  proton::sender sender_;
  std::map<uint64_t, Done> given_out_;  // by tag; at most the peer's credit
  uint64_t sent_ = 0, next_tag_ = 1;
};

}  // namespace datawire
