// The resolver's cache against a plain model of PROMISES' rules: random lists of operations.
// cache_model [--seed N] [--count N]

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "cache.h"

namespace datawire::resolver {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using Kind = Found::Kind;

constexpr seconds kStale{5};
const char* const kAddresses[] = {"//d/a", "//d/b", "//d/c"};

/// What one entry should be. A mark writes into each entry it confirms: the cache must not.
struct Entry {
  bool there = false, known = false, negative = false, attached = false;
  uint64_t hash = 0;
  Revision revision;
  BootTime known_at{}, received_at{}, confirmed_at{}, prefetch_at = BootTime::max(), retry_at{};
  nanoseconds ttl{0};
  std::optional<BootTime> asked_at;
  uint32_t failures = 0, holds = 0;
};

class Run {
 public:
  explicit Run(uint64_t seed) : random_(seed) {
    policy_.ttl_spread = policy_.failure_memo_spread = 0;
    policy_.prefetch_from = policy_.prefetch_to = 0.85;
    cache_ = std::make_unique<Cache>(policy_, 1000, 64 << 20);
    cache_->Adopt("c1");
  }

  /// False: `what` and `trace` tell.
  bool Play() {
    const size_t steps = 5 + Draw(30);
    for (size_t i = 0; i < steps && wrong.empty(); i++) {
      Step();
      for (const char* address : kAddresses) Compare(address);
    }
    return wrong.empty();
  }

  std::string wrong, trace;

 private:
  size_t Draw(size_t below) { return random_() % below; }
  void Say(const std::string& text) { trace += "  " + text + "\n"; }
  bool Fresh(const Entry& e) const {
    return e.known && ((e.attached && live_) || now_ < e.received_at + e.ttl);
  }
  bool Showable(const Entry& e) const {
    if (!e.known) return false;
    return Fresh(e) || (!e.negative && now_ - e.received_at <= policy_.max_stale);
  }
  void Received(Entry& e, BootTime known_at) {
    e.known_at = std::max(e.known_at, known_at);
    e.received_at = e.confirmed_at = now_;
    e.asked_at.reset();
    e.retry_at = {};
    e.failures = 0;
  }

  void Step() {
    const std::string a = kAddresses[Draw(3)];
    const size_t hash = HashOf(a);
    const Address address = Address::Parse(a).value();
    Entry& e = model_[a];
    switch (Draw(11)) {
      case 0:
        Say("begin " + a);
        cache_->Begin(address, hash);
        e.there = true;
        e.holds++;
        break;
      case 1:
        Say("end " + a);
        cache_->End(a, hash);
        if (e.holds > 0) e.holds--;
        break;
      case 2:
      case 3:
        Store(address, hash, e);
        break;
      case 4: {
        if (!live_) break;
        const Revision at{1, 1 + Draw(20)};
        Say("confirm " + a + " " + at.ToString());
        const bool took = cache_->Confirm(a, hash, at, now_);
        if (took != (e.known && at >= e.revision)) wrong = "confirm was taken, or was not";
        if (e.known) e.attached = true;
        if (!e.known || at < e.revision) break;
        e.revision = at;
        Received(e, now_ - (mark_at_ - mark_known_at_));
        break;
      }
      case 5: {
        if (!live_) break;
        const Revision at{1, 1 + Draw(20)};
        // A node that was current does not become less so later.
        const milliseconds age =
            std::min(milliseconds(Draw(100)),
                     std::chrono::duration_cast<milliseconds>(now_ - mark_known_at_));
        Say("mark " + at.ToString());
        cache_->Mark(at, age, now_);
        if (at < mark_) break;
        mark_ = at;
        mark_at_ = now_;
        mark_known_at_ = now_ - age;
        for (auto& [name, other] : model_) {
          if (!other.known || !other.attached || other.revision > at) continue;
          other.revision = at;
          other.known_at = std::max(other.known_at, mark_known_at_);
          other.received_at = other.confirmed_at = now_;
        }
        break;
      }
      case 6: {
        Say("fail " + a);
        cache_->Fail(a, hash, now_, std::nullopt, random_);
        if (!e.there || Showable(e)) break;
        const auto memo =
            std::min<nanoseconds>(policy_.failure_memo_most,
                                  policy_.failure_memo_least * (1 << std::min(e.failures, 16u)));
        e.failures++;
        e.retry_at = now_ + memo;
        break;
      }
      case 7: {
        const LinkState to =
            std::array{LinkState::kConnecting, LinkState::kDown, LinkState::kLive}[Draw(3)];
        Say("link " + std::to_string(static_cast<int>(to)));
        cache_->SetLink(to);
        if (to == link_) break;
        for (auto& [name, other] : model_) {
          if (link_ == LinkState::kLive) other.attached = false;
          if (to != LinkState::kLive) continue;
          other.retry_at = {};
          other.failures = 0;
          other.asked_at.reset();
        }
        if (link_ == LinkState::kLive) mark_ = {};
        link_ = to;
        live_ = to == LinkState::kLive;
        break;
      }
      case 8: {
        const milliseconds kSpans[] = {milliseconds(1),   milliseconds(99), milliseconds(100),
                                       milliseconds(500), seconds(1),       seconds(4),
                                       seconds(5),        seconds(25),      seconds(26),
                                       seconds(30),       hours(1),         hours(24)};
        const milliseconds span = kSpans[Draw(std::size(kSpans))];
        Say("pass " + std::to_string(span.count()) + " ms");
        now_ += span;
        break;
      }
      default:
        Find(address, hash, e);
    }
  }

  void Store(const Address& address, size_t hash, Entry& e) {
    const bool on_stream = live_ && Draw(3) > 0, foreign = Draw(10) == 0;
    Answer answer{.address = address};
    answer.revision = {Draw(8) == 0 ? 2u : 1u, 1 + Draw(20)};
    answer.hash = 1 + Draw(3);
    answer.status = answer.hash == 1 ? AnswerStatus::kNotFound : AnswerStatus::kFound;
    if (Draw(4) == 0) answer.age = milliseconds(Draw(8000));
    if (Draw(4) == 0) answer.ttl = milliseconds(1 + Draw(60'000));
    Say("store " + address.text() + " " + answer.revision.ToString() + " hash " +
        std::to_string(answer.hash) + (on_stream ? " by the stream" : "") +
        (foreign ? " foreign" : ""));
    const Answer sent = answer;
    bool any = false;
    for (const auto& [name, other] : model_) any = any || other.known;
    if (foreign && !any) return;  // the first comer is the cluster; not what is looked at here
    const auto stored =
        cache_->Store(std::move(answer), hash,
                      {.cluster = foreign ? "c2" : "c1", .on_stream = on_stream}, now_, random_);
    auto expected = Cache::Stored::kReplaced;
    const BootTime known_at = now_ - sent.age;
    const bool same = e.known && e.hash == sent.hash;
    if (!e.there) {
      expected = Cache::Stored::kUnknown;
    } else if (foreign) {
      expected = Cache::Stored::kForeign;
    } else if (e.known && sent.revision < e.revision) {
      expected = Cache::Stored::kRefused;
      if (on_stream) e.attached = same;
    } else if (e.known && sent.revision == e.revision) {
      expected = Cache::Stored::kRefreshed;
      Received(e, known_at);
      e.attached = e.attached || on_stream;
    } else {
      if (on_stream)
        e.attached = true;
      else if (e.known && !same)
        e.attached = false;
      e.known = true;
      e.hash = sent.hash;
      e.negative = sent.status == AnswerStatus::kNotFound;
      e.revision = sent.revision;
      e.known_at = known_at;
      e.ttl = e.negative ? policy_.negative_ttl : policy_.positive_ttl;
      if (sent.ttl.count() > 0) e.ttl = std::min<nanoseconds>(e.ttl, sent.ttl);
      e.prefetch_at = e.negative ? BootTime::max() : now_ + e.ttl * 85 / 100;
      Received(e, known_at);
    }
    if (stored != expected)
      wrong = "store gave " + std::to_string(static_cast<int>(stored)) + ", not " +
              std::to_string(static_cast<int>(expected));
  }

  void Find(const Address& address, size_t hash, Entry& e) {
    const Revision min = Draw(3) == 0 ? Revision{1, 1 + Draw(20)} : Revision{};
    Say("find " + address.text() + " min " + min.ToString());
    const AnswerPtr hit = cache_->Hit(address, hash, min, now_);
    const Found found = cache_->Find(address, hash, min, now_);
    Kind kind = Kind::kWait;
    bool ask = false;
    if (!Showable(e)) {
      kind = now_ < e.retry_at ? Kind::kFail : Kind::kWait;
    } else if (min > e.revision) {
      kind = Kind::kWait;
    } else if (Fresh(e)) {
      kind = Kind::kAnswer;
      ask = !e.attached && live_ && now_ >= e.prefetch_at;
      if (ask) {
        e.prefetch_at = BootTime::max();
        e.asked_at = now_;
      }
    } else {
      ask = link_ != LinkState::kDown && (!e.asked_at || now_ >= *e.asked_at + policy_.recheck);
      if (ask) e.asked_at = now_;
      kind = link_ != LinkState::kDown && now_ < *e.asked_at + policy_.stale_answer_after
                 ? Kind::kStale
                 : Kind::kAnswer;
    }
    if (found.kind != kind || found.ask != ask)
      wrong = "find gave " + std::to_string(static_cast<int>(found.kind)) + " ask " +
              std::to_string(found.ask) + ", not " + std::to_string(static_cast<int>(kind)) +
              " ask " + std::to_string(ask);
    if (found.kind == Kind::kAnswer && wrong.empty()) Shown(*found.answer, e, min);
    if (hit && wrong.empty()) {
      if (kind != Kind::kAnswer || ask) wrong = "a hit where there is none";
      Shown(*hit, e, min);
    }
  }

  // An answer may be what was right up to kAgeShown ago; it is never said to be younger or more
  // current than it is.
  void Shown(const Answer& shown, const Entry& e, const Revision& min) {
    const auto age = now_ - e.known_at;
    const bool settled = now_ - e.confirmed_at > kAgeShown;
    if (shown.hash != e.hash) wrong = "another answer";
    if (shown.revision > e.revision || shown.revision < min) wrong = "another revision";
    if (settled && shown.age > age + milliseconds(1)) wrong = "said to be older than it is";
    if (shown.age + kAgeShown + milliseconds(1) < age) wrong = "said to be younger than it is";
    if (!shown.stale && age > kStale) wrong = "stale and does not say so";
    if (settled && shown.stale && age <= kStale) wrong = "says stale and is not";
  }

  void Compare(const std::string& a) {
    if (!wrong.empty()) return;
    const Entry& e = model_[a];
    const size_t hash = HashOf(a);
    const Revision revision = cache_->RevisionOf(a, hash);
    if (revision != (e.known ? e.revision : Revision{}))
      wrong = a + " is at " + revision.ToString() + ", not " + e.revision.ToString();
    if (revision < last_[a]) wrong = a + " stepped back";
    last_[a] = revision;
    EntryState state = EntryState::kAbsent;
    if (!Showable(e)) {
      if (e.there && now_ < e.retry_at)
        state = EntryState::kError;
      else if (e.holds > 0)
        state = EntryState::kLoading;
    } else if (!Fresh(e)) {
      state = EntryState::kStale;
    } else {
      state = e.negative   ? EntryState::kNegative
              : e.asked_at ? EntryState::kRefreshing
                           : EntryState::kFresh;
    }
    const EntryState got = cache_->StateOf(a, hash, now_);
    if (got != state)
      wrong = a + " is " + std::string(EntryStateName(got)) + ", not " +
              std::string(EntryStateName(state));
  }

  ResolverPolicy policy_;
  Random random_;
  std::unique_ptr<Cache> cache_;
  std::map<std::string, Entry> model_;
  std::map<std::string, Revision> last_;
  BootTime now_{hours(1000)}, mark_at_{}, mark_known_at_{};
  Revision mark_;
  LinkState link_ = LinkState::kConnecting;
  bool live_ = false;
};

}  // namespace
}  // namespace datawire::resolver

int main(int argc, char** argv) {
  uint64_t seed = 1, count = 200'000;
  for (int i = 1; i + 1 < argc; i += 2) {
    const bool is_seed = std::strcmp(argv[i], "--seed") == 0;
    (is_seed ? seed : count) = std::strtoull(argv[i + 1], nullptr, 10);
  }
  for (uint64_t s = seed; s < seed + count; s++) {
    datawire::resolver::Run run(s);
    if (run.Play()) continue;
    std::printf("%s  %s\nagain: %s --seed %llu --count 1\n", run.trace.c_str(), run.wrong.c_str(),
                argv[0], static_cast<unsigned long long>(s));
    return 1;
  }
  std::printf("%llu lists of operations, 0 wrong\n", static_cast<unsigned long long>(count));
  return 0;
}
