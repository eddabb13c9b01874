#include "engine/etcd/etcd.h"

#include <utility>

#include "datawire/mutex.h"
#include "datawire/record/v1/record.pb.h"
#include "engine/etcd/apply.h"
#include "engine/etcd/compare.h"
#include "engine/etcd/feed.h"
#include "engine/etcd/keeper.h"
#include "engine/etcd/members.h"
#include "engine/etcd/writer.h"
#include "view/encoding.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;
using namespace etcd;

constexpr auto kStopMost = 3s;  // Stop gives what is queued so long

class Etcd final : public Log {
 public:
  Etcd(Client& client, View& view, EtcdOptions options)
      : view_(view),
        options_(std::move(options)),
        keys_{options_.node_id, options_.incarnation},
        client_(client),
        compare_(client, view, keys_, [this](Status status) { End(std::move(status)); }),
        apply_(view, keys_,
               {.after_answers = [this] { AfterGroup(); },
                .applied =
                    [this](uint64_t number) {
                      if (Prober* const prober = prober_.load()) prober->Applied(number);
                    },
                .skipped = [this](uint64_t at, const Record& record) { Skipped(at, record); },
                .failed = [this](Status status) { End(std::move(status)); }}),
        writer_(client, apply_, keys_, [this](Status status) { End(std::move(status)); }),
        feed_(client, apply_, view.Applied(), [this](Status status) { End(std::move(status)); }),
        prober_owned_(client, feed_, options_.importing ? nullptr : &view.authority(),
                      [this](Status status) { End(std::move(status)); }),
        keeper_(client, writer_, view, keys_, [this](Status status) { End(std::move(status)); }) {
    prober_owned_.Applied(view.Applied().number);
    prober_ = &prober_owned_;
    compare_.Start(writer_);
  }
  ~Etcd() override { Stop(); }

  void Propose(Op op, BootTime deadline, Done done) override {
    if (!writer_.Propose(std::move(op), deadline, std::move(done))) AfterGroup();
  }
  // Every transaction writes its slot, so that an op without changes is ordered like any other.
  void ReadBarrier(BootTime deadline, std::function<void(Result<Revision>)> done) override {
    Propose({}, deadline, [done = std::move(done)](const Outcome& outcome) {
      if (outcome.status.ok())
        done(outcome.at);
      else
        done(outcome.status);
    });
  }
  Freshness Fresh() const override { return prober_owned_.Fresh(BootClock::now()); }
  std::string name() const override { return "etcd"; }
  bool ready() const override { return view_.Applied().number > 0; }
  std::optional<std::vector<Guard>> Role(const std::string& role) const override {
    auto guard = keeper_.Role(role);
    if (!guard) return std::nullopt;
    return std::vector<Guard>{std::move(*guard)};
  }
  bool shared() const override { return true; }
  void Compare(BootTime deadline, std::function<void(Result<Comparison>)> done) override {
    compare_.Now(deadline, std::move(done));
  }
  std::string alarm() const override { return compare_.alarm(BootClock::now()); }
  std::vector<Member> Members(std::chrono::milliseconds most) override {
    return AskMembers(client_, most);
  }
  void Announce(std::string alive) override { keeper_.Announce(std::move(alive)); }
  std::vector<std::pair<std::string_view, uint64_t>> figures() const override;

  void Stop() override {
    const MutexLock one(stop_mutex_);
    compare_.Stop();
    writer_.Stop(BootClock::now() + kStopMost);
    // What was committed is answered, if the view gets there.
    static_cast<void>(apply_.WaitAnswered(kStopMost));
    keeper_.Stop();
    prober_owned_.Stop();
    feed_.Stop();
    apply_.Stop();
    static_cast<void>(view_.Flush());
  }

 private:
  void End(Status status) {
    if (!ended_.exchange(true) && options_.ended) options_.ended(std::move(status));
  }

  void Skipped(uint64_t at, const Record& record) {
    if (record.key == kCheckKey) compare_.OnCheck(at);
    if (record.key.starts_with(kHashPrefix))
      compare_.OnHash(record.key.substr(std::size(kHashPrefix) - 1), record.value);
  }

  View& view_;
  const EtcdOptions options_;
  const NodeKeys keys_;
  Client& client_;
  Mutex stop_mutex_;
  std::atomic<bool> ended_{false};
  std::atomic<Prober*> prober_{nullptr};
  etcd::Compare compare_;
  Apply apply_;
  Writer writer_;
  Feed feed_;
  Prober prober_owned_;
  Keeper keeper_;
};

std::vector<std::pair<std::string_view, uint64_t>> Etcd::figures() const {
  const Writer::Figures& w = writer_.figures();
  return {{"transactions", w.transactions},
          {"ops", w.ops},
          {"transactions_repeated", w.repeated},
          {"transactions_resent", w.resent},
          {"transactions_fenced", w.fenced},
          {"no_space", w.no_space},
          {"watches", feed_.figures().watches},
          {"compared", compare_.figures().compared},
          {"compared_unequal", compare_.figures().unequal},
          {"compared_incomplete", compare_.figures().incomplete},
          {"scrubs", compare_.figures().scrubs},
          {"replica_wrong", compare_.figures().wrong},
          {"listings", feed_.figures().listings},
          {"watch_gaps", feed_.figures().gaps},
          {"listed", feed_.listed()},
          {"leases_lost", keeper_.figures().leases_lost},
          {"compactions", keeper_.figures().compactions}};
}

constexpr Client::Most kCall{1000};

/// Calls `call(member)` at one member after another until it is not kUnavailable or kTimeout.
template <typename Call>
auto AtAny(const Client& client, std::chrono::milliseconds most, Call call) {
  const BootTime until = BootClock::now() + most;
  for (size_t member = 0;; member = (member + 1) % client.members()) {
    auto result = call(member);
    const Code code = result.status().code();
    if ((code != Code::kUnavailable && code != Code::kTimeout) || BootClock::now() >= until)
      return result;
  }
}

std::string AuthorityKey() {
  return std::string(kPrefix) + keys::kAuthority;
}

std::string AuthorityValue(const View::Authority& authority) {
  record::v1::Authority value;
  value.set_cluster_id(authority.cluster_id);
  value.set_epoch(authority.epoch);
  value.set_created_wall_ms(WallMillis());
  value.set_format(kFormat);
  return value.SerializeAsString();
}

}  // namespace

Result<View::Authority> ReadEtcdAuthority(Client& client, std::chrono::milliseconds most) {
  api::TxnRequest request;
  const auto range = [&request](const std::string& from, const std::string& to) {
    api::RangeRequest* const out = request.add_success()->mutable_request_range();
    out->set_key(from);
    out->set_range_end(to);
    out->set_limit(1);
    return out;
  };
  range(AuthorityKey(), "");
  range(std::string(1, '\0'), kPrefix)->set_keys_only(true);
  range(kPrefixEnd, std::string(1, '\0'))->set_keys_only(true);
  range(kPrefix, kPrefixEnd)->set_keys_only(true);
  DW_ASSIGN(const api::TxnResponse response,
            AtAny(client, most, [&](size_t member) { return client.Txn(member, request, kCall); }));
  for (const int i : {1, 2})
    for (const api::KeyValue& kv : response.responses(i).response_range().kvs())
      return Status(Code::kConflict,
                    "this etcd holds " + Shown(kv.key()) + ", a directory needs one of its own");
  const auto& kvs = response.responses(0).response_range().kvs();
  const auto& any = response.responses(3).response_range().kvs();
  if (kvs.empty() && !any.empty())
    return Status(Code::kConflict, "this etcd holds " + Shown(any[0].key()) +
                                       " but no cluster id: an import broke off there, begin again "
                                       "with an empty one");
  if (kvs.empty())
    return Status(Code::kNotFound,
                  "this etcd holds no directory: make one there with --init, once, or name the "
                  "right one with --etcd-endpoints");
  record::v1::Authority authority;
  if (!authority.ParseFromString(kvs[0].value())) return CorruptValue(AuthorityKey());
  if (authority.format() > kFormat)
    return Status(Code::kUnsupported, "this etcd has format " + std::to_string(authority.format()) +
                                          ", this program knows formats up to " +
                                          std::to_string(kFormat) +
                                          ": start the newer program that raised it");
  return View::Authority{authority.cluster_id(), authority.epoch(), true};
}

Status InitEtcdAuthority(Client& client, const View::Authority& authority,
                         std::chrono::milliseconds most) {
  api::TxnRequest request;
  api::Compare* const absent = request.add_compare();
  absent->set_target(api::Compare::VERSION);
  absent->set_key(AuthorityKey());
  absent->set_version(0);
  api::PutRequest* const put = request.add_success()->mutable_request_put();
  put->set_key(AuthorityKey());
  put->set_value(AuthorityValue(authority));
  DW_ASSIGN(const api::TxnResponse response,
            AtAny(client, most, [&](size_t member) { return client.Txn(member, request, kCall); }));
  if (response.succeeded()) return {};
  return {Code::kConflict, "this etcd holds a directory already: start without --init"};
}

Result<View::Authority> RaiseEtcdEpoch(Client& client, std::chrono::milliseconds most) {
  DW_ASSIGN(View::Authority authority, ReadEtcdAuthority(client, most));
  ++authority.epoch;
  api::TxnRequest request;
  api::PutRequest* const put = request.add_success()->mutable_request_put();
  put->set_key(AuthorityKey());
  put->set_value(AuthorityValue(authority));
  DW_RETURN_IF_ERROR(AtAny(client, most, [&](size_t member) {
                       return client.Txn(member, request, kCall);
                     }).status());
  return authority;
}

Result<std::unique_ptr<Log>> OpenEtcd(Client& client, View& view, EtcdOptions options) {
  return std::unique_ptr<Log>(new Etcd(client, view, std::move(options)));
}

}  // namespace datawire::directory
