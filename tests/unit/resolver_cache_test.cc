#include "cache.h"

#include <gtest/gtest.h>

#include <map>

namespace datawire::resolver {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = Found::Kind;
using Stored = Cache::Stored;

Address A(std::string_view text) {
  return Address::Parse(text).value();
}

// A cache in simulated time: `now` moves only by Pass.
class ResolverCache : public ::testing::Test {
 protected:
  void Make(size_t entries = 1000, size_t bytes = 64 << 20) {
    cache = std::make_unique<Cache>(policy, entries, bytes);
    cache->Adopt("c1");
  }
  void SetUp() override { Make(); }

  Answer Of(const std::string& address, uint64_t number, uint64_t hash,
            AnswerStatus status = AnswerStatus::kFound) {
    Answer answer{.address = A(address), .status = status};
    answer.revision = {1, number};
    answer.hash = hash;
    answer.source = "directory";
    if (status == AnswerStatus::kFound) {
      answer.matched = A(address);
      answer.endpoints.push_back(
          {.url = EndpointUrl::Parse("amqp://127.0.0.1:" + std::to_string(1000 + hash)).value()});
    }
    return answer;
  }
  Stored Put(Answer answer, bool on_stream, std::string_view cluster = "c1") {
    const size_t hash = HashOf(answer.address.text());
    return cache->Store(std::move(answer), hash, {.cluster = cluster, .on_stream = on_stream}, now,
                        random);
  }
  Stored Push(const std::string& a, uint64_t number, uint64_t hash) {
    return Put(Of(a, number, hash), true);
  }
  Stored Poll(const std::string& a, uint64_t number, uint64_t hash) {
    return Put(Of(a, number, hash), false);
  }
  Stored PushNegative(const std::string& a, uint64_t number) {
    return Put(Of(a, number, 1, AnswerStatus::kNotFound), true);
  }
  bool Begin(const std::string& a) { return cache->Begin(A(a), HashOf(a)); }
  void End(const std::string& a) { cache->End(a, HashOf(a)); }
  void Fail(const std::string& a, std::optional<milliseconds> retry_after = {}) {
    cache->Fail(a, HashOf(a), now, retry_after, random);
  }
  Found Find(const std::string& a, uint64_t min = 0) {
    return cache->Find(A(a), HashOf(a), {min > 0 ? 1u : 0u, min}, now);
  }
  AnswerPtr Hit(const std::string& a, uint64_t min = 0) {
    return cache->Hit(A(a), HashOf(a), {min > 0 ? 1u : 0u, min}, now);
  }
  EntryState State(const std::string& a) { return cache->StateOf(a, HashOf(a), now); }
  uint64_t Number(const std::string& a) { return cache->RevisionOf(a, HashOf(a)).number; }
  uint64_t Hash(const std::string& a) {
    const AnswerPtr answer = cache->Peek(a, HashOf(a), now);
    return answer ? answer->hash : 0;
  }
  void Mark(uint64_t number, milliseconds age = {}) { cache->Mark({1, number}, age, now); }
  void Live() { cache->SetLink(LinkState::kLive); }
  void Dies() { cache->SetLink(LinkState::kConnecting); }
  void Pass(std::chrono::nanoseconds time) { now += time; }

  // On a live stream, answered at revision 10 with hash 5.
  void Known(const std::string& a = "//d/a") {
    Live();
    ASSERT_TRUE(Begin(a));
    ASSERT_EQ(Push(a, 10, 5), Stored::kReplaced);
    End(a);
  }

  ResolverPolicy policy;
  Random random{7};
  BootTime now{hours(100)};
  std::unique_ptr<Cache> cache;
};

TEST_F(ResolverCache, GoesFromAbsentOverLoadingToFresh) {
  Live();
  EXPECT_EQ(State("//d/a"), EntryState::kAbsent);
  EXPECT_EQ(Find("//d/a").kind, Kind::kWait);
  ASSERT_TRUE(Begin("//d/a"));
  EXPECT_EQ(State("//d/a"), EntryState::kLoading);
  EXPECT_EQ(Find("//d/a").kind, Kind::kWait);
  Push("//d/a", 10, 5);
  EXPECT_EQ(State("//d/a"), EntryState::kFresh);
  const Found found = Find("//d/a");
  EXPECT_EQ(found.kind, Kind::kAnswer);
  EXPECT_FALSE(found.ask);
  EXPECT_EQ(found.answer->source, "cache");
}

TEST_F(ResolverCache, GivesWhoWaitedTheAnswerAsTheDirectorySentIt) {
  Live();
  Begin("//d/a");
  Push("//d/a", 10, 5);
  const AnswerPtr first = cache->Ready("//d/a", HashOf("//d/a"), {}, now);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->source, "directory");
  EXPECT_EQ(Find("//d/a").answer->source, "cache");
}

TEST_F(ResolverCache, RefusesAPushOlderThanWhatItHolds) {
  Known();
  EXPECT_EQ(Push("//d/a", 9, 6), Stored::kRefused);
  EXPECT_EQ(Number("//d/a"), 10u);
  EXPECT_EQ(Hash("//d/a"), 5u);
}

TEST_F(ResolverCache, RefusesAnOlderEpochHoweverGreatItsNumber) {
  Known();
  Answer old = Of("//d/a", 999, 6);
  old.revision.epoch = 0;
  EXPECT_EQ(Put(std::move(old), true), Stored::kRefused);
  Answer restored = Of("//d/a", 1, 6);
  restored.revision.epoch = 2;
  EXPECT_EQ(Put(std::move(restored), true), Stored::kReplaced);
}

TEST_F(ResolverCache, KeepsAPollThatOvertookThePush) {
  Known();
  EXPECT_EQ(Poll("//d/a", 12, 7), Stored::kReplaced);
  EXPECT_EQ(Push("//d/a", 11, 6), Stored::kRefused);
  EXPECT_EQ(Hash("//d/a"), 7u);
  EXPECT_EQ(Push("//d/a", 12, 7), Stored::kRefreshed);
}

TEST_F(ResolverCache, AMarkDoesNotConfirmWhatACallBroughtAndTheStreamNeverSaid) {
  Known();
  EXPECT_EQ(Poll("//d/a", 12, 7), Stored::kReplaced);
  Mark(14);  // back to hash 5 meanwhile, which the stream believes to be held
  EXPECT_EQ(Number("//d/a"), 12u);
  EXPECT_FALSE(cache->Added("//d/a", HashOf("//d/a"), 1)) << "it is asked for again";
  EXPECT_EQ(Push("//d/a", 14, 5), Stored::kReplaced);
  Mark(15);
  EXPECT_EQ(Number("//d/a"), 15u);
}

TEST_F(ResolverCache, AMarkStillConfirmsWhatACallBroughtAgain) {
  Known();
  EXPECT_EQ(Poll("//d/a", 12, 5), Stored::kReplaced);
  Mark(14);
  EXPECT_EQ(Number("//d/a"), 14u);
}

TEST_F(ResolverCache, AMarkDoesNotConfirmOverAPushOfOtherContentThatWasRefused) {
  Known();
  Dies();
  Live();  // a node that is behind, with equal content, then with other content
  EXPECT_FALSE(cache->Confirm("//d/a", HashOf("//d/a"), {1, 5}, now));
  EXPECT_EQ(Push("//d/a", 8, 6), Stored::kRefused);
  Mark(12);
  EXPECT_EQ(Number("//d/a"), 10u);
}

TEST_F(ResolverCache, FallsBackToAnOlderAncestorAtANewerRevision) {
  Known("//d/a/b");
  Answer ancestor = Of("//d/a/b", 11, 3);
  ancestor.matched = A("//d/a");
  ancestor.modified = {1, 2};  // long before the exact row that went away
  EXPECT_EQ(Put(std::move(ancestor), true), Stored::kReplaced);
  EXPECT_EQ(Find("//d/a/b").answer->matched->text(), "//d/a");
}

TEST_F(ResolverCache, EqualRevisionRefreshesTimesOnly) {
  Known();
  Dies();
  Pass(seconds(20));
  EXPECT_EQ(Poll("//d/a", 10, 99), Stored::kRefreshed);
  EXPECT_EQ(Hash("//d/a"), 5u);
  Pass(seconds(20));
  EXPECT_EQ(State("//d/a"), EntryState::kFresh);
}

TEST_F(ResolverCache, MarkConfirmsWhatIsNotNewer) {
  Known();
  Pass(seconds(1));
  Mark(15);
  EXPECT_EQ(Number("//d/a"), 15u);
  EXPECT_EQ(Push("//d/a", 14, 6), Stored::kRefused);  // older than what was confirmed
  EXPECT_EQ(Push("//d/a", 16, 6), Stored::kReplaced);
}

TEST_F(ResolverCache, MarkDoesNotConfirmWhatIsNewer) {
  Known();
  Push("//d/a", 20, 6);
  Pass(seconds(3));
  Mark(15);
  EXPECT_EQ(Number("//d/a"), 20u);
  Pass(milliseconds(1));
  EXPECT_EQ(Find("//d/a").answer->age, milliseconds(3001));
}

TEST_F(ResolverCache, MarkDoesNotConfirmWhatTheStreamHasNotAnswered) {
  Known();
  Dies();
  Live();
  Mark(50);
  EXPECT_EQ(Number("//d/a"), 10u);
  EXPECT_EQ(Push("//d/a", 40, 6), Stored::kReplaced);
}

TEST_F(ResolverCache, AMarkFromBeforeTheAnswerDoesNotConfirmIt) {
  Live();
  Mark(30);
  Begin("//d/a");
  Push("//d/a", 29, 5);
  EXPECT_EQ(Number("//d/a"), 29u);
  Mark(30);
  EXPECT_EQ(Number("//d/a"), 30u);
}

TEST_F(ResolverCache, IsFreshOnALiveStreamWhateverItsAge) {
  Known();
  Pass(hours(2));
  EXPECT_EQ(State("//d/a"), EntryState::kFresh);
  const Found found = Find("//d/a");
  EXPECT_EQ(found.kind, Kind::kAnswer);
  EXPECT_TRUE(found.answer->stale);  // no proof of freshness for 5 s
  Mark(11);
  Pass(kAgeShown);
  EXPECT_FALSE(Find("//d/a").answer->stale);
}

TEST_F(ResolverCache, TtlStartsFromTheLastMarkWhenTheStreamDies) {
  Known();
  Pass(hours(1));
  Mark(20);
  Pass(seconds(5));
  Dies();
  EXPECT_EQ(Number("//d/a"), 20u);
  Pass(seconds(21));  // 26 s after the mark
  EXPECT_EQ(State("//d/a"), EntryState::kFresh);
  Pass(seconds(5));  // 31 s
  EXPECT_EQ(State("//d/a"), EntryState::kStale);
}

TEST_F(ResolverCache, DeathOfTheStreamInvalidatesNothing) {
  Known();
  Dies();
  EXPECT_EQ(Find("//d/a").kind, Kind::kAnswer);
  cache->SetLink(LinkState::kDown);
  EXPECT_EQ(Find("//d/a").kind, Kind::kAnswer);
}

TEST_F(ResolverCache, TtlIsShortenedByAtMostATenth) {
  for (int i = 0; i < 50; i++) {
    Make();
    Known();
    Dies();
    const BootTime stored = now;
    Pass(seconds(27) - milliseconds(1));
    EXPECT_EQ(State("//d/a"), EntryState::kFresh);
    now = stored + seconds(30);
    EXPECT_EQ(State("//d/a"), EntryState::kStale);
  }
}

TEST_F(ResolverCache, WhatCameTogetherDoesNotEndTogether) {
  int fresh = 0;
  for (int i = 0; i < 100; i++) {
    Make();
    Known();
    Dies();
    Pass(milliseconds(28'500));
    fresh += State("//d/a") == EntryState::kFresh;
  }
  EXPECT_GT(fresh, 20);
  EXPECT_LT(fresh, 80);
}

TEST_F(ResolverCache, TakesAShorterTtlFromTheDirectory) {
  Live();
  Begin("//d/a");
  Answer answer = Of("//d/a", 10, 5);
  answer.ttl = seconds(2);
  Put(std::move(answer), true);
  Dies();
  Pass(seconds(2));
  EXPECT_EQ(State("//d/a"), EntryState::kStale);
}

TEST_F(ResolverCache, StaleWaits100MillisecondsOnceThenAnswersAtOnce) {
  Known();
  Dies();
  Pass(seconds(40));
  const Found first = Find("//d/a");
  EXPECT_EQ(first.kind, Kind::kStale);
  EXPECT_TRUE(first.ask);
  EXPECT_EQ(first.until, now + milliseconds(100));
  Pass(milliseconds(30));
  const Found second = Find("//d/a");  // the same refresh
  EXPECT_EQ(second.kind, Kind::kStale);
  EXPECT_FALSE(second.ask);
  EXPECT_EQ(second.until, first.until);
  Pass(milliseconds(70));
  const Found third = Find("//d/a");
  EXPECT_EQ(third.kind, Kind::kAnswer);
  EXPECT_TRUE(third.answer->stale);
  Pass(policy.recheck);
  EXPECT_TRUE(Find("//d/a").ask);
}

TEST_F(ResolverCache, StaleAnswersAtOnceWhenEveryServerIsDown) {
  Known();
  cache->SetLink(LinkState::kDown);
  Pass(seconds(40));
  const Found found = Find("//d/a");
  EXPECT_EQ(found.kind, Kind::kAnswer);
  EXPECT_TRUE(found.stale);
  EXPECT_TRUE(found.answer->stale);
  EXPECT_EQ(found.answer->age, seconds(40));
}

TEST_F(ResolverCache, DropsWhatIsOlderThanMaxStale) {
  Known();
  cache->SetLink(LinkState::kDown);
  Pass(policy.max_stale);
  EXPECT_EQ(Find("//d/a").kind, Kind::kAnswer);
  Pass(milliseconds(1));
  EXPECT_EQ(Find("//d/a").kind, Kind::kWait);
  EXPECT_EQ(cache->Peek("//d/a", HashOf("//d/a"), now), nullptr);
}

TEST_F(ResolverCache, StaleFlagTurnsAtFiveSecondsExactly) {
  Known();
  Dies();
  Pass(milliseconds(4900));
  EXPECT_FALSE(Find("//d/a").answer->stale);
  Pass(milliseconds(101));
  EXPECT_TRUE(Find("//d/a").answer->stale);
}

TEST_F(ResolverCache, AgeCountsTheServersAgeToo) {
  Live();
  Begin("//d/a");
  Answer answer = Of("//d/a", 10, 5);
  answer.age = seconds(4);
  Put(std::move(answer), true);
  Pass(seconds(2));
  const Found found = Find("//d/a");
  EXPECT_EQ(found.answer->age, seconds(6));
  EXPECT_TRUE(found.answer->stale);
  Mark(11, seconds(60));  // the node itself has not been current for a minute
  Pass(kAgeShown);
  EXPECT_EQ(Find("//d/a").answer->age, seconds(6) + kAgeShown);
}

TEST_F(ResolverCache, HitSharesOneAnswerUntilItsShownAgeIsOld) {
  Known();
  const AnswerPtr first = Find("//d/a").answer;
  Pass(kAgeShown - milliseconds(1));
  EXPECT_EQ(Find("//d/a").answer.get(), first.get());
  Pass(milliseconds(1));
  EXPECT_NE(Find("//d/a").answer.get(), first.get());
}

TEST_F(ResolverCache, AHitIsWhatFindJustAnswered) {
  Known();
  EXPECT_EQ(Hit("//d/a"), nullptr);  // as the directory sent it, not as the cache shows it
  const AnswerPtr found = Find("//d/a").answer;
  EXPECT_EQ(Hit("//d/a").get(), found.get());
  EXPECT_EQ(Hit("//d/a", 10).get(), found.get());
  EXPECT_EQ(Hit("//d/a", 11), nullptr);
  EXPECT_EQ(Hit("//d/b"), nullptr);
  Pass(kAgeShown);
  EXPECT_EQ(Hit("//d/a"), nullptr);  // its age is to be shown anew
}

TEST_F(ResolverCache, AHitEndsWithEachChangeOfTheAnswerOrTheLink) {
  Known();
  Find("//d/a");
  Push("//d/a", 11, 6);
  EXPECT_EQ(Hit("//d/a"), nullptr);
  Find("//d/a");
  Dies();
  EXPECT_EQ(Hit("//d/a"), nullptr);
  Find("//d/a");
  Live();
  EXPECT_EQ(Hit("//d/a"), nullptr);
}

TEST_F(ResolverCache, AHitEndsWithTheTtlOnceTheStreamIsDead) {
  Known();
  Dies();
  BootTime last_hit = now;
  for (int i = 0; i < 300; i++) {  // found anew each time its age is
    Pass(milliseconds(100));
    if (Hit("//d/a")) {
      last_hit = now;
      EXPECT_EQ(State("//d/a"), EntryState::kFresh);
    } else if (State("//d/a") == EntryState::kFresh) {
      Find("//d/a");
    }
  }
  EXPECT_EQ(State("//d/a"), EntryState::kStale);
  EXPECT_GT(last_hit, now - seconds(4));
}

TEST_F(ResolverCache, AHitDoesNotDelayThePrefetch) {
  const BootTime start = now;
  std::map<bool, BootTime> asked;
  for (const bool with_hits : {false, true}) {
    Make();
    now = start;
    random.seed(7);
    Live();
    Begin("//d/a");
    Poll("//d/a", 10, 5);  // not kept up by the stream
    for (int i = 0; i < 270 && !asked.contains(with_hits); i++) {
      Pass(milliseconds(100));
      if ((!with_hits || !Hit("//d/a")) && Find("//d/a").ask) asked[with_hits] = now;
    }
  }
  EXPECT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[true], asked[false]);
}

TEST_F(ResolverCache, AHitCountsAsUse) {
  Make(10);
  for (int i = 0; i < 10; i++) Known("//d/" + std::to_string(i));
  for (int i = 0; i < 10; i++) Find("//d/" + std::to_string(i));
  Known("//d/new");  // the hand went round: nobody counts as used
  cache->TakeEvicted();
  for (int i = 1; i < 10; i++) ASSERT_TRUE(Hit("//d/" + std::to_string(i))) << i;
  Known("//d/newer");
  EXPECT_EQ(cache->TakeEvicted(), std::vector<std::string>{"//d/new"});
}

TEST_F(ResolverCache, NegativeIsAnsweredWithoutACallAndEndsAfterFiveSeconds) {
  Live();
  Begin("//d/a");
  PushNegative("//d/a", 10);
  End("//d/a");
  EXPECT_EQ(State("//d/a"), EntryState::kNegative);
  EXPECT_EQ(Find("//d/a").answer->status, AnswerStatus::kNotFound);
  Pass(hours(1));
  EXPECT_EQ(State("//d/a"), EntryState::kNegative);  // subscribed
  Mark(11);
  Dies();
  Pass(seconds(4));
  EXPECT_EQ(State("//d/a"), EntryState::kNegative);
  Pass(seconds(1));
  EXPECT_EQ(Find("//d/a").kind, Kind::kWait);  // not knowing is not NOT_FOUND
  EXPECT_EQ(cache->Peek("//d/a", HashOf("//d/a"), now), nullptr);
}

TEST_F(ResolverCache, PushCancelsANegative) {
  Live();
  Begin("//d/a");
  PushNegative("//d/a", 10);
  End("//d/a");
  EXPECT_EQ(cache->negatives(), 1u);
  EXPECT_EQ(Push("//d/a", 11, 5), Stored::kReplaced);
  EXPECT_EQ(State("//d/a"), EntryState::kFresh);
  EXPECT_EQ(cache->negatives(), 0u);
}

TEST_F(ResolverCache, AnOlderNegativeDoesNotEmptyAnAddress) {
  Known();
  EXPECT_EQ(PushNegative("//d/a", 9), Stored::kRefused);
  EXPECT_EQ(Find("//d/a").answer->status, AnswerStatus::kFound);
}

TEST_F(ResolverCache, ForeignClusterNeverReplaces) {
  Known();
  EXPECT_FALSE(cache->Accepts("c2"));
  EXPECT_EQ(Put(Of("//d/a", 999, 6), true, "c2"), Stored::kForeign);
  EXPECT_EQ(Hash("//d/a"), 5u);
}

TEST_F(ResolverCache, AnotherClusterIsWelcomeWhileNothingIsHeld) {
  EXPECT_TRUE(cache->Accepts("c2"));
  Begin("//d/a");
  EXPECT_EQ(Put(Of("//d/a", 1, 6), true, "c2"), Stored::kReplaced);
  EXPECT_FALSE(cache->Accepts("c1"));
}

TEST_F(ResolverCache, TakesNothingItDidNotAskFor) {
  Live();
  EXPECT_EQ(Push("//d/unasked", 10, 5), Stored::kUnknown);
  EXPECT_EQ(cache->entries(), 0u);
  EXPECT_FALSE(cache->Confirm("//d/unasked", HashOf("//d/unasked"), {1, 10}, now));
}

TEST_F(ResolverCache, FailureMemoDoublesToItsMostAndFailsFast) {
  Begin("//d/a");
  milliseconds expected = policy.failure_memo_least;
  for (int i = 0; i < 8; i++) {
    Fail("//d/a");
    EXPECT_EQ(State("//d/a"), EntryState::kError);
    EXPECT_EQ(Find("//d/a").kind, Kind::kFail);
    Pass(expected * 79 / 100);
    EXPECT_EQ(Find("//d/a").kind, Kind::kFail) << i;
    Pass(expected * 42 / 100);
    EXPECT_EQ(Find("//d/a").kind, Kind::kWait) << i;
    expected = std::min(expected * 2, policy.failure_memo_most);
  }
}

TEST_F(ResolverCache, ConnectedStreamClearsEveryMemo) {
  Begin("//d/a");
  Begin("//d/b");
  Fail("//d/a");
  Fail("//d/b", seconds(20));
  Live();
  EXPECT_EQ(Find("//d/a").kind, Kind::kWait);
  EXPECT_EQ(Find("//d/b").kind, Kind::kWait);
}

TEST_F(ResolverCache, MemoHonoursRetryAfterUpToItsMost) {
  Begin("//d/a");
  Fail("//d/a", hours(5));
  Pass(policy.failure_memo_most - milliseconds(1));
  EXPECT_EQ(Find("//d/a").kind, Kind::kFail);
  Pass(milliseconds(1));
  EXPECT_EQ(Find("//d/a").kind, Kind::kWait);
}

TEST_F(ResolverCache, FailedRefreshNeitherRemovesNorShortens) {
  Known();
  Dies();
  Pass(seconds(10));
  Fail("//d/a");
  EXPECT_EQ(State("//d/a"), EntryState::kFresh);
  Pass(seconds(30));
  Fail("//d/a");
  EXPECT_EQ(State("//d/a"), EntryState::kStale);
  EXPECT_EQ(Hash("//d/a"), 5u);
}

TEST_F(ResolverCache, EqualHashConfirmsAfterAReconnect) {
  Known();
  Mark(12);
  Dies();
  Pass(seconds(60));
  Live();
  const auto held = cache->HeldOf("//d/a", HashOf("//d/a"));
  ASSERT_TRUE(held);
  EXPECT_EQ(held->revision.number, 12u);
  EXPECT_EQ(held->hash, 5u);
  EXPECT_TRUE(cache->Confirm("//d/a", HashOf("//d/a"), {1, 30}, now));
  EXPECT_EQ(State("//d/a"), EntryState::kFresh);
  EXPECT_EQ(Number("//d/a"), 30u);
  EXPECT_EQ(Find("//d/a").answer->age, milliseconds(0));
  Mark(31);
  EXPECT_EQ(Number("//d/a"), 31u);
}

TEST_F(ResolverCache, ANodeBehindWithEqualContentConfirmsOnceItHasCaughtUp) {
  Known();
  Mark(20);
  Dies();
  Live();
  Mark(15);
  EXPECT_EQ(Push("//d/a", 15, 5), Stored::kRefused);
  EXPECT_EQ(Number("//d/a"), 20u);  // never back
  Mark(19);
  EXPECT_EQ(Number("//d/a"), 20u);
  Mark(21);
  EXPECT_EQ(Number("//d/a"), 21u);
}

TEST_F(ResolverCache, ANodeBehindWithOtherContentConfirmsNothing) {
  Known();
  Mark(20);
  Dies();
  Live();
  EXPECT_EQ(Push("//d/a", 15, 6), Stored::kRefused);
  Mark(21);
  EXPECT_EQ(Number("//d/a"), 20u);
}

TEST_F(ResolverCache, MinRevisionWaitsForANewerAnswerOrMark) {
  Known();
  EXPECT_EQ(Find("//d/a", 10).kind, Kind::kAnswer);
  EXPECT_EQ(Find("//d/a", 11).kind, Kind::kWait);
  EXPECT_EQ(cache->Ready("//d/a", HashOf("//d/a"), {1, 11}, now), nullptr);
  Mark(11);
  const Found found = Find("//d/a", 11);
  ASSERT_EQ(found.kind, Kind::kAnswer);
  EXPECT_EQ(found.answer->revision.number, 11u);
}

TEST_F(ResolverCache, StaleAnswerOlderThanMinRevisionIsNotGiven) {
  Known();
  cache->SetLink(LinkState::kDown);
  Pass(seconds(60));
  EXPECT_EQ(Find("//d/a", 11).kind, Kind::kWait);
}

TEST_F(ResolverCache, PrefetchesOnceWhenUsedLateInItsTtl) {
  Live();
  Begin("//d/a");
  Poll("//d/a", 10, 5);  // not kept up by the stream
  Pass(seconds(21));     // < 0.8 x 0.9 x 30 s
  EXPECT_FALSE(Find("//d/a").ask);
  Pass(seconds(6) - milliseconds(1));  // > 0.9 x 0.9 x 30 s, still fresh
  const Found found = Find("//d/a");
  EXPECT_EQ(found.kind, Kind::kAnswer);
  EXPECT_TRUE(found.ask);
  EXPECT_EQ(State("//d/a"), EntryState::kRefreshing);
  EXPECT_FALSE(Find("//d/a").ask);
}

TEST_F(ResolverCache, EvictsTheLeastUsedAndSaysSo) {
  Make(10);
  Live();
  for (int i = 0; i < 10; i++) Known("//d/" + std::to_string(i));
  for (int i = 0; i < 9; i++) Find("//d/" + std::to_string(i));
  Known("//d/new");
  EXPECT_EQ(cache->entries(), 10u);
  EXPECT_EQ(cache->TakeEvicted(), std::vector<std::string>{"//d/9"});
  EXPECT_EQ(State("//d/9"), EntryState::kAbsent);
  EXPECT_FALSE(cache->HeldOf("//d/9", HashOf("//d/9")));
}

TEST_F(ResolverCache, NegativesNeverTakeMoreThanATenth) {
  Make(100);
  Live();
  for (int i = 0; i < 90; i++) Known("//d/" + std::to_string(i));
  for (int i = 0; i < 500; i++) {
    const std::string a = "//d/no" + std::to_string(i);
    Begin(a);
    PushNegative(a, 10);
    End(a);
    EXPECT_LE(cache->negatives(), 10u);
  }
  for (int i = 0; i < 90; i++)
    EXPECT_EQ(State("//d/" + std::to_string(i)), EntryState::kFresh) << i;
}

TEST_F(ResolverCache, IsBoundedByBytes) {
  Make(100'000, 256 * 1024);
  Live();
  for (int i = 0; i < 200; i++) {
    const std::string a = "//d/" + std::to_string(i);
    Begin(a);
    Answer answer = Of(a, 10, 5);
    while (answer.endpoints.size() < 64) answer.endpoints.push_back(answer.endpoints[0]);
    Put(std::move(answer), true);
    End(a);
    EXPECT_LE(cache->bytes(), 256u * 1024);
  }
  EXPECT_GT(cache->entries(), 5u);
}

TEST_F(ResolverCache, KeepsWhatSomebodyWaitsForAndRefusesMoreThanItHasRoomFor) {
  Make(10);
  for (int i = 0; i < 10; i++) EXPECT_TRUE(Begin("//d/" + std::to_string(i)));
  EXPECT_FALSE(Begin("//d/more"));
  EXPECT_EQ(Find("//d/more").kind, Kind::kFail);
  End("//d/0");
  EXPECT_TRUE(Begin("//d/more"));
  for (int i = 1; i < 10; i++) EXPECT_EQ(State("//d/" + std::to_string(i)), EntryState::kLoading);
}

}  // namespace
}  // namespace datawire::resolver
