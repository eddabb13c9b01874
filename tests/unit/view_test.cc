#include <algorithm>
#include <random>

#include "datawire/limits.h"
#include "view_fixture.h"

namespace datawire::directory::testing_view {
namespace {

TEST_F(ViewTest, AnAddressNobodyRegisteredIsNotFound) {
  EXPECT_EQ(Answer(*view_, "//d/a"), "NOT_FOUND");
  driver_->Register("//d/other", "i", {}).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "NOT_FOUND");
  EXPECT_EQ(Answer(*view_, "//d/other/below"), "NOT_FOUND");
}

TEST_F(ViewTest, MatchesTheNearestSubtreeOnSegmentBoundaries) {
  driver_->Register("//d/a", "1", {.url = "amqp://a:1", .subtree = true})
      .Register("//d/a/b", "2", {.url = "amqp://b:1", .subtree = true})
      .Register("//d/e", "3", {.url = "amqp://e:1"})
      .Register("//top", "4", {.url = "amqp://top:1", .subtree = true})
      .Commit();
  EXPECT_EQ(Answer(*view_, "//d/a/b/c"), "FOUND //d/a/b total=1: amqp://b:1/up");
  EXPECT_EQ(Answer(*view_, "//d/a/x"), "FOUND //d/a total=1: amqp://a:1/up");
  EXPECT_EQ(Answer(*view_, "//d/a/x/y/z"), "FOUND //d/a total=1: amqp://a:1/up");
  EXPECT_EQ(Answer(*view_, "//d/ab"), "NOT_FOUND");
  EXPECT_EQ(Answer(*view_, "//d"), "NOT_FOUND");
  EXPECT_EQ(Answer(*view_, "//d/e"), "FOUND //d/e total=1: amqp://e:1/up");
  EXPECT_EQ(Answer(*view_, "//d/e/x"), "NOT_FOUND");
  EXPECT_EQ(Answer(*view_, "//top"), "FOUND //top total=1: amqp://top:1/up");
  EXPECT_EQ(Answer(*view_, "//top/x"), "FOUND //top total=1: amqp://top:1/up");
  EXPECT_EQ(Answer(*view_, "//top.x/x"), "NOT_FOUND");
}

TEST_F(ViewTest, BelowAnAddressOnlyItsSubtreeRegistrationsMatch) {
  driver_->Register("//d/a", "1", {.url = "amqp://exact:1"})
      .Register("//d/a", "2", {.url = "amqp://sub:1", .subtree = true})
      .Register("//d/a/x", "3", {.url = "amqp://x:1"})
      .Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=2: amqp://exact:1/up amqp://sub:1/up");
  EXPECT_EQ(Answer(*view_, "//d/a/y"), "FOUND //d/a total=1: amqp://sub:1/up");
  EXPECT_EQ(Answer(*view_, "//d/a/x/y"), "FOUND //d/a total=1: amqp://sub:1/up");
  EXPECT_EQ(Answer(*view_, "//d/a/x"), "FOUND //d/a/x total=1: amqp://x:1/up");
}

TEST_F(ViewTest, AnExactMatchWithOnlySuspectsDoesNotFallThrough) {
  driver_->Open("s").Commit();
  driver_->Register("//d", "1", {.url = "amqp://d:1", .subtree = true})
      .Register("//d/a", "2", {.session = "s", .url = "amqp://a:1"})
      .Commit();
  driver_->Mark("s", pb::ENDPOINT_STATE_SUSPECT).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "NO_ENDPOINT //d/a total=1: amqp://a:1/suspect");
  EXPECT_EQ(LastEvents(), "PUT //d/a amqp://a:1 suspect");
  driver_->Erase(keys::SessionMark("s")).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=1: amqp://a:1/up");
  driver_->Mark("s", pb::ENDPOINT_STATE_DRAINING).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "NO_ENDPOINT //d/a total=1: amqp://a:1/draining");
  driver_->End("s", pb::REASON_CLOSED).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d total=1: amqp://d:1/up");
}

TEST_F(ViewTest, RowsAreOrderedByStateThenPriorityThenInstance) {
  driver_->Open("s").Commit();
  driver_->Register("//d/a", "4", {.url = "amqp://p0:4"})
      .Register("//d/a", "3", {.url = "amqp://p0:3"})
      .Register("//d/a", "2", {.url = "amqp://p9:2", .priority = 9})
      .Register("//d/a", "1", {.url = "amqp://drains:1", .draining = true})
      .Register("//d/a", "0", {.session = "s", .url = "amqp://suspect:1"})
      .Mark("s", pb::ENDPOINT_STATE_SUSPECT)
      .Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"),
            "FOUND //d/a total=5: amqp://p0:3/up amqp://p0:4/up amqp://p9:2/up "
            "amqp://drains:1/draining amqp://suspect:1/suspect");
}

TEST_F(ViewTest, AnUrlIsListedOnceAndTheShadowedOneComesBack) {
  driver_->Open("s").Commit();
  driver_->Register("//d/a", "1", {.session = "s"}).Register("//d/a", "2", {}).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=2: amqp://h:1/up");
  EXPECT_FALSE(RowOf(*view_, "//d/a").endpoints(0).static_());
  driver_->Mark("s", pb::ENDPOINT_STATE_SUSPECT).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=2: amqp://h:1/up");
  EXPECT_TRUE(RowOf(*view_, "//d/a").endpoints(0).static_());
  driver_->Register("//d/a", "2", {.ended = pb::REASON_WITHDRAWN}).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "NO_ENDPOINT //d/a total=1: amqp://h:1/suspect");
}

TEST_F(ViewTest, EndingASessionChangesAllItsRowsInOneRevision) {
  driver_->Open("s").Commit();
  for (int i = 0; i < 40; ++i)
    driver_->Register("//d/n" + std::to_string(i), "i", {.session = "s"});
  driver_->Commit();
  ASSERT_EQ(view_->RegistrationsOf("s").value().size(), 40u);
  EXPECT_EQ(view_->counts().registrations, 40u);
  EXPECT_EQ(view_->counts().addresses, 40u);
  driver_->End("s", pb::REASON_CLOSED).Commit();
  for (int i = 0; i < 40; ++i) EXPECT_EQ(Answer(*view_, "//d/n" + std::to_string(i)), "NOT_FOUND");
  EXPECT_EQ(published_.back()->addresses.size(), 40u);
  EXPECT_EQ(view_->counts().registrations, 0u);
  EXPECT_EQ(view_->counts().addresses, 0u);
  EXPECT_EQ(view_->counts().sessions, 0u);
}

TEST_F(ViewTest, ASessionsEndTakesItsRowsWhateverItsIdIs) {
  for (const std::string& id :
       {std::string(15, 's') + '\xff', std::string(16, '\xff'), std::string(16, '\0')}) {
    driver_->Open(id).Commit();
    driver_->Register("//d/a", "1", {.session = id}).Commit();
    EXPECT_EQ(view_->RegistrationsOf(id).value().size(), 1u);
    driver_->End(id, pb::REASON_CLOSED).Commit();
    EXPECT_EQ(Answer(*view_, "//d/a"), "NOT_FOUND");
    for (int sweep = 0; sweep < 2; ++sweep) {
      for (const Due& due : view_->DueTombstones(view_->Applied().number, 10))
        driver_->Erase(due.key);
      driver_->Commit();
    }
    EXPECT_TRUE(view_->RegistrationsOf(id).value().empty());
    EXPECT_FALSE(view_->Get(keys::SessionEnded(id)).value().has_value());
  }
}

TEST_F(ViewTest, TheLastEndpointStaysSuspectThoughItCameAndExpiredInOneRevision) {
  driver_->Open("s").Commit();
  driver_->Register("//d/a", "1", {.session = "s"}).End("s", pb::REASON_EXPIRED).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "NO_ENDPOINT //d/a total=1: amqp://h:1/suspect");
}

TEST_F(ViewTest, TheLastEndpointThatExpiresStaysSuspectUntilANewOneIsUp) {
  driver_->Open("s").Open("t").Commit();
  driver_->Register("//d/a", "1", {.session = "s"}).Commit();
  const uint64_t at = driver_->End("s", pb::REASON_EXPIRED).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "NO_ENDPOINT //d/a total=1: amqp://h:1/suspect");
  EXPECT_EQ(LastEvents(), "PUT //d/a amqp://h:1 suspect EXPIRED");
  EXPECT_TRUE(view_->DueTombstones(at + 9, 10).empty());
  auto last = view_->DueLastEndpoints(at, 10);
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[0].key, keys::Registration(A("//d/a"), "1"));
  EXPECT_EQ(last[0].since, at);
  EXPECT_EQ(last[0].modified, 2u);
  EXPECT_TRUE(view_->DueLastEndpoints(at - 1, 10).empty());

  driver_->Register("//d/a", "2", {.session = "t", .url = "amqp://h:2", .draining = true}).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"),
            "NO_ENDPOINT //d/a total=2: amqp://h:2/draining amqp://h:1/suspect");
  const uint64_t up =
      driver_->Register("//d/a", "2", {.session = "t", .url = "amqp://h:2"}).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=1: amqp://h:2/up");
  EXPECT_EQ(LastEvents(), "GONE //d/a amqp://h:1 suspect SUPERSEDED; PUT //d/a amqp://h:2 up");
  EXPECT_TRUE(view_->DueLastEndpoints(up, 10).empty());
  EXPECT_EQ(view_->DueTombstones(up, 10).size(), 1u);
}

TEST_F(ViewTest, OnlyTheLastOfAnAddressIsKept) {
  driver_->Open("s").Open("t").Open("u").Commit();
  for (const char* id : {"s", "t", "u"})
    driver_->Register("//d/a", id, {.session = id, .url = std::string("amqp://") + id + ":1"});
  driver_->Commit();
  driver_->End("s", pb::REASON_EXPIRED).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=2: amqp://t:1/up amqp://u:1/up");
  driver_->End("t", pb::REASON_EXPIRED).End("u", pb::REASON_EXPIRED).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"),
            "NO_ENDPOINT //d/a total=2: amqp://t:1/suspect amqp://u:1/suspect");
  // Ended by the sweeper: it goes, with its reason.
  driver_
      ->Register("//d/a", "t",
                 {.session = "t", .url = "amqp://t:1", .ended = pb::REASON_LAST_EXPIRED})
      .Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "NO_ENDPOINT //d/a total=1: amqp://u:1/suspect");
  EXPECT_EQ(LastEvents(), "GONE //d/a amqp://t:1 suspect LAST_EXPIRED");
}

TEST_F(ViewTest, AnExpiryLeavesTheAddressesBelowAnAnswerToo) {
  driver_->Open("s").Commit();
  driver_->Register("//d/a", "1", {.session = "s", .url = "amqp://sub:1", .subtree = true})
      .Register("//d/a", "2", {.url = "amqp://exact:1"})
      .Commit();
  driver_->End("s", pb::REASON_EXPIRED).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a/x"), "NO_ENDPOINT //d/a total=1: amqp://sub:1/suspect");
  driver_->Register("//d/a", "3", {.url = "amqp://new:1", .subtree = true}).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a/x"), "FOUND //d/a total=1: amqp://new:1/up");
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=2: amqp://exact:1/up amqp://new:1/up");
}

TEST_F(ViewTest, AServiceThatRegistersAgainTakesItsKeptRegistrationOver) {
  driver_->Open("s").Commit();
  driver_->Register("//d/a", "1", {.session = "s"}).Commit();
  driver_->End("s", pb::REASON_EXPIRED).Commit();
  const uint64_t at = driver_->Open("t").Register("//d/a", "1", {.session = "t"}).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=1: amqp://h:1/up");
  EXPECT_EQ(LastEvents(), "PUT //d/a amqp://h:1 up REPLACED");
  EXPECT_TRUE(view_->DueLastEndpoints(at, 10).empty());
  const auto due = view_->DueTombstones(at, 10);
  ASSERT_EQ(due.size(), 1u) << "the ended session has no registration left";
  EXPECT_EQ(due[0].key, keys::SessionEnded("s"));
  EXPECT_EQ(view_->RegistrationsOf("t").value().size(), 1u);
}

TEST_F(ViewTest, TombstonesAreDueOldestFirstAndASessionAfterItsRegistrations) {
  driver_->Open("s").Commit();
  driver_->Register("//d/a", "1", {.session = "s"}).Register("//d/b", "1", {}).Commit();
  const uint64_t first = driver_->Register("//d/b", "1", {.ended = pb::REASON_WITHDRAWN}).Commit();
  const uint64_t second = driver_->End("s", pb::REASON_CLOSED).Commit();
  auto due = view_->DueTombstones(first, 10);
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(due[0].key, keys::Registration(A("//d/b"), "1"));
  due = view_->DueTombstones(second, 10);
  ASSERT_EQ(due.size(), 2u);
  EXPECT_EQ(due[1].key, keys::Registration(A("//d/a"), "1"));
  for (const Due& d : due) {
    EXPECT_EQ(view_->Get(d.key).value()->modified, d.modified);
    driver_->Erase(d.key);
  }
  driver_->Commit();
  due = view_->DueTombstones(second, 10);
  ASSERT_EQ(due.size(), 1u) << "t/ is due once nothing of its session is left, not later";
  EXPECT_EQ(due[0].key, keys::SessionEnded("s"));
  driver_->Erase(due[0].key).Commit();
  EXPECT_TRUE(view_->DueTombstones(1000, 10).empty());
  EXPECT_TRUE(published_.back()->events.empty());
}

TEST_F(ViewTest, EqualContentWakesNobodyAndKeepsItsHash) {
  driver_->Open("s").Open("t").Commit();
  driver_->Register("//d/a", "1", {.session = "s"}).Commit();
  const pb::Row before = RowOf(*view_, "//d/a");
  driver_->Register("//d/a", "1", {.session = "t"}).Commit();
  EXPECT_EQ(RowOf(*view_, "//d/a").SerializeAsString(), before.SerializeAsString());
  EXPECT_TRUE(published_.back()->addresses.empty());
  driver_->Register("//d/a", "1", {.session = "t", .priority = 1}).Commit();
  EXPECT_NE(RowOf(*view_, "//d/a").hash(), before.hash());
  EXPECT_EQ(RowOf(*view_, "//d/a").modified().number(), view_->Applied().number);
}

TEST_F(ViewTest, PublishNamesWhatChangedAndWhetherBelowToo) {
  driver_->Register("//d/a", "1", {}).Register("//d/b", "1", {.subtree = true}).Commit();
  const auto& changes = published_.back()->addresses;
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].address.text(), "//d/a");
  EXPECT_FALSE(changes[0].subtree);
  EXPECT_EQ(changes[1].address.text(), "//d/b");
  EXPECT_TRUE(changes[1].subtree);
}

// What a row must hold, computed from all registrations: a beginning of the order.
void ExpectBeginning(const pb::Row& row, std::vector<std::pair<uint32_t, std::string>> all) {
  std::sort(all.begin(), all.end());
  ASSERT_LE(static_cast<size_t>(row.endpoints_size()), all.size());
  ASSERT_EQ(row.total(), all.size());
  for (int i = 0; i < row.endpoints_size(); ++i)
    ASSERT_EQ(row.endpoints(i).url(), "amqp://h" + all[i].second + ":1") << "place " << i;
}

TEST_F(ViewTest, ALargeRowStaysABeginningOfTheOrderAndIsRefilledAtHalf) {
  std::mt19937 random(7);
  std::vector<std::pair<uint32_t, std::string>> all;
  for (int i = 1000; i < 1600; ++i) {
    const uint32_t priority = random() % 4;
    all.emplace_back(priority, std::to_string(i));
    driver_->Register("//d/a", std::to_string(i),
                      {.url = "amqp://h" + std::to_string(i) + ":1", .priority = priority});
    if (i % 20 == 0) driver_->Commit();
  }
  driver_->Commit();
  ExpectBeginning(RowOf(*view_, "//d/a"), all);
  EXPECT_EQ(RowOf(*view_, "//d/a").endpoints_size(), 256);
  while (!all.empty()) {
    const size_t gone = random() % std::min<size_t>(all.size(), 40);
    std::sort(all.begin(), all.end());
    driver_->Register("//d/a", all[gone].second, {.ended = pb::REASON_WITHDRAWN}).Commit();
    all.erase(all.begin() + static_cast<long>(gone));
    if (all.empty()) break;
    const pb::Row row = RowOf(*view_, "//d/a");
    ExpectBeginning(row, all);
    ASSERT_GE(static_cast<size_t>(row.endpoints_size()), std::min<size_t>(all.size(), 128));
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(Answer(*view_, "//d/a"), "NOT_FOUND");
}

TEST_F(ViewTest, RowsAreBoundedInBytes) {
  for (int i = 0; i < 100; ++i)
    driver_->Register(
        "//d/a", std::to_string(i + 100),
        {.url = "amqp://h" + std::to_string(i) + ":1", .label = std::string(2000, 'x')});
  driver_->Commit();
  const pb::Row row = RowOf(*view_, "//d/a");
  EXPECT_LE(row.ByteSizeLong(), limits::kAnswerBytes);
  EXPECT_GE(row.endpoints_size(), 20);
  EXPECT_EQ(row.total(), 100u);
}

TEST_F(ViewTest, TenThousandEndpointsOfOneAddressDoNotSlowARegistrationDown) {
  size_t staged_at_300 = 0, staged_at_10000 = 0;
  for (int i = 0; i < 10000; ++i) {
    driver_->Register("//d/a", std::to_string(i * 7919 % 10000 + 10000),
                      {.url = "amqp://h" + std::to_string(i) + ":1"});
    if (i % 100 != 99 && i != 9998) continue;
    const uint64_t before = view_->db().GetLatestSequenceNumber();
    driver_->Commit();
    if (i == 299) staged_at_300 = view_->db().GetLatestSequenceNumber() - before;
    if (i == 9899) staged_at_10000 = view_->db().GetLatestSequenceNumber() - before;
  }
  EXPECT_EQ(staged_at_300, staged_at_10000) << "keys written for 100 registrations";
  const pb::Row row = RowOf(*view_, "//d/a");
  EXPECT_EQ(row.endpoints_size(), 256);
  EXPECT_EQ(row.total(), 10000u);
  EXPECT_LE(row.ByteSizeLong(), limits::kAnswerBytes);
}

}  // namespace
}  // namespace datawire::directory::testing_view
