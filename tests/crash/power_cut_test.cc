#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <random>

#include "load.h"
#include "node.h"
#include "store_check.h"
#include "watch_tail.h"

namespace datawire::directory {
namespace {

using namespace std::chrono_literals;

uint64_t Number(const char* variable, uint64_t otherwise) {
  const char* set = std::getenv(variable);
  return set != nullptr ? std::strtoull(set, nullptr, 10) : otherwise;
}

constexpr uint64_t kCutsInOpen = 20, kCutsInLoad = 400;  // file-system calls
constexpr auto kLifeMost = 3s;  // where a fault leaves too few calls to come to the cut
constexpr size_t kKeysAtOnce = 500;

/// One store in many lives, each ended by a loss of power.
class PowerCutTest : public ::testing::Test {
 protected:
  std::string Folder(int life) const { return folder_ / ("life" + std::to_string(life)); }
  uint64_t Below(uint64_t n) { return random_() % n; }

  /// Runs the load until the power goes; the folder of the next life is what is left.
  void Live(int life) {
    Node node(Folder(life));
    const bool while_opening = Below(5) == 0;
    if (while_opening) node.disc().CutPower(1 + Below(kCutsInOpen));
    const Status opened = node.Start();
    if (opened.ok()) {
      Check(node);
      if (!while_opening) node.disc().CutPower(1 + Below(kCutsInLoad));
      Load(node, life);
    } else {
      ASSERT_TRUE(node.disc().off()) << opened.ToString();
      ++cut_while_opening_;
    }
    node.Stop();
    state_.witness.Cut();
    node.disc().WriteAsAfterPowerLoss(node.disc().calls(), Below(4) == 0 ? nullptr : &random_,
                                      Folder(life + 1));
    std::filesystem::remove_all(Folder(life));
  }

  void Load(Node& node, int life) {
    const uint64_t fault = Below(6);
    if (fault == 0) node.disc().FailSync(1 + Below(kCutsInLoad / 4));
    if (fault == 1) node.disc().SetFree(Below(1 << 20));
    watch_.Attach(node.directory());
    std::atomic<bool> stop{false};
    auto load = std::async(std::launch::async,
                           [&] { RunLoad(node, life, Below(1ull << 32), stop, state_); });
    if (load.wait_for(fault < 2 ? 300ms : kLifeMost) != std::future_status::ready) {
      if (fault == 1) node.disc().SetFree(1ull << 40);
      load.wait_for(fault == 1 ? 500ms : 0ms);
    }
    stop = true;
    load.wait();
    watch_.Detach();
  }

  /// What a store has to be, whenever it was cut.
  void Check(Node& node) {
    ++checked_;
    EXPECT_EQ(Contradictions(node.view()), std::vector<std::string>());
    const Revision applied = node.view().Applied();
    EXPECT_GE(applied, state_.witness.told());
    CheckContiguous(node, applied);
    watch_.CatchUp(node.directory(), applied);
    CheckCalls(node);
    CheckKeys(node);
    CheckListing(node);
  }
  // Every revision left something, or was acknowledged, or was seen in an earlier life.
  void CheckContiguous(Node& node, Revision applied) {
    revisions_.merge(RevisionsIn(node.view()));
    const auto& acknowledged = state_.witness.acknowledged();
    for (uint64_t number = contiguous_ + 1; number <= applied.number; ++number)
      EXPECT_TRUE(revisions_.contains(number) || acknowledged.contains(number))
          << "nothing at revision " << number << " of " << applied.number;
    contiguous_ = applied.number;
  }
  void CheckCalls(Node& node) {
    EXPECT_EQ(state_.torn, std::vector<std::string>()) << "a reader saw a part of a call";
    for (; calls_checked_ < state_.calls.size(); ++calls_checked_) {
      const auto values = Values(node, state_.calls[calls_checked_]);
      for (const std::string& value : values)
        EXPECT_EQ(value, values.front())
            << "a part of the call of " << state_.calls[calls_checked_].front();
    }
  }
  // What is there now is the end of a history that could have been.
  void CheckKeys(Node& node) {
    const std::set<std::string> touched = state_.witness.TakeTouched();
    std::vector<std::string> keys(touched.begin(), touched.end());
    for (size_t from = 0; from < keys.size(); from += kKeysAtOnce) {
      const std::vector<std::string> some(
          keys.begin() + static_cast<ptrdiff_t>(from),
          keys.begin() + static_cast<ptrdiff_t>(std::min(keys.size(), from + kKeysAtOnce)));
      std::vector<harness::HistoryOp> reads;
      for (const std::string& key : some)
        reads.push_back(
            {harness::HistoryOp::kRead, harness::HistoryOp::kOk, key, "", state_.witness.Now()});
      const auto values = Values(node, some);
      for (size_t i = 0; i < reads.size(); ++i) {
        reads[i].value = values.at(i);
        reads[i].ended = state_.witness.Now();
        if (values[i].empty())
          settled_.erase(some[i]);
        else
          settled_[some[i]] = values[i];
      }
      state_.witness.Add(std::move(reads));
    }
    state_.witness.TakeTouched();
    for (const std::string& key : keys)
      EXPECT_EQ(harness::CheckLinearizable(state_.witness.OpsOf(key)), "") << key;
  }
  // The registrations that nobody touched since the last life are those of then, and no others.
  void CheckListing(Node& node) {
    std::map<std::string, std::string> listed;
    const auto snapshot = node.view().Hold();
    std::string after;
    do {
      std::vector<std::string> events;
      const std::string from = after;
      ASSERT_TRUE(snapshot->Registrations(std::nullopt, from, 1000, &events, &after).ok());
      for (const std::string& bytes : events) {
        pb::Event event;
        ASSERT_TRUE(event.ParseFromString(bytes));
        listed[event.address()] = event.endpoint().labels().at("value");
      }
    } while (!after.empty());
    EXPECT_EQ(listed, settled_);
  }
  std::vector<std::string> Values(Node& node, const std::vector<std::string>& keys) {
    Revision at;
    const auto values = ReadKeys(node.directory(), keys, &at);
    EXPECT_TRUE(values.ok()) << values.status().ToString();
    return values.ok() ? *values : std::vector<std::string>(keys.size());
  }

  const uint64_t seed_ = Number("CRASH_SEED", std::random_device()());
  std::mt19937_64 random_{seed_};
  CrashFolder folder_;
  LoadState state_;
  WatchTail watch_{state_.witness.history()};
  std::map<std::string, std::string> settled_;
  std::set<uint64_t> revisions_;
  uint64_t contiguous_ = 0;
  size_t calls_checked_ = 0;
  int checked_ = 0, cut_while_opening_ = 0;
};

TEST_F(PowerCutTest, WhatWasAcknowledgedIsThereAfterEveryLossOfPowerAndNothingByHalves) {
  const int cuts = static_cast<int>(Number("CRASH_CUTS", 60));
  std::cout << "CRASH_SEED=" << seed_ << std::endl;
  for (int life = 0; life < cuts; ++life) {
    SCOPED_TRACE("life " + std::to_string(life) + ", CRASH_SEED=" + std::to_string(seed_));
    Live(life);
    if (HasFailure()) break;
  }
  if (!HasFailure()) {
    Node node(Folder(cuts));
    ASSERT_TRUE(node.Start().ok());
    Check(node);
    node.Stop();
    EXPECT_EQ(harness::CheckHistory(state_.witness.history()), std::vector<std::string>());
  }
  const harness::History& history = state_.witness.history();
  if (HasFailure()) {
    std::ofstream file(folder_ / "history");
    harness::WriteHistory(history, file);
  }
  std::cout << cuts << " cuts, " << cut_while_opening_ << " while opening, " << checked_
            << " stores checked; " << history.ops.size() << " operations, " << history.events.size()
            << " events, revision " << contiguous_ << ", " << settled_.size()
            << " registrations left\n";
  EXPECT_GT(history.events.size(), 10u * static_cast<size_t>(cuts));
}

}  // namespace
}  // namespace datawire::directory
