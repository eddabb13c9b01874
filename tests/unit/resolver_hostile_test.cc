// A directory that lies, floods or says nothing: what it sends is discarded or bounded, and
// counted, and the application keeps its last good answer.

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <sstream>
#include <thread>

#include "datawire/clock.h"
#include "datawire/resolver.h"
#include "fake_directory.h"

namespace datawire {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeDirectory;
using Seen = FakeDirectory::Seen;

const char kGood[] = "amqp://127.0.0.1:1001";
const char kEvil[] = "amqp://127.0.0.1:6666";

Address A(std::string_view text) {
  return Address::Parse(text).value();
}

class ResolverHostile : public ::testing::Test {
 protected:
  ResolverHostile() {
    policy.reconnect_least = milliseconds(5);
    policy.reconnect_most = milliseconds(50);
  }
  // //d/a is known and good, on a live stream.
  void Warm() {
    fake.Set("//d/a", {kGood});
    fake.Start();
    auto opened = Resolver::Open({.directory = {fake.server()},
                                  .policy = policy,
                                  .observer = [this](const ResolverEvent& event) {
                                    if (event.kind == ResolverEvent::Kind::kCorrupt) corrupt++;
                                    if (event.kind == ResolverEvent::Kind::kForeign) foreign++;
                                  }});
    ASSERT_TRUE(opened.ok());
    resolver = std::move(opened).value();
    ASSERT_EQ(resolver->Resolve(A("//d/a"), {.deadline = seconds(20)})->status,
              AnswerStatus::kFound);
  }
  void KeepsItsAnswer() {
    const auto answer = resolver->Resolve(A("//d/a"));
    ASSERT_EQ(answer->status, AnswerStatus::kFound);
    ASSERT_EQ(answer->endpoints.size(), 1u);
    EXPECT_EQ(answer->endpoints[0].url.text(), kGood);
  }
  bool AwaitStats(const std::function<bool(const ResolverStats&)>& condition) {
    const BootTime start = BootClock::now();
    while (BootClock::now() - start < seconds(20)) {
      if (condition(resolver->Stats())) return true;
      std::this_thread::yield();
    }
    return false;
  }
  // An answer for //d/a, newer than what is held, bent by the test.
  pb::SubscribeResponse Newer(const std::function<void(pb::Answer&)>& bend) {
    pb::SubscribeResponse response;
    pb::Answer answer = fake.AnswerOf("//d/a");
    answer.mutable_revision()->set_number(1000);
    answer.mutable_row()->mutable_endpoints(0)->set_url(kEvil);
    answer.mutable_row()->set_hash(666);
    bend(answer);
    *response.add_answers() = answer;
    return response;
  }
  void IsRefused(const std::function<void(pb::Answer&)>& bend, bool corrupt_too) {
    Warm();
    fake.Send(Newer(bend));
    ASSERT_TRUE(AwaitStats([&](const ResolverStats& s) {
      return s.refused >= 1 && (!corrupt_too || (s.corrupt >= 1 && corrupt >= 1));
    }));
    EXPECT_EQ(resolver->Stats().corrupt, corrupt_too ? 1u : 0u);
    EXPECT_EQ(corrupt, corrupt_too ? 1 : 0);
    EXPECT_EQ(resolver->Stats().entries, 1u);
    KeepsItsAnswer();
  }
  // The stream that said this is left, and what is held stays.
  void IsLeft(const std::function<void(pb::Answer&)>& bend) {
    Warm();
    fake.answers = false;
    fake.Send(Newer(bend));
    ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.streams_lost >= 1; }));
    KeepsItsAnswer();
  }

  std::atomic<int> corrupt{0}, foreign{0};
  ResolverPolicy policy;
  FakeDirectory fake;
  std::unique_ptr<Resolver> resolver;
};

TEST_F(ResolverHostile, AnAnswerForAnotherAddress) {
  IsRefused([](pb::Answer& a) { a.set_address("//d/other"), a.set_matched("//d/other"); }, false);
}

TEST_F(ResolverHostile, ALowerRevision) {
  IsRefused([](pb::Answer& a) { a.mutable_revision()->set_number(1); }, false);
}

TEST_F(ResolverHostile, NoRevision) {
  IsRefused([](pb::Answer& a) { a.clear_revision(); }, false);
}

TEST_F(ResolverHostile, AnOlderEpoch) {
  IsRefused([](pb::Answer& a) { a.mutable_revision()->set_epoch(0); }, false);
}

TEST_F(ResolverHostile, NoAddress) {
  IsRefused([](pb::Answer& a) { a.clear_address(); }, true);
}

TEST_F(ResolverHostile, AnAddressThatIsNone) {
  IsRefused([](pb::Answer& a) { a.set_address("amqp://d:5672/../a?x"); }, true);
}

TEST_F(ResolverHostile, MatchedByWhatIsNoAncestor) {
  IsRefused([](pb::Answer& a) { a.set_matched("//evil/a"); }, true);
}

TEST_F(ResolverHostile, MoreEndpointsThanAnAnswerHolds) {
  IsRefused(
      [](pb::Answer& a) {
        for (int i = 0; i < 256; i++) *a.mutable_row()->add_endpoints() = a.row().endpoints(0);
      },
      true);
}

TEST_F(ResolverHostile, AnAbsurdTtl) {
  IsRefused([](pb::Answer& a) { a.set_ttl_ms(std::numeric_limits<uint64_t>::max()); }, true);
}

TEST_F(ResolverHostile, AnAgeFromTheFuture) {
  IsRefused([](pb::Answer& a) { a.set_age_ms(std::numeric_limits<uint64_t>::max()); }, true);
}

TEST_F(ResolverHostile, AnUnknownStatus) {
  IsRefused([](pb::Answer& a) { a.mutable_row()->set_status(static_cast<pb::AnswerStatus>(77)); },
            true);
}

TEST_F(ResolverHostile, AnUnknownPolicy) {
  IsRefused([](pb::Answer& a) { a.mutable_row()->set_policy(static_cast<pb::Policy>(77)); }, true);
}

TEST_F(ResolverHostile, AnEndpointThatDoesNotParse) {
  IsRefused([](pb::Answer& a) { a.mutable_row()->mutable_endpoints(0)->set_url("gopher://x"); },
            true);
}

TEST_F(ResolverHostile, FoundWithoutAnEndpoint) {
  IsRefused([](pb::Answer& a) { a.mutable_row()->clear_endpoints(); }, true);
}

TEST_F(ResolverHostile, NotFoundWithEndpoints) {
  IsRefused([](pb::Answer& a) { a.mutable_row()->set_status(pb::ANSWER_STATUS_NOT_FOUND); }, true);
}

TEST_F(ResolverHostile, AnAnswerThatDoesNotKnowIsNoAnswer) {
  Warm();
  fake.Send(Newer([](pb::Answer& a) { a.clear_row(); }));
  ASSERT_TRUE(AwaitStats([&](const ResolverStats&) { return !resolver->LastError().ok(); }));
  KeepsItsAnswer();
}

TEST_F(ResolverHostile, AMillionEndpoints) {
  IsLeft([](pb::Answer& a) {
    for (int i = 0; i < 1'000'000; i++) a.mutable_row()->add_endpoints()->set_url("amqp://a:1");
  });
}

TEST_F(ResolverHostile, AMessageOfManyMegabytes) {
  IsLeft([](pb::Answer& a) {
    a.mutable_row()->mutable_endpoints(0)->set_region(std::string(8 << 20, 'x'));
  });
}

TEST_F(ResolverHostile, AnUnsolicitedFloodTakesNoRoom) {
  Warm();
  for (int message = 0; message < 20; message++) {
    pb::SubscribeResponse response;
    for (int i = 0; i < 500; i++) {
      const std::string address = "//d/evil" + std::to_string(message * 500 + i);
      pb::Answer answer = fake.AnswerOf("//d/a");
      answer.set_address(address);
      answer.set_matched(address);
      *response.add_answers() = answer;
    }
    fake.Send(response);
  }
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.refused >= 10'000; }));
  EXPECT_EQ(resolver->Stats().entries, 1u);
  KeepsItsAnswer();
}

TEST_F(ResolverHostile, AnEndlessStreamOfNoughtDelaysNoCaller) {
  Warm();
  std::atomic<bool> stop{false};
  std::thread floods([&] {
    for (int i = 0; i < 20'000 && !stop; i++) fake.Send(pb::SubscribeResponse());
  });
  for (int i = 0; i < 50; i++) {
    const BootTime start = BootClock::now();
    EXPECT_EQ(resolver->Resolve(A("//d/" + std::to_string(i)), {.deadline = seconds(10)})->status,
              AnswerStatus::kNotFound);
    EXPECT_LT(BootClock::now() - start, seconds(10));
  }
  stop = true;
  floods.join();
  KeepsItsAnswer();
}

TEST_F(ResolverHostile, ConfirmsWhatNobodyHoldsAndWhatIsOlder) {
  Warm();
  pb::SubscribeResponse response;
  for (const char* text : {"//d/other", "nonsense", "", "//d/a"}) response.add_confirmed(text);
  ToWire(Revision{1, 2}, response.mutable_confirmed_at());
  fake.Send(response);
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.refused == 4; }));
  EXPECT_EQ(resolver->Resolve(A("//d/a"))->revision.number, 11u);
}

TEST_F(ResolverHostile, RefusesWhatNobodyAskedForAndWhatIsHeld) {
  Warm();
  pb::SubscribeResponse response;
  for (const char* text : {"//d/other", "nonsense", "//d/a"})
    response.add_refused()->set_address(text);
  fake.Send(response);
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.refused >= 2; }));
  KeepsItsAnswer();
}

TEST_F(ResolverHostile, AMarkThatGoesBackOrSaysNothing) {
  Warm();
  fake.set_revision(50);
  fake.Mark();
  ASSERT_TRUE(fake.Await([](const Seen& s) { return s.acknowledged == 50; }));
  pb::SubscribeResponse empty;
  empty.mutable_mark();
  fake.Send(empty);
  fake.set_revision(20);
  fake.Mark();
  fake.Send(Newer([](pb::Answer& a) { a.mutable_revision()->set_number(30); }));  // under the 50
  ASSERT_TRUE(AwaitStats([](const ResolverStats& s) { return s.refused == 1; }));
  KeepsItsAnswer();
}

TEST_F(ResolverHostile, AMarkOfAnAbsurdAgeMakesNothingOlderThanItIs) {
  Warm();
  fake.Mark(std::numeric_limits<uint64_t>::max());
  fake.set_revision(60);
  fake.Mark(std::numeric_limits<uint64_t>::max());
  ASSERT_TRUE(fake.Await([](const Seen& s) { return s.acknowledged == 60; }));
  EXPECT_FALSE(resolver->Resolve(A("//d/a"))->stale);
  KeepsItsAnswer();
}

TEST_F(ResolverHostile, AFirstMessageThatDoesNotSayWhoSpeaks) {
  Warm();
  fake.Stop();
  FakeDirectory nobody("", 1000);
  nobody.TakePortOf(fake);
  nobody.Set("//d/a", {kEvil});
  nobody.Start();
  ASSERT_TRUE(AwaitStats([&](const ResolverStats& s) { return s.corrupt >= 1 && corrupt >= 1; }));
  EXPECT_TRUE(nobody.seen().adds.empty());
  KeepsItsAnswer();
}

TEST_F(ResolverHostile, AnotherClusterIsToldToTheObserver) {
  Warm();
  fake.Stop();
  FakeDirectory other("c2", 1000);
  other.TakePortOf(fake);
  other.Set("//d/a", {kEvil});
  other.Start();
  ASSERT_TRUE(AwaitStats([&](const ResolverStats& s) { return s.foreign >= 1 && foreign >= 1; }));
  KeepsItsAnswer();
}

TEST_F(ResolverHostile, AServerThatTakesTheStreamAndSaysNothingIsLeftAndTriedAtAPace) {
  policy.connect_timeout = milliseconds(50);
  policy.deadline = milliseconds(300);
  fake.speaks = false;
  fake.Start();
  auto opened = Resolver::Open({.directory = {fake.server()}, .policy = policy});
  ASSERT_TRUE(opened.ok());
  resolver = std::move(opened).value();
  const BootTime start = BootClock::now();
  EXPECT_EQ(resolver->Resolve(A("//d/a"))->status, AnswerStatus::kUnavailable);
  ASSERT_TRUE(fake.Await([](const Seen& s) { return s.streams >= 8; }));
  // Three tokens at first, then three a second (P26), whatever the reconnects would like.
  EXPECT_GE(BootClock::now() - start, milliseconds(1200));
  EXPECT_GE(resolver->Stats().retries, 7u);
}

TEST_F(ResolverHostile, ItsWordsCannotBreakTheLinesOfTheState) {
  Warm();
  fake.Stop();
  fake.streams = {Code::kDenied, "a \"quote\"\n\x01 and a \\"};
  fake.Start();
  ASSERT_TRUE(AwaitStats([&](const ResolverStats&) {
    return resolver->LastError().message().find("quote") != std::string::npos;
  }));
  std::ostringstream out;
  resolver->WriteState(out);
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_NE(text.find("a \\\"quote\\\"?? and a \\\\"), std::string::npos) << text;
  EXPECT_NE(text.find("{\"address\": \"//d/a\", \"state\": \"FRESH\", \"status\": \"FOUND\""),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace datawire
