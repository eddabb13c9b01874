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
  Status LastError() const override { return core_->LastError(); }
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

Result<std::unique_ptr<Resolver>> Resolver::Open(ResolverOptions options) {
  DW_ASSIGN(std::vector<std::string> servers, FindDirectoryServers(options.directory));
  DW_ASSIGN(TlsFiles tls, FindTlsFiles(options.tls));
  DW_RETURN_IF_ERROR(Check(options.policy));
  std::random_device device;
  const uint64_t seed = (uint64_t{device()} << 32) | device();
  return std::unique_ptr<Resolver>(new CachingResolver(
      std::make_shared<Core>(std::move(servers), options.policy, seed, std::move(tls)), options,
      seed));
}

}  // namespace datawire
