#include "datawire/resolver.h"

#include <random>
#include <utility>

#include "core.h"
#include "snapshot_keeper.h"

namespace datawire {
namespace {

using resolver::Core;
using resolver::Listener;
using resolver::SnapshotKeeper;

class ListenerSubscription : public Resolver::Subscription {
 public:
  ListenerSubscription(std::weak_ptr<Core> core, std::shared_ptr<Listener> listener)
      : core_(std::move(core)), listener_(std::move(listener)) {}
  ~ListenerSubscription() override {
    if (const auto core = core_.lock()) core->Unlisten(listener_);
  }

 private:
  const std::weak_ptr<Core> core_;
  const std::shared_ptr<Listener> listener_;
};

class CachingResolver : public Resolver {
 public:
  CachingResolver(std::shared_ptr<Core> core, const ResolverOptions& options, uint64_t seed)
      : core_(std::move(core)) {
    if (!options.snapshot_file.empty()) {
      snapshot_ = std::make_unique<SnapshotKeeper>(options, *core_, seed);
      snapshot_->Load();
    }
    core_->Start();
    if (snapshot_) snapshot_->Start();
  }
  ~CachingResolver() override {
    core_->Stop();
    if (snapshot_) snapshot_->Stop();
  }

  AnswerPtr Resolve(const Address& address, ResolveOptions options) override {
    return core_->Resolve(address, options);
  }
  void Resolve(const Address& address, ResolveOptions options, Callback done) override {
    core_->Resolve(address, options, std::move(done));
  }
  std::unique_ptr<Subscription> Subscribe(const Address& address, Callback changed) override {
    return std::make_unique<ListenerSubscription>(core_,
                                                  core_->Listen(address, std::move(changed)));
  }
  ResolverStats Stats() const override {
    ResolverStats stats = core_->Stats();
    if (snapshot_) snapshot_->AddTo(stats);
    return stats;
  }
  void WriteState(std::ostream& out) const override { core_->WriteState(out); }
  Status LastError() const override { return core_->LastError(); }
  void NoteEjected(const std::string& url, const Status& why) override {
    core_->NoteEjected(url, why);
  }
  std::vector<std::string> Servers() const override { return core_->servers(); }

 private:
  const std::shared_ptr<Core> core_;
  std::unique_ptr<SnapshotKeeper> snapshot_;
};

Status Check(const ResolverPolicy& p) {
  const auto positive = [](std::string_view name, std::chrono::milliseconds value) {
    if (value.count() > 0 && value <= std::chrono::hours(24 * 365)) return Status::Ok();
    return Status(Code::kInvalid, "resolver policy: " + std::string(name) + " is " +
                                      std::to_string(value.count()) + " ms, from 1 ms to 1 year");
  };
  DW_RETURN_IF_ERROR(positive("positive_ttl", p.positive_ttl));
  DW_RETURN_IF_ERROR(positive("negative_ttl", p.negative_ttl));
  DW_RETURN_IF_ERROR(positive("failure_memo_least", p.failure_memo_least));
  DW_RETURN_IF_ERROR(positive("failure_memo_most", p.failure_memo_most));
  DW_RETURN_IF_ERROR(positive("stale_answer_after", p.stale_answer_after));
  DW_RETURN_IF_ERROR(positive("deadline", p.deadline));
  DW_RETURN_IF_ERROR(positive("connect_timeout", p.connect_timeout));
  DW_RETURN_IF_ERROR(positive("reconnect_least", p.reconnect_least));
  DW_RETURN_IF_ERROR(positive("reconnect_most", p.reconnect_most));
  DW_RETURN_IF_ERROR(positive("stream_silence", p.stream_silence));
  DW_RETURN_IF_ERROR(positive("recheck", p.recheck));
  DW_RETURN_IF_ERROR(positive("retry_least", p.retry_least));
  DW_RETURN_IF_ERROR(positive("retry_most", p.retry_most));
  const auto within = [](std::string_view name, double value, double least, double most) {
    if (value >= least && value <= most) return Status::Ok();
    return Status(Code::kInvalid, "resolver policy: " + std::string(name) + " is " +
                                      std::to_string(value) + ", from " + std::to_string(least) +
                                      " to " + std::to_string(most));
  };
  DW_RETURN_IF_ERROR(within("ttl_spread", p.ttl_spread, 0, 0.9));
  DW_RETURN_IF_ERROR(within("prefetch_from", p.prefetch_from, 0, p.prefetch_to));
  DW_RETURN_IF_ERROR(within("prefetch_to", p.prefetch_to, 0, 1));
  DW_RETURN_IF_ERROR(within("failure_memo_spread", p.failure_memo_spread, 0, 0.9));
  DW_RETURN_IF_ERROR(within("attempts", p.attempts, 1, 100));
  DW_RETURN_IF_ERROR(within("retry_percent", p.retry_percent, 0, 100));
  DW_RETURN_IF_ERROR(within("retry_per_second", p.retry_per_second, 0.1, 1000));
  DW_RETURN_IF_ERROR(within("negative_percent", p.negative_percent, 0, 100));
  if (p.max_stale.count() < 0 || p.max_stale > std::chrono::hours(72))  // RFC 8767: at most 3 days
    return {Code::kInvalid, "resolver policy: max_stale is " + std::to_string(p.max_stale.count()) +
                                " ms, from 0 to 72 h"};
  if (p.cache_entries < 1 || p.cache_bytes < 64 * 1024)
    return {Code::kInvalid, "resolver policy: the cache holds " + std::to_string(p.cache_entries) +
                                " entries and " + std::to_string(p.cache_bytes) +
                                " bytes, at least 1 and 65536"};
  return {};
}

}  // namespace

ResolverPolicy ResolverPolicy::Local() {
  ResolverPolicy policy;
  policy.connect_timeout = std::chrono::milliseconds(200);
  policy.stale_answer_after = std::chrono::milliseconds(20);
  policy.reconnect_least = std::chrono::milliseconds(50);
  policy.reconnect_most = std::chrono::seconds(5);
  return policy;
}

ResolverPolicy ResolverPolicy::Wan() {
  ResolverPolicy policy;
  policy.connect_timeout = std::chrono::seconds(3);  // three SYNs
  policy.deadline = std::chrono::seconds(5);
  policy.stale_answer_after = std::chrono::milliseconds(400);
  policy.reconnect_least = std::chrono::milliseconds(500);
  policy.reconnect_most = std::chrono::seconds(60);
  policy.stream_silence = std::chrono::seconds(20);
  return policy;
}

Result<std::unique_ptr<Resolver>> Resolver::Open(ResolverOptions options) {
  DW_ASSIGN(DirectoryPlace place,
            FindDirectory({options.directory, options.domain, options.dns_server}));
  DW_ASSIGN(TlsFiles tls, FindTlsFiles(options.tls));
  DW_RETURN_IF_ERROR(Check(options.policy));
  std::random_device device;
  const uint64_t seed = (uint64_t{device()} << 32) | device();
  auto core = std::make_shared<Core>(std::move(place), options.policy, seed, std::move(tls),
                                     std::move(options.observer));
  return std::unique_ptr<Resolver>(new CachingResolver(std::move(core), options, seed));
}

}  // namespace datawire
