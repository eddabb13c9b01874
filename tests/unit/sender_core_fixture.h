#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "sender_core.h"

namespace datawire {

using namespace std::chrono_literals;

inline Endpoint At(int port, EndpointState state = EndpointState::kUp, uint32_t priority = 0) {
  Endpoint endpoint{
      EndpointUrl::Parse("amqp://h" + std::to_string(port) + ":" + std::to_string(port)).value()};
  endpoint.state = state;
  endpoint.priority = priority;
  endpoint.created = static_cast<uint64_t>(port);
  return endpoint;
}

/// A sender whose network is this test: links open, give credit and settle when told.
class SenderCoreTest : public testing::Test {
 protected:
  using Kind = SenderCore::Outcome::Kind;
  using End = DeliveryEnd;

  void Make(SenderCore::Options options = {}) { core_.emplace(options); }

  void Answer(std::vector<Endpoint> endpoints, AnswerStatus status = AnswerStatus::kFound,
              Policy policy = Policy::kBalanced) {
    datawire::Answer answer{Address::Parse("//demo/x").value()};
    answer.status = status;
    answer.policy = policy;
    answer.endpoints = std::move(endpoints);
    core_->AnswerChanged(std::make_shared<const datawire::Answer>(std::move(answer)), now_);
    Pump();
  }
  void Give(uint64_t id, std::chrono::milliseconds deadline = 30s, std::string key = "") {
    core_->Give(id, std::move(key), now_ + deadline);
    Pump();
  }
  void Pump() {
    core_->Pump(now_);
    std::vector<SenderCore::Action> actions;
    core_->TakeActions(actions);
    for (SenderCore::Action& action : actions) {
      if (auto* open = std::get_if<SenderCore::OpenLink>(&action)) {
        links_[open->link] = open->url.port();
        ++opened_[open->url.port()];
      } else if (auto* close = std::get_if<SenderCore::CloseLink>(&action)) {
        links_.erase(close->link);
      } else if (auto* send = std::get_if<SenderCore::Transmit>(&action)) {
        on_[send->id] = send->link;
        order_.push_back(send->id);
        redelivered_[send->id] = send->redelivered;
        ttl_left_[send->id] = send->ttl_left;
      } else if (auto* forget = std::get_if<SenderCore::Forget>(&action)) {
        forgotten_.insert(forget->id);
      } else if (auto* ejected = std::get_if<SenderCore::Ejected>(&action)) {
        ejected_.push_back(*ejected);
      } else if (auto* finish = std::get_if<SenderCore::Finish>(&action)) {
        on_.erase(finish->id);
        ends_[finish->id] = finish->outcome;
      }
    }
  }
  uint64_t LinkTo(int port) const {
    for (const auto& [link, to] : links_) {
      if (to == port) return link;
    }
    return 0;
  }
  void Open(int port, uint64_t credit = 100) {
    core_->LinkOpened(LinkTo(port));
    core_->Credit(LinkTo(port), credit);
    Pump();
  }
  void Lose(int port) {
    const uint64_t link = LinkTo(port);
    ASSERT_NE(link, 0u);
    links_.erase(link);
    std::erase_if(on_, [link](const auto& entry) { return entry.second == link; });
    core_->LinkLost(link, "amqp:connection:forced", "gone", now_);
    Pump();
  }
  void Settle(uint64_t id, SenderCore::Outcome outcome) {
    const uint64_t link = std::exchange(on_[id], 0);
    on_.erase(id);
    core_->Settled(link, id, outcome, now_);
    Pump();
  }
  void Settle(uint64_t id, Kind kind) {
    Settle(id, SenderCore::Outcome{kind, "", "", false, false});
  }
  void Pass(std::chrono::milliseconds time) {
    const BootTime until = now_ + time;
    while (true) {
      const auto wake = core_->NextWake(now_);
      if (!wake || *wake > until) break;
      now_ = *wake;
      Pump();
      ASSERT_LT(++wakes_, 10'000u);
    }
    now_ = until;
    Pump();
  }
  /// Port of the endpoint that has it now; 0: none.
  int Where(uint64_t id) const {
    const auto it = on_.find(id);
    return it == on_.end() ? 0 : links_.at(it->second);
  }
  std::optional<End> Ended(uint64_t id) const {
    const auto it = ends_.find(id);
    return it == ends_.end() ? std::nullopt : std::optional<End>(it->second.end);
  }

  std::optional<SenderCore> core_{std::in_place, SenderCore::Options{}};
  BootTime now_{1000s};
  std::map<uint64_t, int> links_, opened_;
  std::map<uint64_t, uint64_t> on_;
  std::vector<uint64_t> order_;
  std::map<uint64_t, uint32_t> redelivered_;
  std::map<uint64_t, std::chrono::milliseconds> ttl_left_;
  std::set<uint64_t> forgotten_;
  std::vector<SenderCore::Ejected> ejected_;
  std::map<uint64_t, DeliveryOutcome> ends_;
  size_t wakes_ = 0;
};

}  // namespace datawire
