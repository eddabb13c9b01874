#include "sender_core_fixture.h"

namespace datawire {
namespace {

TEST_F(SenderCoreTest, WeightDecidesTheShare) {
  Endpoint light = At(1), heavy = At(2);
  light.weight = 100;
  heavy.weight = 300;
  Answer({light, heavy});
  Give(1);
  Open(1, 10'000);
  Open(2, 10'000);
  std::map<int, int> share;
  for (uint64_t id = 2; id < 802; ++id) {
    Give(id);
    ++share[Where(id)];  // none is settled: unsettled / weight evens out
  }
  EXPECT_NEAR(share[2], 600, 30);
}

TEST_F(SenderCoreTest, TheFreerOneGetsTheNextMessage) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1, 1000);
  Open(2, 1000);
  for (uint64_t id = 2; id <= 100; ++id) Give(id);
  for (uint64_t id = 1; id <= 100; ++id) {
    if (Where(id) == 2) Settle(id, Kind::kAccepted);  // 1 is slow
  }
  std::map<int, int> share;
  for (uint64_t id = 101; id <= 140; ++id) {
    Give(id);
    ++share[Where(id)];
  }
  EXPECT_GT(share[2], 25);
}

TEST_F(SenderCoreTest, OneWithoutCreditIsPassedBy) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1, 3);
  Open(2, 1000);
  for (uint64_t id = 2; id <= 100; ++id) Give(id);
  std::map<int, int> share;
  for (uint64_t id = 1; id <= 100; ++id) ++share[Where(id)];
  EXPECT_EQ(share[0], 0);
  EXPECT_LE(share[1], 3);
}

TEST_F(SenderCoreTest, ALinkToANewlyChosenEndpointReplacesOneThatIsNotChosen) {
  std::vector<Endpoint> first, all;
  for (int port = 1; port <= 40; ++port) {
    all.push_back(At(port));
    if (port <= 8) first.push_back(At(port));
  }
  Answer(all);
  Give(1);
  std::set<int> chosen;  // the seed is the same each time
  for (const auto& [link, port] : links_) chosen.insert(port);

  Make();
  links_.clear();
  Answer(first);
  Give(1);
  for (int port = 1; port <= 8; ++port) Open(port);
  for (uint64_t id = 2; id <= 200; ++id) Give(id);
  const auto settle = [&](bool stays) {
    for (uint64_t id = 1; id <= 200; ++id) {
      if (Where(id) && chosen.contains(Where(id)) == stays) Settle(id, Kind::kAccepted);
    }
  };
  settle(true);
  now_ += 1s;
  settle(false);  // those that are to go were used last: age must not decide
  const auto before = links_;
  core_->Give(201, "", now_ + 30s);
  Answer(all);  // while there is something to send
  size_t stayed = 0;
  for (const auto& [link, port] : before) {
    if (!chosen.contains(port)) continue;
    ++stayed;
    EXPECT_TRUE(links_.contains(link)) << port << " was cut";
  }
  ASSERT_GT(stayed, 0u);
  ASSERT_LT(stayed, before.size());
  EXPECT_EQ(links_.size(), limits::kSenderLinks);
}

TEST_F(SenderCoreTest, ADrainingEndpointFinishesWhatItHasAndGetsNoMore) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Answer({At(1, EndpointState::kDraining), At(2)});
  Give(2);
  Open(2);
  EXPECT_EQ(Where(1), 1);
  EXPECT_EQ(Where(2), 2);
  EXPECT_NE(LinkTo(1), 0u) << "not cut: 1 is not settled";
  Settle(1, Kind::kAccepted);
  EXPECT_EQ(LinkTo(1), 0u);
  Lose(2);
  Give(3);
  EXPECT_EQ(LinkTo(1), 0u);
  EXPECT_EQ(opened_[1], 1);
}

TEST_F(SenderCoreTest, AnEndpointThatLosesItsLinksIsLeftOutForAGrowingTimeAndTheFifthTimeEjected) {
  Answer({At(1), At(2)});
  Give(1);
  Open(2);
  EXPECT_EQ(Where(1), 2) << "an endpoint without credit yet holds nothing up";
  Give(2);
  core_->Credit(LinkTo(2), 2);
  Give(3);  // there is always work, so each return is tried at once
  int tries = 0;
  for (const auto out : {250ms, 500ms, 1000ms, 2000ms, 30'000ms, 8000ms}) {
    ASSERT_NE(LinkTo(1), 0u) << out.count();
    Open(1, 0);
    Lose(1);
    ++tries;
    EXPECT_EQ(core_->counters().ejections, tries < 5 ? 0u : 1u);
    Give(100 + tries, 1h);
    Pass(out - 1ms);
    EXPECT_EQ(LinkTo(1), 0u);
    Pass(1ms);
  }
  EXPECT_EQ(opened_[1], tries + 1);
}

TEST_F(SenderCoreTest, RefusedTwiceIsEjectedAndComesBackWithAllItsShare) {
  Answer({At(1), At(2)});
  Give(1, 1h);
  Open(2, 0);
  Lose(1);
  Pass(250ms);
  Lose(1);
  ASSERT_EQ(ejected_.size(), 1u);
  EXPECT_EQ(ejected_[0].url, "amqp://h1:1");
  EXPECT_EQ(ejected_[0].out, 30s);
  EXPECT_EQ(ejected_[0].why, "gone");
  Pass(29'999ms);
  EXPECT_EQ(LinkTo(1), 0u);
  Pass(1ms);
  Open(1, 10'000);
  core_->Credit(LinkTo(2), 10'000);
  std::map<int, int> share;
  for (uint64_t id = 2; id < 402; ++id) {
    Give(id);
    ++share[Where(id)];
  }
  EXPECT_NEAR(share[1], 200, 30);
}

TEST_F(SenderCoreTest, WhoFailsAtAllThatItIsGivenIsEjectedAndItsLinkNotCut) {
  Answer({At(1), At(2)});
  Give(1);
  Open(1, 10'000);
  Open(2, 10'000);
  Settle(1, Kind::kAccepted);
  int failed = 0;
  for (uint64_t id = 2; id <= 200; ++id) {
    Give(id);
    if (Where(id) == 1) {
      ++failed;
      Settle(id, {Kind::kModified, "", "", true, false});
    }
    ASSERT_EQ(Where(id), 2);
    Settle(id, Kind::kAccepted);
  }
  EXPECT_EQ(failed, 5);
  EXPECT_EQ(core_->counters().ejections, 1u);
}

TEST_F(SenderCoreTest, MessagesStayInTheZoneUntilItsShareIsTooSmall) {
  Make({.locality = {"eu", "a"}});
  std::vector<Endpoint> all;
  for (int port = 1; port <= 6; ++port) {
    all.push_back(At(port));
    all.back().region = "eu";
    all.back().zone = port <= 3 ? "a" : "b";
  }
  Answer(all);
  Give(1);
  EXPECT_EQ(links_.size(), 6u) << "those that may be needed have links";
  for (int port = 1; port <= 6; ++port) Open(port, 10'000);
  uint64_t id = 1;
  const auto far = [&] {
    int count = 0;
    for (int i = 0; i < 1000; ++i) {
      Give(++id);
      count += Where(id) > 3;
      Settle(id, Kind::kAccepted);
    }
    return count;
  };
  Settle(1, Kind::kAccepted);
  EXPECT_EQ(far(), 0);
  all[1].state = all[2].state = EndpointState::kSuspect;  // a third is left: 1/3 x 1.4
  Answer(all);
  EXPECT_NEAR(far(), 533, 60);
}

TEST_F(SenderCoreTest, AnEndpointThatIsListedNoMoreMakesNobodyLeaveTheZone) {
  Make({.locality = {"", "a"}});
  Endpoint near = At(1), gone = At(2), far = At(3);
  near.zone = gone.zone = "a";
  far.zone = "b";
  Answer({near, gone, far});
  Give(1);
  for (const int port : {1, 2, 3}) Open(port, 10'000);
  uint64_t id = 1;
  while (on_.empty() || Where(id) != 2) Give(++id);  // not settled: its link stays
  Answer({near, far});
  ASSERT_NE(LinkTo(2), 0u);
  for (int i = 0; i < 200; ++i) {
    Give(++id);
    ASSERT_EQ(Where(id), 1);
  }
}

TEST_F(SenderCoreTest, TheLastEndpointIsTriedEachSecond) {
  Answer({At(1)});
  Give(1, 60s);
  for (int i = 0; i < 20; ++i) {
    ASSERT_NE(LinkTo(1), 0u) << i;
    Lose(1);
    Pass(1s);
  }
}

TEST_F(SenderCoreTest, RefusedIsMaskedAtOnceAndVanishedWithinThreeSeconds) {
  Answer({At(1), At(2, EndpointState::kUp, 1)});
  Give(1);
  EXPECT_EQ(LinkTo(1) != 0, true);
  Lose(1);
  Open(2);
  EXPECT_EQ(Where(1), 2);
  Make();
  links_.clear();
  Answer({At(1), At(2, EndpointState::kUp, 1)});
  Give(5);
  Open(2);
  EXPECT_EQ(Where(5), 0) << "1 comes first, as long as it may come";
  Pass(2500ms);  // no answer from 1 at all
  EXPECT_EQ(Where(5), 2);
}

TEST_F(SenderCoreTest, SuspectsOnlyWhenNoUpOneIsUsableAndDrainingNever) {
  Answer({At(1), At(2, EndpointState::kSuspect), At(3, EndpointState::kDraining)});
  Give(1);
  EXPECT_EQ(LinkTo(2), 0u);
  Open(1);
  EXPECT_EQ(Where(1), 1);
  Lose(1);
  ASSERT_NE(LinkTo(2), 0u);
  Open(2);
  EXPECT_EQ(Where(1), 2);
  EXPECT_EQ(opened_[3], 0);
}

TEST_F(SenderCoreTest, GoneFromTheAnswerButWorkingIsKeptUntilOthersWork) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Answer({}, AnswerStatus::kNotFound);
  Give(2);
  EXPECT_EQ(Where(2), 1) << "the link works, and there is nobody else";
  Answer({At(2)});
  Give(3);
  Open(2);
  Give(4);
  EXPECT_EQ(Where(4), 2);
  EXPECT_NE(LinkTo(1), 0u) << "not cut: 1 and 2 are not settled";
  Settle(1, Kind::kAccepted);
  Settle(2, Kind::kAccepted);
  if (Where(3) == 1) Settle(3, Kind::kAccepted);
  EXPECT_EQ(LinkTo(1), 0u) << "closed when settled";
}

TEST_F(SenderCoreTest, AnUnavailableAnswerChangesNothing) {
  Answer({At(1)});
  Answer({}, AnswerStatus::kUnavailable);
  Give(1);
  Open(1);
  EXPECT_EQ(Where(1), 1);
}

TEST_F(SenderCoreTest, AtMostEightLinksAndAllOfThemUsed) {
  std::vector<Endpoint> endpoints;
  for (int port = 1; port <= 30; ++port) endpoints.push_back(At(port));
  Answer(endpoints);
  Give(1);
  EXPECT_EQ(links_.size(), limits::kSenderLinks);
  const auto links = links_;
  for (const auto& [link, port] : links) Open(port);
  for (uint64_t id = 2; id <= 400; ++id) Give(id);
  std::map<uint64_t, int> count;
  for (const auto& [id, link] : on_) ++count[link];
  EXPECT_EQ(count.size(), limits::kSenderLinks);
  for (const auto& [link, messages] : count) EXPECT_GT(messages, 25);
}

TEST_F(SenderCoreTest, ANewEndpointGetsItsShareWhileTheOthersHaveCredit) {
  Answer({At(1)});
  Give(1);
  Open(1, 1000);
  Answer({At(1), At(2)});
  EXPECT_EQ(LinkTo(2), 0u);  // nothing to send
  Give(2);
  ASSERT_NE(LinkTo(2), 0u);
  Open(2, 1000);
  std::map<int, int> share;
  for (uint64_t id = 3; id < 103; ++id) {
    Give(id);
    ++share[Where(id)];
  }
  EXPECT_GT(share[1], 40);
  EXPECT_GT(share[2], 40);
}

TEST_F(SenderCoreTest, ConsistentKeepsAKeyOnItsEndpointAndTheBound) {
  std::vector<Endpoint> endpoints;
  for (int port = 1; port <= 30; ++port) endpoints.push_back(At(port));
  Answer(endpoints, AnswerStatus::kFound, Policy::kConsistent);
  std::map<std::string, int> home;
  for (uint64_t id = 1; id <= 200; ++id) {
    const std::string key = "k" + std::to_string(id % 40);
    Give(id, 30s, key);
    for (const auto& [link, port] : std::map(links_)) Open(port);
    ASSERT_NE(Where(id), 0) << id;
    EXPECT_LE(links_.size(), limits::kSenderLinks);
    EXPECT_EQ(home.emplace(key, Where(id)).first->second, Where(id));
    Settle(id, Kind::kAccepted);
  }
}

TEST_F(SenderCoreTest, OrderedWaitsForTheOldestAndFailsOver) {
  Answer({At(3), At(2)}, AnswerStatus::kFound, Policy::kOrdered);
  Give(1);
  EXPECT_EQ(links_.size(), 1u);
  Open(2);
  EXPECT_EQ(Where(1), 2);
  Lose(2);
  Open(3);
  EXPECT_EQ(Where(1), 3);
}

TEST_F(SenderCoreTest, APolicyThatChangesIsObeyedFromThenOn) {
  Answer({At(2), At(1)});
  Give(1);
  for (const auto& [link, port] : std::map(links_)) Open(port, 1000);
  Settle(1, Kind::kAccepted);
  uint64_t id = 1;
  const auto share = [&] {
    std::map<int, int> out;
    for (int i = 0; i < 100; ++i) {
      Give(++id);
      for (const auto& [link, port] : std::map(links_))
        if (Where(id) == 0) Open(port, 1000);
      ++out[Where(id)];
      Settle(id, Kind::kAccepted);
    }
    return out;
  };
  EXPECT_EQ(share().size(), 2u);
  Answer({At(2), At(1)}, AnswerStatus::kFound, Policy::kOrdered);
  EXPECT_EQ(share(), (std::map<int, int>{{1, 100}}));
  Answer({At(2), At(1)});
  EXPECT_EQ(share().size(), 2u);
}

TEST_F(SenderCoreTest, AnIdleLinkThatWasCutReopensOnUse) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Settle(1, Kind::kAccepted);
  Lose(1);
  EXPECT_EQ(LinkTo(1), 0u) << "nothing to send";
  Give(2);
  Open(1);
  EXPECT_EQ(Where(2), 1);
}

TEST_F(SenderCoreTest, AnUnusedLinkIsClosedAfterAMinute) {
  Answer({At(1)});
  Give(1);
  Open(1);
  Settle(1, Kind::kAccepted);
  Pass(59s);
  EXPECT_NE(LinkTo(1), 0u);
  Pass(1s);
  EXPECT_EQ(LinkTo(1), 0u);
}

}  // namespace
}  // namespace datawire
