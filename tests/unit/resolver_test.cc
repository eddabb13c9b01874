#include "datawire/resolver.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "datawire/clock.h"
#include "fake_directory.h"

namespace datawire {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeDirectory;
using Seen = FakeDirectory::Seen;

const char kUrl1[] = "amqp://127.0.0.1:1001";
const char kUrl2[] = "amqp://127.0.0.1:1002";

Address A(std::string_view text) {
  return Address::Parse(text).value();
}

ResolveOptions Within(milliseconds deadline, uint64_t min = 0) {
  return {.deadline = deadline, .min_revision = {min > 0 ? 1u : 0u, min}};
}

milliseconds Since(BootTime start) {
  return std::chrono::duration_cast<milliseconds>(BootClock::now() - start);
}

// What a callback was told, in order.
struct Told {
  std::mutex mutex;
  std::condition_variable some;
  std::vector<Resolver::AnswerPtr> answers;

  Resolver::Callback callback() {
    return [this](const Resolver::AnswerPtr& answer) {
      std::lock_guard lock(mutex);
      answers.push_back(answer);
      some.notify_all();
    };
  }
  bool Await(size_t count) {
    std::unique_lock lock(mutex);
    return some.wait_for(lock, seconds(20), [&] { return answers.size() >= count; });
  }
  size_t size() {
    std::lock_guard lock(mutex);
    return answers.size();
  }
  Resolver::AnswerPtr at(size_t i) {
    std::lock_guard lock(mutex);
    return answers.at(i);
  }
};

// Accepts TCP by the kernel's backlog and never says a word.
class SilentListener {
 public:
  SilentListener() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd_, 16) != 0 ||
        ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      std::abort();
    port_ = ntohs(address.sin_port);
  }
  ~SilentListener() { ::close(fd_); }
  std::string server() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  const int fd_;
  uint16_t port_;
};

class ResolverTest : public ::testing::Test {
 protected:
  ResolverTest() {
    policy.reconnect_least = milliseconds(20);
    policy.reconnect_most = milliseconds(200);
    policy.stream_silence = std::chrono::minutes(5);  // it hides a death that nobody sees
  }
  void Open(std::vector<std::string> servers) {
    auto opened = Resolver::Open({.directory = std::move(servers), .policy = policy});
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    resolver = std::move(opened).value();
  }
  void OpenOn(FakeDirectory& fake) {
    fake.Start();
    Open({fake.server()});
  }
  Resolver::AnswerPtr Resolve(std::string_view address, ResolveOptions options = {}) {
    return resolver->Resolve(A(address), options);
  }
  // Asks the cache until the condition holds of its answer; false after 20 s.
  bool AwaitAnswer(std::string_view address, const std::function<bool(const Answer&)>& condition) {
    const BootTime start = BootClock::now();
    while (Since(start) < seconds(20)) {
      if (condition(*Resolve(address))) return true;
      std::this_thread::yield();
    }
    return false;
  }
  bool AwaitStats(const std::function<bool(const ResolverStats&)>& condition) {
    const BootTime start = BootClock::now();
    while (Since(start) < seconds(20)) {
      if (condition(resolver->Stats())) return true;
      std::this_thread::yield();
    }
    return false;
  }

  ResolverPolicy policy;
  FakeDirectory fake;
  std::unique_ptr<Resolver> resolver;
};

TEST_F(ResolverTest, MissGoesOnTheStreamAndHitsMakeNoCall) {
  fake.Set("//d/a", {kUrl1});
  OpenOn(fake);
  const auto first = Resolve("//d/a");
  ASSERT_EQ(first->status, AnswerStatus::kFound);
  EXPECT_EQ(first->source, "directory");
  EXPECT_EQ(first->endpoints[0].url.text(), kUrl1);
  const auto before = fake.seen();
  for (int i = 0; i < 1000; i++) EXPECT_EQ(Resolve("//d/a")->source, "cache");
  const auto after = fake.seen();
  EXPECT_EQ(after.adds.size(), 1u);
  EXPECT_EQ(after.unary, 0u);
  EXPECT_LE(after.requests, before.requests + 1);  // an acknowledgement may be on its way
  const ResolverStats stats = resolver->Stats();
  EXPECT_EQ(stats.hits, 1000u);
  EXPECT_EQ(stats.misses, 1u);
  EXPECT_EQ(stats.server, fake.server());
  EXPECT_TRUE(stats.live);
  EXPECT_TRUE(resolver->LastError().ok());
}

TEST_F(ResolverTest, HundredCallersOfOneAddressAreOneAddressInTheStream) {
  fake.answers = false;
  OpenOn(fake);
  Told told;
  for (int i = 0; i < 100; i++) resolver->Resolve(A("//d/a"), Within(seconds(5)), told.callback());
  ASSERT_TRUE(fake.Await([](const Seen& s) { return s.AddsOf("//d/a") > 0; }));
  fake.Set("//d/a", {kUrl1});
  ASSERT_TRUE(told.Await(100));
  for (size_t i = 0; i < 100; i++) EXPECT_EQ(told.at(i)->status, AnswerStatus::kFound);
  EXPECT_EQ(fake.seen().AddsOf("//d/a"), 1u);
  EXPECT_EQ(resolver->Stats().misses, 1u);
  EXPECT_EQ(resolver->Stats().coalesced, 99u);
}

TEST_F(ResolverTest, PipelinesManyAddressesInFewMessages) {
  OpenOn(fake);
  Told told;
  for (int i = 0; i < 3000; i++) {
    const std::string address = "//d/" + std::to_string(i);
    resolver->Resolve(A(address), Within(seconds(5)), told.callback());
  }
  ASSERT_TRUE(told.Await(3000));
  EXPECT_EQ(fake.seen().adds.size(), 3000u);
  EXPECT_LT(fake.seen().requests, 1500u);
}

TEST_F(ResolverTest, PushIsAppliedAtOnceWithoutAQuestion) {
  fake.Set("//d/a", {kUrl1});
  OpenOn(fake);
  Resolve("//d/a");
  fake.Set("//d/a", {kUrl2});
  EXPECT_TRUE(
      AwaitAnswer("//d/a", [](const Answer& a) { return a.endpoints[0].url.text() == kUrl2; }));
  EXPECT_EQ(fake.seen().adds.size(), 1u);
}

TEST_F(ResolverTest, NegativeIsTypedAndAPushCancelsIt) {
  OpenOn(fake);
  EXPECT_EQ(Resolve("//d/late")->status, AnswerStatus::kNotFound);
  EXPECT_EQ(Resolve("//d/late")->status, AnswerStatus::kNotFound);
  EXPECT_EQ(resolver->Stats().negatives, 2u);
  fake.Set("//d/late", {kUrl1});
  EXPECT_TRUE(
      AwaitAnswer("//d/late", [](const Answer& a) { return a.status == AnswerStatus::kFound; }));
}

TEST_F(ResolverTest, ServerDownIsUnavailableAtTheDeadlineAndNeverNotFound) {
  fake.Start();
  const std::string server = fake.server();
  fake.Stop();
  policy.deadline = milliseconds(150);
  Open({server});
  BootTime start = BootClock::now();
  EXPECT_EQ(Resolve("//d/a")->status, AnswerStatus::kUnavailable);
  EXPECT_GE(Since(start), milliseconds(149));
  EXPECT_EQ(resolver->LastError().code(), Code::kUnavailable);
  EXPECT_NE(resolver->LastError().message().find(server), std::string::npos);
}

TEST_F(ResolverTest, AServerThatRefusesTheStreamIsNotAskedBeforeItsRetryAfter) {
  policy.reconnect_least = milliseconds(1);
  policy.reconnect_most = seconds(30);
  fake.streams = {Code::kOverloaded, "500 new streams in this second"};
  fake.streams.set_retry_after(milliseconds(300));
  OpenOn(fake);
  ASSERT_TRUE(fake.Await([](const Seen& s) { return s.streams == 1; }));
  const BootTime start = BootClock::now();
  EXPECT_EQ(Resolve("//d/a", Within(milliseconds(100)))->status, AnswerStatus::kUnavailable);
  ASSERT_TRUE(fake.Await([](const Seen& s) { return s.streams >= 2; }));
  EXPECT_GE(Since(start), milliseconds(250));  // its clock began a little before ours
  EXPECT_EQ(resolver->LastError().code(), Code::kOverloaded);
  EXPECT_EQ(resolver->LastError().message(), "500 new streams in this second");
}

TEST_F(ResolverTest, FailureMemoFailsFastAndAConnectionClearsIt) {
  fake.Start();
  const std::string server = fake.server();
  fake.Stop();
  policy.deadline = milliseconds(100);
  policy.failure_memo_least = seconds(20);
  Open({server});
  EXPECT_EQ(Resolve("//d/a")->status, AnswerStatus::kUnavailable);
  // The load fails a moment after its first caller gave up.
  bool fast = false;
  for (int i = 0; i < 20 && !fast; i++) {
    const BootTime start = BootClock::now();
    EXPECT_EQ(Resolve("//d/a", Within(seconds(1)))->status, AnswerStatus::kUnavailable);
    fast = Since(start) < milliseconds(90);
  }
  EXPECT_TRUE(fast);
  fake.Set("//d/a", {kUrl1});
  fake.Start();
  EXPECT_TRUE(
      AwaitAnswer("//d/a", [](const Answer& a) { return a.status == AnswerStatus::kFound; }));
}

TEST_F(ResolverTest, AnswersThroughAnOutageAndCatchesUpAfterARestart) {
  fake.Set("//d/a", {kUrl1});
  fake.Set("//d/b", {kUrl1});
  OpenOn(fake);
  Resolve("//d/a");
  Resolve("//d/b");
  fake.Stop();
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.streams_lost == 1; }));
  EXPECT_EQ(Resolve("//d/a")->status, AnswerStatus::kFound);
  fake.SetQuietly("//d/a", {kUrl2});
  fake.Start();
  EXPECT_TRUE(
      AwaitAnswer("//d/a", [](const Answer& a) { return a.endpoints[0].url.text() == kUrl2; }));
  const Seen seen = fake.seen();
  ASSERT_EQ(seen.AddsOf("//d/b"), 2u);
  const auto again = std::find_if(seen.adds.rbegin(), seen.adds.rend(),
                                  [](const auto& add) { return add.address() == "//d/b"; });
  EXPECT_EQ(again->revision().number(), 12u);  // with what it holds
  EXPECT_EQ(again->hash(), fake.AnswerOf("//d/b").row().hash());
  EXPECT_EQ(resolver->Stats().streams_opened, 2u);
  EXPECT_EQ(resolver->Stats().failovers, 0u);
}

TEST_F(ResolverTest, ServesStaleAfterAShortWaitWhileAServerMayYetAnswer) {
  policy.positive_ttl = milliseconds(1);
  policy.stale_answer_after = milliseconds(50);
  fake.Set("//d/a", {kUrl1});
  OpenOn(fake);
  Resolve("//d/a");
  fake.Stop();
  FakeDirectory hangs;  // so that the resolver goes on hoping
  hangs.speaks = false;
  hangs.TakePortOf(fake);
  hangs.Start();
  ASSERT_TRUE(hangs.Await([](const Seen& s) { return s.streams >= 1; }));
  const BootTime start = BootClock::now();
  EXPECT_TRUE(AwaitStats([&](const ResolverStats& s) {
    EXPECT_EQ(Resolve("//d/a", Within(seconds(30)))->status, AnswerStatus::kFound);
    return s.stale_served > 0;
  }));
  EXPECT_GE(Since(start), policy.stale_answer_after - milliseconds(1));
  EXPECT_LT(Since(start), seconds(20));
}

TEST_F(ResolverTest, ServesStaleAtOnceWhenEveryServerIsDown) {
  policy.positive_ttl = milliseconds(1);
  policy.stale_answer_after = seconds(20);
  fake.Set("//d/a", {kUrl1});
  OpenOn(fake);
  Resolve("//d/a");
  fake.Stop();
  ASSERT_TRUE(AwaitStats([&](const ResolverStats&) {
    return resolver->LastError().message().find("refused") != std::string::npos;
  }));
  const BootTime start = BootClock::now();
  ASSERT_TRUE(AwaitStats([&](const ResolverStats& s) {
    EXPECT_EQ(Resolve("//d/a", Within(seconds(30)))->status, AnswerStatus::kFound);
    return s.stale_served >= 10;
  }));
  EXPECT_LT(Since(start), seconds(10));
}

TEST_F(ResolverTest, FailsOverToTheOtherServerAndKeepsWhatItHolds) {
  FakeDirectory other("c1", 100);
  fake.Set("//d/a", {kUrl1});
  other.Set("//d/a", {kUrl2});
  fake.Start();
  other.Start();
  Open({fake.server(), other.server()});
  Resolve("//d/a");
  const bool first = resolver->Stats().server == fake.server();
  FakeDirectory& used = first ? fake : other;
  FakeDirectory& spare = first ? other : fake;
  if (!first) fake.set_revision(200);
  used.Stop();
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.failovers == 1; }));
  EXPECT_EQ(resolver->Stats().server, spare.server());
  EXPECT_TRUE(AwaitAnswer("//d/a", [&](const Answer& a) {
    return a.endpoints[0].url.text() == (first ? kUrl2 : kUrl1);
  }));
}

// The end of a stream comes after all that was sent before it: what is not read hides it.
TEST_F(ResolverTest, AStreamThatEndsWhileBothSidesAreWritingIsSeenAtOnce) {
  OpenOn(fake);
  Resolve("//d/a");
  for (uint64_t round = 1; round <= 4; round++) {
    ASSERT_TRUE(AwaitStats([&](const ResolverStats& s) { return s.streams_opened == round; }));
    for (uint64_t i = 1; i <= 300; i++) {  // each is acknowledged
      fake.set_revision(1000 * round + i);
      fake.Mark();
    }
    fake.Stop();
    ASSERT_TRUE(AwaitStats([&](const ResolverStats& s) { return s.streams_lost == round; }));
    fake.Start();
  }
}

TEST_F(ResolverTest, NeverStepsBackToANodeThatIsBehind) {
  FakeDirectory other("c1", 5);  // far behind
  fake.set_revision(100);
  fake.Set("//d/a", {kUrl2});
  other.Set("//d/a", {kUrl1});
  OpenOn(fake);
  EXPECT_EQ(Resolve("//d/a")->revision.number, 101u);
  pb::SubscribeResponse late;
  *late.add_answers() = other.AnswerOf("//d/a");
  fake.Send(late);
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.refused == 1; }));
  EXPECT_EQ(Resolve("//d/a")->endpoints[0].url.text(), kUrl2);
  EXPECT_EQ(Resolve("//d/a")->revision.number, 101u);
}

TEST_F(ResolverTest, RefusesAnAnswerForAnAddressItDidNotAskFor) {
  OpenOn(fake);
  Resolve("//d/a");
  fake.SetQuietly("//d/other", {kUrl1});
  pb::SubscribeResponse unasked;
  *unasked.add_answers() = fake.AnswerOf("//d/other");
  unasked.add_answers()->set_address("no address at all");
  fake.Send(unasked);
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.refused == 2; }));
  EXPECT_EQ(resolver->Stats().entries, 1u);
  EXPECT_EQ(resolver->LastError().code(), Code::kCorrupt);
}

TEST_F(ResolverTest, AForeignClusterIsNotListenedTo) {
  fake.Set("//d/a", {kUrl1});
  OpenOn(fake);
  Resolve("//d/a");
  fake.Stop();
  FakeDirectory foreign("c2", 1000);
  foreign.Set("//d/a", {kUrl2});
  foreign.Set("//d/b", {kUrl2});
  // The same port, as after a wrong data directory.
  foreign.TakePortOf(fake);
  foreign.Start();
  ASSERT_TRUE(foreign.Await([](const Seen& s) { return s.streams >= 2; }));
  EXPECT_EQ(Resolve("//d/a")->endpoints[0].url.text(), kUrl1);
  EXPECT_EQ(Resolve("//d/b", Within(milliseconds(100)))->status, AnswerStatus::kUnavailable);
  EXPECT_EQ(resolver->LastError().code(), Code::kConflict);
  EXPECT_NE(resolver->LastError().message().find("c2"), std::string::npos);
  EXPECT_TRUE(foreign.seen().adds.empty());
}

TEST_F(ResolverTest, PassesByAServerThatAcceptsAndNeverAnswers) {
  policy.connect_timeout = milliseconds(100);
  SilentListener silent;
  fake.Set("//d/a", {kUrl1});
  fake.Start();
  Open({silent.server(), fake.server()});
  EXPECT_EQ(Resolve("//d/a", Within(seconds(5)))->status, AnswerStatus::kFound);
}

TEST_F(ResolverTest, PassesByAServerThatTakesTheStreamAndSaysNothing) {
  policy.connect_timeout = milliseconds(100);
  FakeDirectory mute;
  mute.speaks = false;
  mute.Start();
  fake.Set("//d/a", {kUrl1});
  fake.Start();
  Open({mute.server(), fake.server()});
  EXPECT_EQ(Resolve("//d/a", Within(seconds(5)))->status, AnswerStatus::kFound);
}

TEST_F(ResolverTest, AStreamThatFallsSilentIsDead) {
  policy.stream_silence = milliseconds(200);
  fake.Set("//d/a", {kUrl1});
  OpenOn(fake);
  Resolve("//d/a");
  EXPECT_TRUE(AwaitStats([](const ResolverStats& s) { return s.streams_lost >= 1; }));
  EXPECT_TRUE(fake.Await([](const Seen& s) { return s.streams >= 2; }));
  EXPECT_EQ(Resolve("//d/a")->status, AnswerStatus::kFound);
}

TEST_F(ResolverTest, AcknowledgesMarks) {
  OpenOn(fake);
  Resolve("//d/a");
  fake.set_revision(77);
  fake.Mark();
  EXPECT_TRUE(fake.Await([](const Seen& s) { return s.acknowledged == 77; }));
  EXPECT_EQ(Resolve("//d/a", Within(seconds(1), 77))->revision.number, 77u);
  EXPECT_EQ(fake.seen().unary, 0u);
}

TEST_F(ResolverTest, DropsWhatItEvicts) {
  policy.cache_entries = 10;
  OpenOn(fake);
  for (int i = 0; i < 30; i++) fake.SetQuietly("//d/" + std::to_string(i), {kUrl1});
  for (int i = 0; i < 30; i++) Resolve("//d/" + std::to_string(i));
  EXPECT_TRUE(fake.Await([](const Seen& s) { return s.drops.size() >= 20; }));
  EXPECT_LE(resolver->Stats().entries, 10u);
}

TEST_F(ResolverTest, ARefusedAddressIsUnavailableAtOnceWithItsReason) {
  fake.answers = false;
  OpenOn(fake);
  Told told;
  resolver->Resolve(A("//d/a"), Within(seconds(5)), told.callback());
  ASSERT_TRUE(fake.Await([](const Seen& s) { return s.AddsOf("//d/a") == 1; }));
  pb::SubscribeResponse response;
  auto* refused = response.add_refused();
  refused->set_address("//d/a");
  ToWire(Status(Code::kOverloaded, "100001 addresses, at most 100000"), refused->mutable_refusal());
  fake.Send(response);
  ASSERT_TRUE(told.Await(1));
  EXPECT_EQ(told.at(0)->status, AnswerStatus::kUnavailable);
  EXPECT_EQ(resolver->LastError().code(), Code::kOverloaded);
}

TEST_F(ResolverTest, MinRevisionIsAskedOfTheNextServerWhenOneIsBehind) {
  FakeDirectory other("c1", 10);
  fake.Set("//d/a", {kUrl1});
  other.Set("//d/a", {kUrl1});
  fake.Start();
  other.Start();
  Open({fake.server(), other.server()});
  Resolve("//d/a");
  FakeDirectory& ahead = resolver->Stats().server == fake.server() ? other : fake;
  FakeDirectory& behind = &ahead == &fake ? other : fake;
  ahead.SetQuietly("//d/a", {kUrl2});
  const auto answer = Resolve("//d/a", Within(seconds(4), 12));
  EXPECT_EQ(answer->revision.number, 12u);
  EXPECT_EQ(answer->endpoints[0].url.text(), kUrl2);
  EXPECT_EQ(behind.seen().unary, 1u);
  EXPECT_EQ(ahead.seen().unary, 1u);
}

TEST_F(ResolverTest, MinRevisionThatNobodyReachesIsUnavailableNeverOlder) {
  fake.Set("//d/a", {kUrl1});
  OpenOn(fake);
  Resolve("//d/a");
  const BootTime start = BootClock::now();
  EXPECT_EQ(Resolve("//d/a", Within(milliseconds(200), 99))->status, AnswerStatus::kUnavailable);
  EXPECT_GE(Since(start), milliseconds(199));
  EXPECT_EQ(Resolve("//d/a")->status, AnswerStatus::kFound);
  EXPECT_EQ(resolver->LastError().code(), Code::kBehind);
}

TEST_F(ResolverTest, SubscriptionIsToldThePresentAndEachNewerAnswer) {
  fake.Set("//d/a", {kUrl1});
  OpenOn(fake);
  Resolve("//d/a");
  Told told;
  auto subscription = resolver->Subscribe(A("//d/a"), told.callback());
  ASSERT_TRUE(told.Await(1));
  fake.Set("//d/a", {kUrl2});
  ASSERT_TRUE(told.Await(2));
  EXPECT_EQ(told.at(0)->endpoints[0].url.text(), kUrl1);
  EXPECT_EQ(told.at(1)->endpoints[0].url.text(), kUrl2);
  fake.Forget("//d/a");
  ASSERT_TRUE(told.Await(3));
  EXPECT_EQ(told.at(2)->status, AnswerStatus::kNotFound);
  subscription.reset();
  fake.Set("//d/a", {kUrl1});
  ASSERT_TRUE(
      AwaitAnswer("//d/a", [](const Answer& a) { return a.status == AnswerStatus::kFound; }));
  EXPECT_EQ(told.size(), 3u);
}

TEST_F(ResolverTest, SubscriptionIsToldWhenNothingIsKnownByTheDeadlineThenWhatIs) {
  policy.deadline = milliseconds(50);
  fake.Start();
  fake.Stop();
  Open({fake.server()});
  Told told;
  auto subscription = resolver->Subscribe(A("//d/a"), told.callback());
  ASSERT_TRUE(told.Await(1));
  EXPECT_EQ(told.at(0)->status, AnswerStatus::kUnavailable);
  fake.Set("//d/a", {kUrl1});
  fake.Start();
  ASSERT_TRUE(told.Await(2));
  EXPECT_EQ(told.at(1)->status, AnswerStatus::kFound);
}

TEST_F(ResolverTest, SubscriptionMayEndInsideItsOwnCallback) {
  OpenOn(fake);
  std::unique_ptr<Resolver::Subscription> subscription;
  std::mutex mutex;
  std::atomic<int> calls{0};
  {
    std::lock_guard lock(mutex);
    subscription = resolver->Subscribe(A("//d/a"), [&](const Resolver::AnswerPtr&) {
      std::lock_guard inner(mutex);
      subscription.reset();
      calls++;
    });
  }
  ASSERT_TRUE(AwaitStats([&](const ResolverStats&) { return calls == 1; }));
  fake.Set("//d/a", {kUrl1});
  ASSERT_TRUE(
      AwaitAnswer("//d/a", [](const Answer& a) { return a.status == AnswerStatus::kFound; }));
  EXPECT_EQ(calls, 1);
}

TEST_F(ResolverTest, EndingASubscriptionWaitsForTheCallInProgress) {
  OpenOn(fake);
  std::atomic<bool> entered{false}, released{false}, left{false};
  auto subscription = resolver->Subscribe(A("//d/a"), [&](const Resolver::AnswerPtr&) {
    entered = true;
    while (!released) std::this_thread::yield();
    left = true;
  });
  ASSERT_TRUE(AwaitStats([&](const ResolverStats&) { return entered.load(); }));
  std::thread releases([&] { released = true; });
  subscription.reset();
  EXPECT_TRUE(left);
  releases.join();
}

TEST_F(ResolverTest, ACallbackThatBlocksDelaysNoOtherCallersDeadline) {
  OpenOn(fake);
  std::atomic<bool> entered{false}, released{false};
  resolver->Resolve(A("//d/a"), {}, [&](const Resolver::AnswerPtr&) {
    entered = true;
    while (!released) std::this_thread::yield();
  });
  ASSERT_TRUE(AwaitStats([&](const ResolverStats&) { return entered.load(); }));
  const BootTime start = BootClock::now();
  EXPECT_EQ(Resolve("//d/b", Within(milliseconds(50)))->status, AnswerStatus::kUnavailable);
  EXPECT_LT(Since(start), seconds(2));
  released = true;
  resolver.reset();  // the callback reads this frame
}

TEST_F(ResolverTest, ResolveInsideACallbackDoesNotWait) {
  OpenOn(fake);
  Told told;
  resolver->Resolve(A("//d/a"), {}, [&](const Resolver::AnswerPtr&) {
    told.callback()(resolver->Resolve(A("//d/a")));  // a hit
    told.callback()(resolver->Resolve(A("//d/b")));  // would wait for this very thread
  });
  ASSERT_TRUE(told.Await(2));
  EXPECT_EQ(told.at(0)->status, AnswerStatus::kNotFound);
  EXPECT_EQ(told.at(1)->status, AnswerStatus::kUnavailable);
}

TEST_F(ResolverTest, DestructionEndsCallsInProgress) {
  fake.answers = false;
  OpenOn(fake);
  Told told;
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; i++)
    callers.emplace_back(
        [&, i] { told.callback()(Resolve("//d/" + std::to_string(i % 2), Within(seconds(30)))); });
  for (int i = 0; i < 4; i++) resolver->Resolve(A("//d/x"), Within(seconds(30)), told.callback());
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.misses + s.coalesced == 8; }));
  const BootTime start = BootClock::now();
  std::thread destroys([r = std::move(resolver)]() mutable { r.reset(); });
  ASSERT_TRUE(told.Await(8));
  destroys.join();
  for (auto& caller : callers) caller.join();
  EXPECT_LT(Since(start), seconds(3));
  for (size_t i = 0; i < 8; i++) EXPECT_EQ(told.at(i)->status, AnswerStatus::kUnavailable);
}

TEST_F(ResolverTest, ManyThreadsPushesAndRestartsAtOnce) {
  for (int i = 0; i < 50; i++) fake.Set("//d/" + std::to_string(i), {kUrl1});
  OpenOn(fake);
  // Else the first restart may come before there is a stream to lose.
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.streams_opened == 1; }));
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0}, right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; t++)
    threads.emplace_back([&, t] {
      std::map<int, Revision> last;
      for (int i = t; !stop; i++) {
        const auto answer = Resolve("//d/" + std::to_string(i % 50), Within(seconds(5)));
        if (answer->status != AnswerStatus::kFound || answer->revision < last[i % 50]) wrong++;
        last[i % 50] = answer->revision;
        right++;
      }
    });
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 50; i++) fake.Set("//d/" + std::to_string(i), {round % 2 ? kUrl1 : kUrl2});
    fake.Mark();
    fake.Stop();
    fake.Start();
    const uint64_t streams = static_cast<uint64_t>(round) + 2;
    EXPECT_TRUE(AwaitStats([&](const ResolverStats& s) { return s.streams_opened >= streams; }));
  }
  EXPECT_TRUE(AwaitStats([&](const ResolverStats&) { return right > 1000; }));
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
}

TEST(ResolverOptionsTest, RefusesWhatDoesNotParseWithTheValue) {
  for (const char* bad : {"nonsense", "host:0", "host:70000"}) {
    const auto opened = Resolver::Open({.directory = {bad}, .policy = {}});
    ASSERT_FALSE(opened.ok()) << bad;
    EXPECT_EQ(opened.status().code(), Code::kInvalid);
    EXPECT_NE(opened.status().message().find(bad), std::string::npos);
  }
  ResolverPolicy policy;
  policy.max_stale = std::chrono::hours(73);
  EXPECT_FALSE(Resolver::Open({.directory = {"127.0.0.1:1"}, .policy = policy}).ok());
}

TEST_F(ResolverTest, ALookUpThatItsServerOwesIsAnsweredByAnotherWhichIsThenKept) {
  FakeDirectory one, two;
  for (FakeDirectory* fake : {&one, &two}) {
    fake->Start();
    fake->Set("//d/warm", {kUrl1});
    fake->Set("//d/cold", {kUrl2});
  }
  ResolverOptions options;
  options.directory = {one.server(), two.server()};
  auto resolver = Resolver::Open(options).value();
  ASSERT_EQ(resolver->Resolve(A("//d/warm"), Within(seconds(20)))->status, AnswerStatus::kFound);
  FakeDirectory& used = resolver->Stats().server == one.server() ? one : two;
  used.answers = used.confirms = false;
  const BootTime start = BootClock::now();
  const auto cold = resolver->Resolve(A("//d/cold"), Within(seconds(2)));
  ASSERT_EQ(cold->status, AnswerStatus::kFound) << resolver->LastError().message();
  EXPECT_EQ(cold->endpoints.at(0).url.text(), kUrl2);
  EXPECT_GE(Since(start), milliseconds(250));
  // Its marks stay away, too, and another is known to work: it is left before its 10 s are over.
  FakeDirectory& other = &used == &one ? two : one;
  EXPECT_TRUE(other.Await([](const Seen& seen) { return seen.streams > 0; }));
  EXPECT_LT(Since(start), seconds(8));
}

}  // namespace
}  // namespace datawire
