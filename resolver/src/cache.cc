#include "cache.h"

#include <absl/hash/hash.h>

#include <algorithm>
#include <atomic>

#include "datawire/limits.h"

namespace datawire::resolver {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

double Uniform(Random& random, double from, double to) {
  return std::uniform_real_distribution<double>(from, to)(random);
}

nanoseconds Times(nanoseconds time, double factor) {
  return nanoseconds(static_cast<int64_t>(static_cast<double>(time.count()) * factor));
}

size_t HeapOf(const std::string& text) {
  return text.size() < 16 ? 0 : text.capacity() + 16;
}

size_t CostOf(const Answer& answer) {
  size_t bytes = sizeof(Answer) + 32 + HeapOf(answer.address.text());
  if (answer.matched) bytes += HeapOf(answer.matched->text());
  for (const Endpoint& e : answer.endpoints) {
    bytes += sizeof(Endpoint) + HeapOf(e.url.text()) + HeapOf(e.region) + HeapOf(e.zone) +
             HeapOf(e.identity);
    for (const auto& [key, value] : e.labels) bytes += 112 + HeapOf(key) + HeapOf(value);
  }
  return bytes;
}

bool SameContent(const Answer& a, const Answer& b) {
  return a.hash == b.hash && a.status == b.status && a.matched == b.matched;
}

}  // namespace

struct alignas(64) Cache::Entry {
  // What a hit reads, in the first cache line.
  const size_t hash;
  std::string_view text;                  // of `address`
  BootTime hit_until = BootTime::min();   // until then Find would answer the same again
  AnswerPtr answer;                       // null: not known
  mutable std::atomic<bool> used{false};  // CLOCK

  BootTime fresh_until;  // without a live stream
  BootTime shown_until;  // until then `answer` may be handed out as it is
  Revision revision;
  bool attached = false;  // the present stream answered it and keeps it up to date
  bool direct = false;    // `answer` is as the directory sent it, just now
  bool restored = false;  // of a snapshot, not confirmed since

  uint64_t attached_at = 0;  // marks_ then: only later marks cover it
  BootTime known_at, received_at;
  nanoseconds ttl{0};
  BootTime prefetch_at = BootTime::max();
  std::optional<BootTime> asked_at;  // of the refresh under way
  BootTime retry_at = BootTime::min();
  uint32_t failures = 0;
  uint32_t holds = 0;
  uint64_t added_on = 0;  // the stream that was asked for it last
  size_t bytes = 0;
  const Address address;
  Entry* next = nullptr;
  Entry* previous = nullptr;

  Entry(const Address& a, size_t h) : hash(h), address(a) { text = address.text(); }
  bool negative() const { return !answer || answer->status == AnswerStatus::kNotFound; }
};

size_t Cache::EntryHash::operator()(const EntryPtr& entry) const {
  return entry->hash;
}

bool Cache::EntryEqual::operator()(const EntryPtr& entry, const Key& key) const {
  if (entry->hash != key.hash) return false;
  __builtin_prefetch(entry->answer.get());  // on its way while the text is compared
  return entry->text == key.text;
}

size_t HashOf(std::string_view address) {
  return absl::HashOf(absl::string_view(address.data(), address.size()));
}

std::string_view EntryStateName(EntryState state) {
  constexpr std::string_view kNames[] = {"ABSENT", "LOADING", "FRESH", "FRESH+REFRESHING",
                                         "STALE",  "NEG",     "ERR"};
  return kNames[static_cast<size_t>(state)];
}

Cache::Cache(const ResolverPolicy& policy, size_t most_entries, size_t most_bytes)
    : policy_(policy), most_entries_(most_entries), most_bytes_(most_bytes) {}
Cache::~Cache() = default;

Cache::Entry* Cache::Get(std::string_view address, size_t hash) const {
  const auto it = map_.find(Key{address, hash}, hash);
  return it == map_.end() ? nullptr : it->get();
}

bool Cache::Fresh(const Entry& e, BootTime now) const {
  return (e.attached && link_ == LinkState::kLive) || now < e.fresh_until;
}

bool Cache::MarkCovers(const Entry& e) const {
  return e.attached && marks_ > e.attached_at && e.revision <= mark_;
}

Revision Cache::Effective(const Entry& e) const {
  return MarkCovers(e) ? mark_ : e.revision;
}

BootTime Cache::KnownAt(const Entry& e) const {
  return MarkCovers(e) ? std::max(e.known_at, mark_known_at_) : e.known_at;
}

bool Cache::Showable(const Entry& e, BootTime now) const {
  if (!e.answer) return false;
  if (e.answer->status == AnswerStatus::kNotFound) return Fresh(e, now);
  return Fresh(e, now) || now - e.received_at <= policy_.max_stale;
}

const AnswerPtr& Cache::Show(Entry& e, BootTime now) {
  if (now < e.shown_until) return e.answer;
  auto shown = std::make_shared<Answer>(*e.answer);
  e.direct = false;
  const BootTime known_at = KnownAt(e);
  shown->revision = Effective(e);
  shown->age = std::chrono::duration_cast<milliseconds>(std::max(now - known_at, nanoseconds(0)));
  shown->stale = now - known_at > limits::kStaleAge;
  shown->source = e.restored ? "snapshot" : "cache";
  e.shown_until = now + kAgeShown;
  if (!shown->stale) e.shown_until = std::min(e.shown_until, known_at + limits::kStaleAge);
  e.answer = std::move(shown);
  return e.answer;
}

AnswerPtr Cache::Hit(const Address& address, size_t hash, const Revision& min, BootTime now) const {
  const Entry* e = Get(address.text(), hash);
  if (e == nullptr || now >= e->hit_until) return nullptr;
  if (min > Revision{} && min > e->answer->revision) return nullptr;
  if (!e->used.load(std::memory_order_relaxed)) e->used.store(true, std::memory_order_relaxed);
  return e->answer;
}

Found Cache::Find(const Address& address, size_t hash, const Revision& min, BootTime now) {
  Entry* e = Get(address.text(), hash);
  if (e == nullptr) {
    return {.kind = held_.entries < most_entries_ ? Found::Kind::kWait : Found::Kind::kFail};
  }
  e->used = true;
  if (!e->answer || !Fresh(*e, now)) return NotFresh(*e, min, now);
  if (min > e->answer->revision) {
    if (min > Effective(*e)) return {.kind = Found::Kind::kWait};
    e->shown_until = BootTime::min();  // confirmed since it was last shown
  }
  Found found{.kind = Found::Kind::kAnswer, .answer = Show(*e, now)};
  const bool live = link_ == LinkState::kLive;
  if (!e->attached && live && now >= e->prefetch_at) {
    e->prefetch_at = BootTime::max();  // once
    e->asked_at = now;
    found.ask = true;
  }
  e->hit_until = e->shown_until;
  if (!e->attached || !live) e->hit_until = std::min(e->hit_until, e->fresh_until);
  if (!e->attached && live) e->hit_until = std::min(e->hit_until, e->prefetch_at);
  return found;
}

Found Cache::NotFresh(Entry& e, const Revision& min, BootTime now) {
  if (!Showable(e, now))
    return {.kind = now < e.retry_at ? Found::Kind::kFail : Found::Kind::kWait};
  if (min > Effective(e)) return {.kind = Found::Kind::kWait};
  if (min > e.answer->revision) e.shown_until = BootTime::min();
  const bool refresh =
      link_ != LinkState::kDown && (!e.asked_at || now >= *e.asked_at + policy_.recheck);
  if (refresh) e.asked_at = now;
  if (link_ != LinkState::kDown && now < *e.asked_at + policy_.stale_answer_after)
    return {.kind = Found::Kind::kStale,
            .until = *e.asked_at + policy_.stale_answer_after,
            .ask = refresh,
            .stale = true};
  return {.kind = Found::Kind::kAnswer, .answer = Show(e, now), .ask = refresh, .stale = true};
}

AnswerPtr Cache::Peek(std::string_view address, size_t hash, BootTime now) {
  Entry* e = Get(address, hash);
  return e != nullptr && Showable(*e, now) ? Show(*e, now) : nullptr;
}

AnswerPtr Cache::Ready(std::string_view address, size_t hash, const Revision& min, BootTime now) {
  Entry* e = Get(address, hash);
  if (e == nullptr || !e->answer || !Fresh(*e, now) || min > Effective(*e)) return nullptr;
  if (e->direct && min <= e->revision) return e->answer;
  if (min > e->answer->revision) e->shown_until = BootTime::min();
  return Show(*e, now);
}

EntryState Cache::StateOf(std::string_view address, size_t hash, BootTime now) const {
  const Entry* e = Get(address, hash);
  if (e == nullptr) return EntryState::kAbsent;
  if (!Showable(*e, now)) {
    if (now < e->retry_at) return EntryState::kError;
    return e->holds > 0 ? EntryState::kLoading : EntryState::kAbsent;
  }
  if (!Fresh(*e, now)) return EntryState::kStale;
  if (e->negative()) return EntryState::kNegative;
  return e->asked_at ? EntryState::kRefreshing : EntryState::kFresh;
}

Revision Cache::RevisionOf(std::string_view address, size_t hash) const {
  const Entry* e = Get(address, hash);
  return e != nullptr && e->answer ? Effective(*e) : Revision{};
}

bool Cache::Begin(const Address& address, size_t hash) {
  Entry* e = Get(address.text(), hash);
  if (e == nullptr) {
    if (held_.entries >= most_entries_) return false;
    auto made = std::make_unique<Entry>(address, hash);
    e = made.get();
    e->bytes = sizeof(Entry) + 64 + HeapOf(address.text());
    map_.insert(std::move(made));
    bytes_ += e->bytes;
    Link(*e);
  }
  if (e->holds == 0) {
    Unlink(*e);
    e->holds = 1;
    Link(*e);
    Trim();
  } else {
    e->holds++;
  }
  return true;
}

void Cache::End(std::string_view address, size_t hash) {
  Entry* e = Get(address, hash);
  if (e == nullptr || e->holds == 0) return;
  if (e->holds > 1) {
    e->holds--;
    return;
  }
  Unlink(*e);
  e->holds = 0;
  Link(*e);
  Trim();
}

void Cache::Attach(Entry& e) {
  if (e.attached) return;
  e.attached = true;
  e.attached_at = marks_;
}

void Cache::Received(Entry& e, BootTime known_at, BootTime now) {
  e.known_at = std::max(e.known_at, known_at);
  e.received_at = now;
  e.fresh_until = now + e.ttl;
  e.asked_at.reset();
  e.retry_at = BootTime::min();
  e.failures = 0;
  e.shown_until = e.hit_until = BootTime::min();
  e.direct = e.restored = false;
}

Cache::Stored Cache::Store(Answer answer, size_t hash, const Origin& origin, BootTime now,
                           Random& random) {
  Entry* e = Get(answer.address.text(), hash);
  if (e == nullptr) return Stored::kUnknown;
  if (!Accepts(origin.cluster)) return Stored::kForeign;
  cluster_ = origin.cluster;
  const BootTime known_at = now - answer.age;
  if (e->answer) {
    const Revision held = Effective(*e);
    if (answer.revision < held) {
      // The node is behind, with the same content: its marks confirm it once they reach `held`.
      // With other content, the stream takes that for held from now on: it confirms nothing here.
      if (origin.on_stream && SameContent(answer, *e->answer))
        Attach(*e);
      else if (origin.on_stream)
        FoldMark(*e);
      return Stored::kRefused;
    }
    if (answer.revision == held) {
      Received(*e, known_at, now);
      if (origin.on_stream) Attach(*e);
      return Stored::kRefreshed;
    }
  }
  // A call brought something else than the stream did last: should that come back, the stream would
  // not tell it again, and its marks would confirm what is held.
  if (!origin.on_stream && e->answer && !SameContent(answer, *e->answer)) e->attached = false;
  const bool negative = answer.status == AnswerStatus::kNotFound;
  nanoseconds ttl = negative ? policy_.negative_ttl : policy_.positive_ttl;
  if (answer.ttl.count() > 0) ttl = std::min<nanoseconds>(ttl, answer.ttl);
  answer.ttl = std::chrono::duration_cast<milliseconds>(ttl);

  Unlink(*e);
  bytes_ -= e->bytes;
  if (!e->answer) answers_++;
  e->bytes = sizeof(Entry) + 64 + HeapOf(e->address.text()) + CostOf(answer);
  bytes_ += e->bytes;
  e->revision = answer.revision;
  e->known_at = known_at;
  e->ttl = Times(ttl, Uniform(random, 1 - policy_.ttl_spread, 1));
  e->answer = std::make_shared<const Answer>(std::move(answer));
  const double late = Uniform(random, policy_.prefetch_from, policy_.prefetch_to);
  e->prefetch_at = negative ? BootTime::max() : now + Times(e->ttl, late);
  Received(*e, known_at, now);
  e->direct = true;
  if (origin.on_stream) Attach(*e);
  Link(*e);
  Trim();
  return Stored::kReplaced;
}

bool Cache::Restore(Answer answer, size_t hash, std::string_view cluster, BootTime received_at,
                    BootTime now, Random& random) {
  const Address address = answer.address;
  if (RevisionOf(address.text(), hash) > Revision{} || !Begin(address, hash)) return false;
  const Stored stored = Store(std::move(answer), hash, {.cluster = cluster}, now, random);
  Entry* e = Get(address.text(), hash);
  if (stored == Stored::kReplaced) {
    e->received_at = received_at;
    e->fresh_until = BootTime::min();
    e->prefetch_at = BootTime::max();
    e->direct = false;
    e->restored = true;
  }
  End(address.text(), hash);
  return stored == Stored::kReplaced;
}

void Cache::ForEachKnown(const std::function<void(Known)>& visit) const {
  for (const EntryPtr& entry : map_) {
    const Entry& e = *entry;
    if (!e.negative())
      visit({e.answer, Effective(e), KnownAt(e),
             MarkCovers(e) ? std::max(e.received_at, mark_at_) : e.received_at});
  }
}

bool Cache::Confirm(std::string_view address, size_t hash, const Revision& at, BootTime now) {
  Entry* e = Get(address, hash);
  if (e == nullptr || !e->answer) return false;
  if (at < Effective(*e)) {
    Attach(*e);
    return false;
  }
  e->revision = at;
  Received(*e, now - (mark_at_ - mark_known_at_), now);  // as current as the server's last mark
  Attach(*e);
  return true;
}

void Cache::Mark(const Revision& revision, milliseconds age, BootTime now) {
  if (revision < mark_) return;
  mark_ = revision;
  mark_known_at_ = now - age;
  mark_at_ = now;
  marks_++;
}

void Cache::Fail(std::string_view address, size_t hash, BootTime now,
                 std::optional<milliseconds> retry_after, Random& random) {
  Entry* e = Get(address, hash);
  if (e == nullptr) return;
  e->added_on = 0;  // the next attempt asks again
  if (Showable(*e, now)) return;
  const uint32_t doublings = std::min<uint32_t>(e->failures++, 16);
  const nanoseconds memo = std::min<nanoseconds>(policy_.failure_memo_most,
                                                 policy_.failure_memo_least * (1 << doublings));
  e->retry_at = now + Times(memo, Uniform(random, 1 - policy_.failure_memo_spread,
                                          1 + policy_.failure_memo_spread));
  if (retry_after)
    e->retry_at = std::max(e->retry_at, now + std::min(*retry_after, policy_.failure_memo_most));
}

void Cache::FoldMark(Entry& e) {
  if (MarkCovers(e)) {
    e.known_at = KnownAt(e);
    e.revision = mark_;
    e.received_at = std::max(e.received_at, mark_at_);
    e.fresh_until = e.received_at + e.ttl;
  }
  e.attached = false;
  e.hit_until = BootTime::min();
}

void Cache::SetLink(LinkState link) {
  if (link_ == link) return;
  if (link_ == LinkState::kLive) {
    for (const EntryPtr& entry : map_) FoldMark(*entry);
    mark_ = {};
  }
  if (link == LinkState::kLive) {
    for (const EntryPtr& entry : map_) {
      entry->hit_until = BootTime::min();
      entry->retry_at = BootTime::min();
      entry->failures = 0;
      entry->asked_at.reset();
    }
  }
  link_ = link;
}

bool Cache::Accepts(std::string_view cluster) const {
  return cluster == cluster_ || answers_ == 0;
}

std::optional<Held> Cache::HeldOf(std::string_view address, size_t hash) const {
  const Entry* e = Get(address, hash);
  if (e == nullptr) return std::nullopt;
  if (!e->answer) return Held{};
  return Held{Effective(*e), e->answer->hash};
}

bool Cache::Added(std::string_view address, size_t hash, uint64_t stream) {
  Entry* e = Get(address, hash);
  if (e == nullptr) return false;
  const bool before = std::exchange(e->added_on, stream) == stream;
  return before && (e->attached || !e->answer);
}

void Cache::ForEach(const std::function<void(const std::string&)>& visit) const {
  for (const EntryPtr& entry : map_) visit(entry->address.text());
}

void Cache::ForEach(BootTime now, const std::function<void(const View&)>& visit) const {
  for (const EntryPtr& e : map_) {
    const auto age = e->answer ? std::max(now - KnownAt(*e), nanoseconds(0)) : nanoseconds(0);
    visit({.address = e->address,
           .state = StateOf(e->text, e->hash, now),
           .answer = e->answer.get(),
           .revision = e->answer ? Effective(*e) : Revision{},
           .age = std::chrono::duration_cast<milliseconds>(age),
           .subscribed = e->attached && link_ == LinkState::kLive});
  }
}

Cache::List& Cache::HomeOf(const Entry& e) {
  if (e.holds > 0) return held_;
  return e.negative() ? negative_ : positive_;
}

void Cache::Unlink(Entry& e) {
  List& list = HomeOf(e);
  (e.previous != nullptr ? e.previous->next : list.first) = e.next;
  (e.next != nullptr ? e.next->previous : list.last) = e.previous;
  e.next = e.previous = nullptr;
  list.entries--;
  list.bytes -= e.bytes;
}

void Cache::Link(Entry& e) {
  List& list = HomeOf(e);
  e.previous = list.last;
  (list.last != nullptr ? list.last->next : list.first) = &e;
  list.last = &e;
  list.entries++;
  list.bytes += e.bytes;
}

bool Cache::Evict(List& list) {
  while (list.first != nullptr) {
    Entry& e = *list.first;
    if (e.used) {  // a second chance
      e.used = false;
      Unlink(e);
      Link(e);
      continue;
    }
    Unlink(e);
    bytes_ -= e.bytes;
    if (e.answer) answers_--;
    evicted_.push_back(e.address.text());
    map_.erase(map_.find(Key{e.text, e.hash}, e.hash));
    return true;
  }
  return false;
}

void Cache::Trim() {
  const size_t negatives = std::max<size_t>(1, most_entries_ * policy_.negative_percent / 100);
  while (negative_.entries > negatives ||
         negative_.bytes > most_bytes_ * policy_.negative_percent / 100)
    if (!Evict(negative_)) break;
  while (map_.size() > most_entries_ || bytes_ > most_bytes_) {
    const bool full = negative_.entries > 0 && negative_.entries >= negatives;
    if (!(full && Evict(negative_)) && !Evict(positive_) && !Evict(negative_)) break;
  }
}

}  // namespace datawire::resolver
