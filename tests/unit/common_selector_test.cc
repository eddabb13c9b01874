#include "datawire/selector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <queue>
#include <string>
#include <vector>

namespace datawire {
namespace {

constexpr uint64_t kSeed = 20260101;

/// Endpoints and the candidates that point at them; names are hosts.
class Field {
 public:
  Endpoint& Add(const std::string& host, uint32_t weight = 100, uint32_t priority = 0,
                EndpointState state = EndpointState::kUp) {
    endpoints_.push_back(
        std::make_unique<Endpoint>(Endpoint{.url = EndpointUrl::Parse("amqp://" + host).value(),
                                            .state = state,
                                            .priority = priority,
                                            .weight = weight,
                                            .region = {},
                                            .zone = {},
                                            .labels = {},
                                            .created = endpoints_.size() + 1}));
    candidates_.push_back({.endpoint = endpoints_.back().get()});
    return *endpoints_.back();
  }
  Candidate& operator[](size_t index) { return candidates_[index]; }
  std::vector<Candidate>& all() { return candidates_; }

  std::optional<size_t> Pick(Policy policy, std::string_view key = "k") {
    return Select(policy, candidates_, key, random_);
  }
  /// How often each was picked in `n` picks.
  std::vector<int> Tally(int n, Policy policy = Policy::kBalanced) {
    std::vector<int> tally(candidates_.size());
    for (int i = 0; i < n; ++i) ++tally[*Pick(policy)];
    return tally;
  }

 private:
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  std::vector<Candidate> candidates_;
  Random random_{kSeed};
};

constexpr Policy kPolicies[] = {Policy::kBalanced, Policy::kOrdered, Policy::kConsistent};

TEST(SelectBalanced, MeetsWeightsWithinFivePercent) {
  Field field;
  const uint32_t weights[] = {100, 300, 600, 1000, 50};
  uint32_t total = 0;
  for (size_t i = 0; i < std::size(weights); ++i) {
    field.Add("h" + std::to_string(i), weights[i]);
    total += weights[i];
  }
  const std::vector<int> tally = field.Tally(100'000);
  double worst = 0;
  for (size_t i = 0; i < std::size(weights); ++i) {
    const double fair = 100'000.0 * weights[i] / total;
    worst = std::max(worst, std::abs(tally[i] / fair - 1));
    EXPECT_NEAR(tally[i], fair, fair * 0.05) << "weight " << weights[i];
  }
  std::printf("idle, 100,000 picks: farthest from its weight %.2f %%\n", worst * 100);
}

// Endpoints that take equally long for a message, whatever else they do; messages come so that
// `in_flight` of them are unsettled on average. Each one's part as a part of what its weight says.
// (Where one takes longer than another it gets less than its weight says: that is the rule.)
std::vector<double> SharesUnderLoad(const std::vector<uint32_t>& weights, double in_flight) {
  Field field;
  uint32_t total = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    field.Add("h" + std::to_string(i), weights[i]);
    total += weights[i];
  }
  std::vector<int> tally(weights.size());
  using Done = std::pair<double, size_t>;  // when, by whom
  std::priority_queue<Done, std::vector<Done>, std::greater<>> done;
  Random random(kSeed + 1);  // not the selector's own draws
  std::exponential_distribution<double> work(1), gap(in_flight);
  const int warm = static_cast<int>(20 * in_flight);
  constexpr int kPicks = 100'000;
  double now = 0;
  for (int i = 0; i < warm + kPicks; ++i) {
    now += gap(random);
    for (; !done.empty() && done.top().first <= now; done.pop())
      --field[done.top().second].unsettled;
    const size_t pick = *field.Pick(Policy::kBalanced);
    if (i >= warm) ++tally[pick];
    ++field[pick].unsettled;
    done.emplace(now + work(random), pick);
  }
  std::vector<double> shares;
  for (size_t i = 0; i < weights.size(); ++i)
    shares.push_back(tally[i] / (1.0 * kPicks * weights[i] / total));
  return shares;
}

TEST(SelectBalanced, MeetsWeightsWithinFivePercentUnderLoad) {
  for (const double in_flight : {20, 200, 2000}) {
    double worst = 0;
    for (const double share : SharesUnderLoad({100, 300, 600, 1000, 50}, in_flight)) {
      worst = std::max(worst, std::abs(share - 1));
      EXPECT_NEAR(share, 1, 0.05) << in_flight << " in flight";
    }
    std::printf("%.0f in flight, 100,000 picks: farthest from its weight %.2f %%\n", in_flight,
                worst * 100);
  }
}

TEST(SelectBalanced, PrefersTheLowerUnsettledPerWeight) {
  Field field;
  field.Add("heavy", 300);
  field.Add("light", 100);
  // Equal load per weight: a tie, so the first drawn wins and weights hold.
  field[0].unsettled = 30;
  field[1].unsettled = 10;
  EXPECT_NEAR(field.Tally(20'000)[0], 15'000, 500);
  // The heavy one is busier for its weight: it wins only if drawn twice, 9 of 16.
  field[0].unsettled = 31;
  EXPECT_NEAR(field.Tally(16'000)[0], 9'000, 400);
}

TEST(SelectBalanced, KeepsUnsettledWithinAFewOfEachOtherWhereRandomWouldNot) {
  Field field;
  for (int i = 0; i < 10; ++i) field.Add("h" + std::to_string(i));
  for (int i = 0; i < 10'000; ++i) ++field[*field.Pick(Policy::kBalanced)].unsettled;
  uint32_t least = UINT32_MAX, most = 0;
  for (const Candidate& c : field.all()) {
    least = std::min(least, c.unsettled);
    most = std::max(most, c.unsettled);
  }
  EXPECT_LE(most - least, 12u);  // one random draw gives a spread of about 100
}

TEST(SelectBalanced, AvoidsWhoHasNoCreditWhileAnotherHas) {
  Field field;
  for (const char* host : {"a", "b", "c", "d"}) field.Add(host);
  for (const size_t full : {0, 1, 2}) field[full].has_credit = false;
  field[3].unsettled = 1000;
  EXPECT_EQ(field.Tally(1000), (std::vector<int>{0, 0, 0, 1000}));
  field[3].has_credit = false;
  EXPECT_TRUE(field.Pick(Policy::kBalanced).has_value()) << "no credit anywhere is still a choice";
}

TEST(SelectBalanced, LackOfCreditDoesNotSpillToALaterPriority) {
  Field field;
  field.Add("primary").priority = 1;
  field.Add("backup").priority = 2;
  field[0].has_credit = false;
  EXPECT_EQ(field.Tally(100), (std::vector<int>{100, 0}));
}

TEST(SelectBalanced, EachDistanceGetsItsLoadWhateverTheWeightsThere) {
  Field field;
  for (const uint32_t weight : {100, 300, 1000, 1000})
    field.Add("h" + std::to_string(weight), weight);
  for (const size_t near : {0, 1}) field[near].load = 0.7;
  for (const size_t far : {2, 3}) {
    field[far].distance = 1;
    field[far].load = 0.3;
  }
  const std::vector<int> tally = field.Tally(20'000);
  EXPECT_NEAR(tally[0], 3'500, 300);
  EXPECT_NEAR(tally[1], 10'500, 300);
  EXPECT_NEAR(tally[2] + tally[3], 6'000, 300);
}

TEST(SelectBalanced, LackOfCreditSpillsOnlyToADistanceThatHasLoad) {
  Field field;
  for (const char* host : {"near", "far", "farther"}) field.Add(host);
  for (const size_t i : {1, 2}) field[i].distance = static_cast<uint8_t>(i);
  field[0].load = 0.9;
  field[0].has_credit = false;
  field[1].load = 0.1;
  field[2].load = 0;
  EXPECT_EQ(field.Tally(100), (std::vector<int>{0, 100, 0}));
  field[1].load = 0;
  EXPECT_EQ(field.Tally(100), (std::vector<int>{100, 0, 0}));
  field[0].usable = false;  // for this message
  EXPECT_EQ(field.Tally(100), (std::vector<int>{0, 100, 0})) << "then the next nearest";
}

TEST(SelectBalanced, AStartingOneGetsThePartOfItsWeightThatItIsUpTo) {
  Field field;
  for (const char* host : {"a", "b", "new"}) field.Add(host);
  field[2].ramp = 0.1;
  EXPECT_NEAR(field.Tally(20'000)[2], 952, 150);
}

TEST(SelectOrdered, TakesPriorityThenTheOldest) {
  Field field;
  field.Add("young").created = 9;
  field.Add("old").created = 5;
  field.Add("oldest-but-later", 100, 1).created = 1;
  EXPECT_EQ(field.Pick(Policy::kOrdered), 1u);
  field[1].usable = false;
  EXPECT_EQ(field.Pick(Policy::kOrdered), 0u);
  field[0].usable = false;
  EXPECT_EQ(field.Pick(Policy::kOrdered), 2u);
}

TEST(SelectOrdered, DoesNotDependOnTheOrderOfCandidates) {
  Field field;
  for (const char* host : {"b", "c", "a"}) field.Add(host).created = 7;  // one revision
  for (int i = 0; i < 3; ++i) {
    const size_t pick = *field.Pick(Policy::kOrdered);
    EXPECT_EQ(field[pick].endpoint->url.host(), "a");
    std::rotate(field.all().begin(), field.all().begin() + 1, field.all().end());
  }
}

TEST(SelectConsistent, RemovalMovesOnlyTheKeysOfTheRemoved) {
  Field field;
  for (int i = 0; i < 8; ++i) field.Add("10.0.0." + std::to_string(i + 1));
  constexpr int kKeys = 10'000;
  std::vector<size_t> before;
  std::vector<int> share(8);
  for (int key = 0; key < kKeys; ++key) {
    before.push_back(*field.Pick(Policy::kConsistent, "key-" + std::to_string(key)));
    ++share[before.back()];
  }
  const double most = *std::max_element(share.begin(), share.end()) / (kKeys / 8.0);
  std::printf("8 endpoints, 10,000 keys: the largest share is %.3f of fair\n", most);
  EXPECT_LT(most, 1.25);
  field[3].usable = false;
  std::vector<int> inherited(8);
  for (int key = 0; key < kKeys; ++key) {
    const size_t now = *field.Pick(Policy::kConsistent, "key-" + std::to_string(key));
    if (before[key] == 3) {
      ASSERT_NE(now, 3u);
      ++inherited[now];
    } else {
      ASSERT_EQ(now, before[key]) << key;
    }
  }
  EXPECT_EQ(std::count(inherited.begin(), inherited.end(), 0), 1) << "all seven inherit a part";
}

TEST(SelectConsistent, SharesFollowWeights) {
  Field field;
  field.Add("a", 100);
  field.Add("b", 300);
  field.Add("c", 600);
  std::vector<int> share(3);
  for (int key = 0; key < 20'000; ++key) {
    ++share[*field.Pick(Policy::kConsistent, std::to_string(key))];
  }
  EXPECT_NEAR(share[0], 2'000, 200);
  EXPECT_NEAR(share[1], 6'000, 300);
  EXPECT_NEAR(share[2], 12'000, 400);
}

TEST(SelectConsistent, IsTheSameOnEveryMachineAndForAnyOrderOfCandidates) {
  // The numbers are pinned: clients of other versions and languages must choose alike.
  EXPECT_EQ(StableHash(""), 0xcbf29ce484222325u);
  EXPECT_EQ(StableHash("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(StableHash("foobar"), 0x85944171f73967e8u);
  Field field;
  for (const char* host : {"a", "b", "c"}) field.Add(host);
  for (int turn = 0; turn < 3; ++turn) {
    std::string hosts;
    for (const char* key : {"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"}) {
      hosts += field[*field.Pick(Policy::kConsistent, key)].endpoint->url.host();
    }
    EXPECT_EQ(hosts, "cbbaacbb");
    std::rotate(field.all().begin(), field.all().begin() + 1, field.all().end());
  }
}

TEST(Select, TakesTheLowestPriorityThatHasAUsableUpEndpoint) {
  for (const Policy policy : kPolicies) {
    Field field;
    field.Add("third", 1000, 30);
    field.Add("first", 1, 10);
    field.Add("second", 1000, 20);
    EXPECT_EQ(field.Pick(policy), 1u);
    field[1].usable = false;
    EXPECT_EQ(field.Pick(policy), 2u);
    field[2].usable = false;
    EXPECT_EQ(field.Pick(policy), 0u);
    field[0].usable = false;
    EXPECT_EQ(field.Pick(policy), std::nullopt);
  }
}

TEST(Select, TakesSuspectsOnlyWhenNoUpOneIsUsable) {
  for (const Policy policy : kPolicies) {
    Field field;
    field.Add("suspect", 1000, 0, EndpointState::kSuspect);
    field.Add("up", 1, 9);
    for (int i = 0; i < 100; ++i) ASSERT_EQ(field.Pick(policy, std::to_string(i)), 1u);
    field[1].usable = false;
    EXPECT_EQ(field.Pick(policy), 0u);
    field[0].usable = false;
    EXPECT_EQ(field.Pick(policy), std::nullopt);
  }
}

TEST(Select, OrderedAndConsistentStayWithTheirChoiceWhenItHasNoCredit) {
  for (const Policy policy : {Policy::kOrdered, Policy::kConsistent}) {
    Field field;
    for (const char* host : {"a", "b", "c"}) field.Add(host);
    const size_t choice = *field.Pick(policy);
    field[choice].has_credit = false;
    EXPECT_EQ(field.Pick(policy), choice);
  }
}

TEST(Select, NeverTakesADrainingOne) {
  for (const Policy policy : kPolicies) {
    Field field;
    field.Add("draining", 1000, 0, EndpointState::kDraining);
    EXPECT_EQ(field.Pick(policy), std::nullopt);
    field.Add("suspect", 1, 9, EndpointState::kSuspect);
    EXPECT_EQ(field.Pick(policy), 1u);
  }
}

TEST(Select, WeightZeroIsTheLastResortInsideItsPriority) {
  for (const Policy policy : kPolicies) {
    Field field;
    field.Add("resort", 0, 0).created = 1;
    field.Add("weighted", 1, 0).created = 2;
    field.Add("later", 1000, 1).created = 3;
    for (int i = 0; i < 100; ++i) ASSERT_EQ(field.Pick(policy, std::to_string(i)), 1u);
    field[1].usable = false;
    for (int i = 0; i < 100; ++i) ASSERT_EQ(field.Pick(policy, std::to_string(i)), 0u);
  }
  Field equals;
  for (const char* host : {"a", "b"}) equals.Add(host, 0);
  EXPECT_NEAR(equals.Tally(10'000)[0], 5'000, 300);
}

TEST(Select, OfNothingIsNothing) {
  Random random(kSeed);
  for (const Policy policy : kPolicies) EXPECT_EQ(Select(policy, {}, "k", random), std::nullopt);
  EXPECT_TRUE(ChooseLinks({}, 8, 1).empty());
}

TEST(ChooseLinks, SpreadsManySendersEvenly) {
  Field field;
  constexpr int kEndpoints = 50, kSenders = 2000, kLinks = 8;
  for (int i = 0; i < kEndpoints; ++i) field.Add("10.0.1." + std::to_string(i));
  std::vector<int> senders(kEndpoints);
  for (uint64_t seed = 0; seed < kSenders; ++seed) {
    const std::vector<size_t> links = ChooseLinks(field.all(), kLinks, seed);
    ASSERT_EQ(links.size(), static_cast<size_t>(kLinks));
    for (const size_t link : links) ++senders[link];
  }
  const double fair = 1.0 * kSenders * kLinks / kEndpoints;
  EXPECT_LT(*std::max_element(senders.begin(), senders.end()), 1.25 * fair);
  EXPECT_GT(*std::min_element(senders.begin(), senders.end()), 0.75 * fair);
}

TEST(ChooseLinks, KeepsItsChoiceWhenAnotherEndpointGoes) {
  Field field;
  for (int i = 0; i < 20; ++i) field.Add("10.0.1." + std::to_string(i));
  const std::vector<size_t> before = ChooseLinks(field.all(), 8, 7);
  EXPECT_EQ(ChooseLinks(field.all(), 8, 7), before);
  field[before[2]].usable = false;
  std::vector<size_t> after = ChooseLinks(field.all(), 8, 7);
  ASSERT_EQ(after.size(), 8u);
  after.pop_back();
  std::vector<size_t> kept = before;
  kept.erase(kept.begin() + 2);
  EXPECT_EQ(after, kept);
}

TEST(ChooseLinks, GivesEachDistanceItsPartOfTheLinksAtLeastOne) {
  Field field;
  for (int i = 0; i < 40; ++i) {
    field.Add("10.0.1." + std::to_string(i));
    field[static_cast<size_t>(i)].distance = i < 20 ? 0 : 1;
  }
  const auto far = [&](double load) {
    for (Candidate& c : field.all()) c.load = c.distance == 0 ? 1 - load : load;
    size_t count = 0;
    for (const size_t i : ChooseLinks(field.all(), 8, 3)) count += i >= 20;
    return count;
  };
  EXPECT_EQ(far(0), 0u);
  EXPECT_EQ(far(0.01), 1u);
  EXPECT_EQ(far(0.25), 2u);
  EXPECT_EQ(far(0.5), 4u);
}

TEST(ChooseLinks, FollowsTheOrderOfTheGroups) {
  Field field;
  field.Add("later", 1000, 1);
  field.Add("resort", 0, 0);
  field.Add("first", 1, 0);
  field.Add("draining", 100, 0, EndpointState::kDraining);
  field.Add("suspect", 100, 0, EndpointState::kSuspect);
  field.Add("ejected", 100, 0);
  field[5].usable = false;
  EXPECT_EQ(ChooseLinks(field.all(), 8, 1), (std::vector<size_t>{2, 1, 0}));
  EXPECT_EQ(ChooseLinks(field.all(), 1, 1), (std::vector<size_t>{2}));
  EXPECT_TRUE(ChooseLinks(field.all(), 0, 1).empty());
  for (const size_t up : {0, 1, 2}) field[up].usable = false;
  EXPECT_EQ(ChooseLinks(field.all(), 8, 1), (std::vector<size_t>{4}));
}

}  // namespace
}  // namespace datawire
