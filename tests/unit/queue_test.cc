#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <filesystem>

#include "queue_core.h"
#include "queue_store.h"

namespace datawire::intermediaries {
namespace {

using namespace std::chrono_literals;
using Fate = QueueCore::Fate;
using Kind = Verdict::Kind;

class QueueCoreTest : public testing::Test {
 protected:
  uint64_t Take() {
    core_.Wake(now_);
    const auto next = core_.Take();
    return next ? next->number : 0;
  }
  Fate Settle(uint64_t number, Kind kind) { return core_.Settled(number, {kind, "", ""}, now_); }

  QueueCore core_{{.tries = 3}};
  BootTime now_{1000s};
};

TEST_F(QueueCoreTest, GoesOutInTheOrderThatItCameAndOnce) {
  for (uint64_t i = 1; i <= 3; ++i) core_.Add(i, 0);
  EXPECT_EQ(Take(), 1u);
  EXPECT_EQ(Take(), 2u);
  EXPECT_EQ(Settle(1, Kind::kAccepted), Fate::kDone);
  EXPECT_EQ(Settle(1, Kind::kAccepted), Fate::kWaits) << "settled already";
  EXPECT_EQ(Take(), 3u);
  EXPECT_EQ(Take(), 0u);
  EXPECT_EQ(core_.depth(), 2u);
  EXPECT_EQ(core_.out(), 2u);
}

TEST_F(QueueCoreTest, WhatADeadConsumerHadIsNextWithOneDeliveryMore) {
  core_.Add(1, 0);
  core_.Add(2, 0);
  Take();
  EXPECT_EQ(Settle(1, Kind::kLost), Fate::kWaits);
  const auto next = core_.Take();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->number, 1u);
  EXPECT_EQ(next->deliveries, 1u);
}

TEST_F(QueueCoreTest, WhatIsGivenBackWaitsAGrowingWhileAndCountsNoTry) {
  core_.Add(1, 0);
  for (const auto pause : {50ms, 100ms, 200ms, 400ms, 800ms, 1000ms, 1000ms}) {
    core_.Wake(now_);
    EXPECT_FALSE(core_.NextWake()) << "there is nothing to wait for, also without a consumer";
    const auto next = core_.Take();
    ASSERT_TRUE(next);
    EXPECT_EQ(next->deliveries, 0u);
    EXPECT_EQ(Settle(1, Kind::kReleased), Fate::kWaits);
    EXPECT_EQ(Take(), 0u);
    EXPECT_EQ(core_.NextWake(), now_ + pause);
    now_ += pause;
  }
}

TEST_F(QueueCoreTest, FailedTooOftenOrRejectedIsDead) {
  core_.Add(1, 0);
  core_.Add(2, 0);
  Take();
  Take();
  EXPECT_EQ(Settle(2, Kind::kRejected), Fate::kDead);
  for (const Fate fate : {Fate::kWaits, Fate::kWaits, Fate::kDead}) {
    EXPECT_EQ(Settle(1, Kind::kFailed), fate);
    now_ += 10s;
    if (fate == Fate::kWaits) {
      EXPECT_EQ(Take(), 1u);
    }
  }
  EXPECT_EQ(core_.depth(), 2u) << "until they are buried";
  core_.Buried(1);
  core_.Back(2, now_);
  EXPECT_EQ(core_.depth(), 1u);
  now_ += 1s;
  EXPECT_EQ(Take(), 2u) << "nobody took it as a dead letter";
}

TEST_F(QueueCoreTest, WhatExpiresIsDeadUnlessAConsumerHasIt) {
  core_.Add(1, 0, now_ + 1s);
  core_.Add(2, 0, now_ + 1s);
  core_.Add(3, 0);
  EXPECT_EQ(Take(), 1u);
  EXPECT_EQ(core_.NextWake(), now_ + 1s);
  EXPECT_FALSE(core_.TakeExpired(now_));
  now_ += 1s;
  EXPECT_EQ(core_.TakeExpired(now_), 2u);
  EXPECT_FALSE(core_.TakeExpired(now_));
  EXPECT_EQ(Settle(1, Kind::kLost), Fate::kWaits);
  EXPECT_EQ(core_.TakeExpired(now_), 1u) << "given back too late";
  EXPECT_EQ(Take(), 3u);
}

class QueueStoreTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::vector<uint64_t> Loaded(QueueStore& store) {
    std::vector<uint64_t> numbers;
    EXPECT_TRUE(store.Load([&](uint64_t n, const auto&) { numbers.push_back(n); }).ok());
    return numbers;
  }
  const std::string folder_ =
      std::filesystem::temp_directory_path() /
      ("queue-store-" + std::to_string(BootClock::now().time_since_epoch().count()));
};

TEST_F(QueueStoreTest, HoldsWhatWasAppendedAndNotRemovedInOrder) {
  {
    auto store = QueueStore::Open(folder_).value();
    EXPECT_TRUE(store->Append({{1, {'a'}}, {256, {'b'}}, {70000, {'c', '\0'}}}).ok());
    EXPECT_TRUE(store->Remove({256}).ok());
    EXPECT_EQ(QueueStore::Open(folder_).status().code(), Code::kUnavailable) << "one at a time";
  }
  auto store = QueueStore::Open(folder_).value();
  EXPECT_EQ(Loaded(*store), (std::vector<uint64_t>{1, 70000}));
  EXPECT_EQ(store->Get(70000).value(), (std::vector<char>{'c', '\0'}));
  EXPECT_FALSE(store->Get(256).ok());
}

TEST_F(QueueStoreTest, AFolderThatIsNoneOfAQueueIsRefused) {
  {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, folder_, &db).ok());
    const std::unique_ptr<rocksdb::DB> foreign(db);
    ASSERT_TRUE(foreign->Put({}, "theirs", "1").ok());
  }
  const Status refused = QueueStore::Open(folder_).status();
  EXPECT_EQ(refused.code(), Code::kInvalid);
  EXPECT_NE(refused.message().find("something else"), std::string::npos) << refused.message();
  EXPECT_EQ(QueueStore::Open("/proc/none").status().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace datawire::intermediaries
