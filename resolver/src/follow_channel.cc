#include "datawire/follow_channel.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <random>
#include <vector>

#include "datawire/limits.h"
#include "datawire/selector.h"

namespace datawire {
namespace {

// Longer than any policy's deadline should be: after that the resolver has said what it knows.
constexpr std::chrono::seconds kFirstAnswerMost{10};

std::optional<std::string> TargetOf(const Endpoint& endpoint) {
  const auto label = endpoint.labels.find(kGrpcLabel);
  if (label == endpoint.labels.end()) return std::nullopt;
  const bool port_only = label->second.find(':') == std::string::npos;
  auto target = HostPort::Parse(port_only ? "host:" + label->second : label->second);
  if (!target.ok() || target->port == 0) return std::nullopt;
  if (port_only) target->host = endpoint.url.host();
  return target->ToString();
}

class Followed final : public FollowedChannel {
 public:
  Followed(Resolver& resolver, const Address& address,
           std::shared_ptr<grpc::ChannelCredentials> credentials)
      : address_(address),
        credentials_(std::move(credentials)),
        random_(std::random_device{}()),
        seed_(random_()),
        subscription_(resolver.Subscribe(
            address, [this](const Resolver::AnswerPtr& answer) { OnAnswer(answer); })) {}

  Result<std::shared_ptr<grpc::Channel>> channel() override {
    std::unique_lock lock(mutex_);
    told_some_.wait_for(lock, kFirstAnswerMost, [this] { return told_; });
    std::vector<grpc_connectivity_state> states;
    std::vector<Candidate> candidates;
    for (const Peer& peer : peers_) {
      states.push_back(peer.channel->GetState(true));  // and connects again what is idle
      candidates.push_back({.endpoint = &peer.endpoint});
    }
    const auto choose = [&](auto usable) {
      for (size_t i = 0; i < candidates.size(); i++) candidates[i].usable = usable(states[i]);
      return Select(policy_, candidates, {}, random_);
    };
    auto chosen = choose([](auto state) { return state == GRPC_CHANNEL_READY; });
    if (!chosen)
      chosen = choose([](auto state) { return state != GRPC_CHANNEL_TRANSIENT_FAILURE; });
    if (!chosen) chosen = choose([](auto) { return true; });  // its call says what is wrong
    if (chosen) return peers_[*chosen].channel;
    return Status(Code::kUnavailable,
                  known_ ? address_.text() + " has no endpoint that takes gRPC calls (label `" +
                               kGrpcLabel + "`)"
                         : address_.text() + " is not known yet");
  }

 private:
  struct Peer {
    Endpoint endpoint;
    std::string target;
    std::shared_ptr<grpc::Channel> channel;
  };

  void OnAnswer(const Resolver::AnswerPtr& answer) {
    std::vector<Peer> peers = Chosen(*answer), gone;  // destroyed after the lock
    std::lock_guard lock(mutex_);
    told_ = true;
    known_ = answer->status != AnswerStatus::kUnavailable;  // it was, unless this is the first
    told_some_.notify_all();
    for (Peer& peer : peers) {
      const auto same = std::find_if(peers_.begin(), peers_.end(),
                                     [&](const Peer& p) { return p.target == peer.target; });
      peer.channel = same != peers_.end() ? same->channel : Connect(peer.target);
    }
    policy_ = answer->policy == Policy::kConsistent ? Policy::kBalanced : answer->policy;
    gone = std::exchange(peers_, std::move(peers));
  }

  std::vector<Peer> Chosen(const Answer& answer) const {
    std::vector<Peer> all, chosen;
    for (const Endpoint& endpoint : answer.endpoints)
      if (auto target = TargetOf(endpoint)) all.push_back({endpoint, std::move(*target), nullptr});
    std::vector<Candidate> candidates;
    for (const Peer& peer : all) candidates.push_back({.endpoint = &peer.endpoint});
    for (const size_t i : ChooseLinks(candidates, limits::kSenderLinks, seed_))
      chosen.push_back(all[i]);
    return chosen;
  }

  std::shared_ptr<grpc::Channel> Connect(const std::string& target) const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 250);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);  // the connect time-out, too
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 10'000);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    auto channel = grpc::CreateCustomChannel(target, credentials_, arguments);
    channel->GetState(true);  // begins to connect
    return channel;
  }

  const Address address_;
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  std::mutex mutex_;  // guards all below but the subscription
  std::condition_variable told_some_;
  bool told_ = false, known_ = false;
  Policy policy_ = Policy::kBalanced;
  std::vector<Peer> peers_;
  Random random_;
  const uint64_t seed_;
  const std::unique_ptr<Resolver::Subscription> subscription_;
};

}  // namespace

std::unique_ptr<FollowedChannel> FollowChannel(
    Resolver& resolver, const Address& address,
    std::shared_ptr<grpc::ChannelCredentials> credentials) {
  DW_ASSERT(credentials != nullptr);
  return std::make_unique<Followed>(resolver, address, std::move(credentials));
}

}  // namespace datawire
