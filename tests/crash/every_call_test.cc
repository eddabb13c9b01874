#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <cstdlib>
#include <future>
#include <iostream>
#include <random>

#include "directory_fixture.h"
#include "node.h"
#include "store_check.h"
#include "view/reading.h"

namespace datawire::directory {
namespace {

using Events = std::vector<std::pair<Revision, std::string>>;

/// Up to here the history is gone.
Revision FloorOf(View& view) {
  const auto stored = Reading{&view.db(), nullptr, nullptr}.Get(keys::kHistoryFloor).value();
  return {1, stored ? DecodeFloor(*stored).value().revision : 0};
}

/// All of the history that a store still has.
Events HistoryOf(View& view) {
  Revision after = FloorOf(view);
  Events out;
  while (true) {
    const auto some = view.History(after, 1 << 20);
    EXPECT_TRUE(some.ok()) << some.status().ToString();
    if (!some.ok() || some->empty()) return out;
    out.insert(out.end(), some->begin(), some->end());
    after = out.back().first;
  }
}

/// One run of a node through what it does to its disc, in simulated time. After each step it is
/// noted what the store holds, and how many calls the disc had when that was acknowledged.
class EveryCallTest : public ::testing::Test {
 protected:
  void Note() {
    const Revision at = node_.view().Applied();
    const uint64_t calls = node_.disc().calls();
    if (acknowledged_.empty() || acknowledged_.back().second < at)
      acknowledged_.emplace_back(calls, at);
    if (stores_.contains(at)) return;
    stores_[at] = Dump(node_.view());
    for (auto& [revision, events] : HistoryOf(node_.view())) events_[revision] = events;
  }
  void Start() {
    ASSERT_TRUE(node_.Start(now_).ok());
    Note();
  }
  void Settle() {
    for (int i = 0; i < 3; ++i) {
      std::promise<void> done;
      node_.log().ReadBarrier(BootClock::now() + 20s, [&](Result<Revision>) { done.set_value(); });
      done.get_future().wait();
    }
  }
  void Pass(BootClock::duration span, BootClock::duration step) {
    for (const BootTime end = now_ + span; now_ < end;) {
      now_ += step;
      node_.directory().Tick(now_);
      Settle();
      Note();
    }
  }
  Code Register(const std::string& prefix, int count, bool subtree = false) {
    pb::RegisterRequest request;
    for (int i = 0; i < count; ++i) {
      auto* registration = request.add_registrations();
      registration->set_address(prefix + std::to_string(i));
      registration->mutable_endpoint()->set_url("amqp://127.0.0.1:5672");
      if (subtree) registration->mutable_endpoint()->set_match(pb::MATCH_SUBTREE);
    }
    std::promise<Code> code;
    node_.directory().Register(request, {"127.0.0.1:9", ""}, [&](auto result) {
      code.set_value(result.ok() ? Code::kOk : result.status().code());
    });
    const Code out = code.get_future().get();
    Note();
    return out;
  }
  Code Withdraw(const std::string& address) {
    pb::WithdrawRequest request;
    request.add_withdrawals()->set_address(address);
    std::promise<Code> code;
    node_.directory().Withdraw(request, {"127.0.0.1:9", ""}, [&](auto result) {
      code.set_value(result.ok() ? Code::kOk : result.status().code());
    });
    const Code out = code.get_future().get();
    Note();
    return out;
  }
  void Reopen() {
    node_.Stop();
    Start();
  }

  void Sessions();
  void Run();
  void CheckAfter(uint64_t calls, std::mt19937_64* torn);

  CrashFolder folder_;
  BootTime now_ = BootClock::now();
  Node node_{folder_ / "node"};
  std::vector<std::pair<uint64_t, Revision>> acknowledged_;  // by then
  std::map<Revision, std::map<std::string, std::string>> stores_;
  std::map<Revision, std::string> events_;
  size_t compared_ = 0, checked_ = 0;
};

void EveryCallTest::Sessions() {
  TestTether stays(node_.directory()), leaves(node_.directory());
  stays.Hello();
  leaves.Hello();
  Note();
  stays.Register(1, "//s/stays", "amqp://127.0.0.1:1", /*subtree=*/true);
  Note();
  leaves.Register(1, "//s/leaves", "amqp://127.0.0.1:2");
  Note();
  leaves.Register(2, "//s/stays", "amqp://127.0.0.1:2");
  Note();
  stays.Register(2, "//s/withdrawn", "amqp://127.0.0.1:1");
  Note();
  stays.Withdraw(3, "//s/withdrawn", "amqp://127.0.0.1:1");
  Note();
  leaves.Bye();
  Note();
}

void EveryCallTest::Run() {
  Start();
  ASSERT_EQ(Register("//a/", 3), Code::kOk);
  ASSERT_EQ(Register("//call/", 50, /*subtree=*/true), Code::kOk);
  ASSERT_EQ(Withdraw("//a/1"), Code::kOk);
  Sessions();
  ASSERT_TRUE(node_.view().db().Flush({}).ok());
  ASSERT_EQ(Register("//flushed/", 2), Code::kOk);
  Reopen();
  ASSERT_EQ(Register("//reopened/", 2), Code::kOk);
  // The session that stayed expires, its last endpoint is kept; then all that is due is swept.
  Pass(80s, 500ms);
  Pass(12min, 10s);
  ASSERT_EQ(Withdraw("//a/2"), Code::kOk);

  node_.disc().SetFree(0);
  ASSERT_EQ(Register("//full/", 1), Code::kOverloaded);
  ASSERT_EQ(Withdraw("//call/7"), Code::kOk);
  node_.disc().SetFree(1ull << 40);
  ASSERT_EQ(Register("//not-full/", 3), Code::kOk);

  node_.disc().FailSync(1);
  ASSERT_EQ(Register("//failed/", 1), Code::kOutcomeUnknown);
  ASSERT_EQ(Register("//failed/", 2), Code::kUnavailable);
  Reopen();
  ASSERT_EQ(Register("//after-failure/", 2), Code::kOk);
  // Compactions go on in the background and would meet a full disc first: they come last.
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(Register("//more" + std::to_string(i) + "/", 2), Code::kOk);
    Reopen();
  }
  ASSERT_TRUE(node_.view().db().CompactRange({}, nullptr, nullptr).ok());
  ASSERT_EQ(Withdraw("//more1/1"), Code::kOk);
  node_.Stop();
}

void EveryCallTest::CheckAfter(uint64_t calls, std::mt19937_64* torn) {
  SCOPED_TRACE("power lost after call " + std::to_string(calls) + (torn ? ", torn" : ""));
  const std::string folder = folder_ / "cut";
  node_.disc().WriteAsAfterPowerLoss(calls, torn, folder);
  Node cut(folder);
  const Status opened = cut.Start(now_);
  ASSERT_TRUE(opened.ok()) << opened.ToString();
  ++checked_;
  Revision least;
  for (const auto& [then, at] : acknowledged_)
    if (then <= calls) least = at;
  const Revision applied = cut.view().Applied();
  EXPECT_GE(applied, least) << "something acknowledged is lost";
  EXPECT_EQ(Contradictions(cut.view()), std::vector<std::string>());
  if (const auto store = stores_.find(applied); store != stores_.end()) {
    ++compared_;
    auto now = Dump(cut.view());
    auto then = store->second;
    if (least == Revision{}) {  // made anew: the time of its creation differs
      now.erase(keys::kAuthority);
      then.erase(keys::kAuthority);
    }
    EXPECT_TRUE(now == then) << "not the store that was at " << applied.ToString();
  }
  const Events history = HistoryOf(cut.view());
  Events expected;
  for (const auto& [at, events] : events_)
    if (at > FloorOf(cut.view()) && at <= applied) expected.emplace_back(at, events);
  EXPECT_TRUE(history == expected) << "the history is not the one up to " << applied.ToString();
}

TEST_F(EveryCallTest, APowerCutAfterEachCallOfARunLeavesTheStoreOfOneOfItsRevisions) {
  Run();
  ASSERT_FALSE(HasFatalFailure());
  const char* set = std::getenv("CRASH_SEED");
  const uint64_t seed = set != nullptr ? std::strtoull(set, nullptr, 10) : std::random_device{}();
  std::cout << "CRASH_SEED=" << seed << std::endl;
  std::mt19937_64 random(seed);
  const uint64_t calls = node_.disc().calls();
  for (uint64_t call = 0; call <= calls; ++call) {
    CheckAfter(call, nullptr);
    CheckAfter(call, &random);
    if (HasFailure()) break;
  }
  std::cout << calls << " calls, " << acknowledged_.size() << " revisions noted, " << checked_
            << " stores checked, " << compared_ << " of them compared whole\n";
  EXPECT_GT(calls, 200u);
  EXPECT_GT(compared_, checked_ * 9 / 10);
}

}  // namespace
}  // namespace datawire::directory
