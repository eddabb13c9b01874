#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "view/audit.h"
#include "view_fixture.h"

namespace datawire::directory {
namespace {

using namespace testing_view;

std::string VerbOf(const record::Audit::Entry& entry) {
  return pb::AuditVerb_Name(entry.verb()).substr(sizeof "AUDIT_VERB");
}

bool GoOn() {
  return true;
}

class AuditTest : public ViewTest {
 protected:
  record::Audit Last() const {
    record::Audit out;
    EXPECT_TRUE(view_
                    ->ScanAudit(UINT64_MAX, true,
                                [&](const AuditRevision& revision) {
                                  out.ParseFromString(std::string(revision.entries));
                                  return false;
                                })
                    .ok());
    return out;
  }
  /// Verbs of the last revision with entries.
  std::string LastVerbs() const {
    std::string out;
    const record::Audit last = Last();
    for (const auto& entry : last.entries()) out += (out.empty() ? "" : " ") + VerbOf(entry);
    return out;
  }
  std::vector<uint64_t> Revisions() const {
    std::vector<uint64_t> out;
    const std::string to = "j0";
    const rocksdb::Slice upper(to);
    const auto it = Reading{.db = &view_->db()}.Range("j/", &upper);
    for (; it->Valid(); it->Next()) out.push_back(Reader(it->key().ToStringView().substr(2)).U64());
    return out;
  }
  AuditCheck Check(const std::optional<AuditSeen>& seen = {}) const {
    auto check = view_->VerifyAudit(seen, GoOn);
    EXPECT_TRUE(check.ok()) << check.status().ToString();
    return check.ok() ? *check : AuditCheck{.broken = AuditCheck::Broken{{}, "not walked"}};
  }
  /// As somebody would who can write to the disc: behind the view, at what it reads next.
  AuditCheck CheckNewest(const std::optional<AuditSeen>& seen = {}) const {
    auto check = VerifyAudit(Reading{.db = &view_->db()}, seen, GoOn);
    EXPECT_TRUE(check.ok()) << check.status().ToString();
    return check.ok() ? *check : AuditCheck{};
  }
  std::string Stored(const std::string& key) const {
    return Reading{.db = &view_->db()}.Get(key).value().value_or("");
  }
  void Overwrite(const std::string& key, const std::string& value) {
    ASSERT_TRUE(value.empty() ? view_->db().Delete({}, key).ok()
                              : view_->db().Put({}, key, value).ok());
  }
  void RegisterAt(int64_t wall_ms, int n, const std::string& filler = "") {
    record::Registration registration = Value({.url = "amqp://h:" + std::to_string(n)});
    registration.set_at_wall_ms(wall_ms);
    (*registration.mutable_endpoint()->mutable_labels())["filler"] = filler;
    driver_->Put(keys::Registration(A("//d/a"), "i" + std::to_string(n)),
                 registration.SerializeAsString());
    driver_->Commit();
  }
};

TEST_F(AuditTest, EachKindOfChangeIsAnEntryOfItsRevision) {
  const auto entry = [this](int i = 0) { return Last().entries(i); };
  driver_->Open("s").Commit();
  EXPECT_EQ(LastVerbs(), "OPEN_SESSION");
  EXPECT_FALSE(entry().has_before());
  EXPECT_TRUE(entry().has_after());
  driver_->Open("s").Commit();
  EXPECT_EQ(LastVerbs(), "RESUME_SESSION");
  const std::string registered = Value({.session = "s"}).SerializeAsString();
  driver_->Register("//d/a", "i", {.session = "s"}).Commit();
  EXPECT_EQ(LastVerbs(), "REGISTER");
  EXPECT_EQ(entry().key(), keys::Registration(A("//d/a"), "i"));
  EXPECT_FALSE(entry().has_before());
  EXPECT_EQ(entry().after(), registered);
  driver_->Register("//d/a", "i", {.session = "s", .draining = true}).Commit();
  EXPECT_EQ(LastVerbs(), "DRAIN");
  EXPECT_EQ(entry().before(), registered);
  driver_->Register("//d/a", "i", {.session = "s"}).Commit();
  EXPECT_EQ(LastVerbs(), "UNDRAIN");
  driver_->Mark("s", pb::ENDPOINT_STATE_SUSPECT).Commit();
  EXPECT_EQ(LastVerbs(), "SUSPECT_SESSION");
  driver_->Mark("s", pb::ENDPOINT_STATE_DRAINING).Commit();
  EXPECT_EQ(LastVerbs(), "DRAIN_SESSION");
  driver_->Mark("s", pb::ENDPOINT_STATE_UP).Commit();
  EXPECT_EQ(LastVerbs(), "CLEAR_SESSION");
  driver_->Erase(keys::SessionMark("s")).Commit();
  EXPECT_EQ(LastVerbs(), "CLEAR_SESSION");
  driver_->End("s", pb::REASON_EXPIRED).Commit();
  EXPECT_EQ(LastVerbs(), "EXPIRE_SESSION");
  driver_->Register("//d/a", "i", {.session = "s", .ended = pb::REASON_LAST_EXPIRED}).Commit();
  EXPECT_EQ(LastVerbs(), "EXPIRE");
  record::AddressPolicy policy;
  policy.set_policy(pb::POLICY_ORDERED);
  driver_->Put(keys::Policy(A("//d/a")), policy.SerializeAsString()).Commit();
  EXPECT_EQ(LastVerbs(), "SET_POLICY");
  policy.mutable_ended()->set_by("o");
  driver_->Put(keys::Policy(A("//d/a")), policy.SerializeAsString()).Commit();
  EXPECT_EQ(LastVerbs(), "UNSET_POLICY");
  driver_->Register("//d/b", "i", {}).Register("//d/c", "i", {}).Commit();
  EXPECT_EQ(LastVerbs(), "REGISTER REGISTER");
  driver_->Register("//d/b", "i", {.ended = pb::REASON_WITHDRAWN}).Commit();
  EXPECT_EQ(LastVerbs(), "WITHDRAW");
  driver_->Open("t").Commit();
  driver_->End("t", pb::REASON_CLOSED).Commit();
  EXPECT_EQ(LastVerbs(), "END_SESSION");
  const uint64_t last = driver_->Erase(keys::Registration(A("//d/c"), "i")).Commit();
  EXPECT_EQ(LastVerbs(), "ERASE");
  // What the sweep takes away ended before.
  driver_->Erase(keys::Registration(A("//d/b"), "i"))
      .Erase(keys::SessionEnded("t"))
      .Erase(keys::Policy(A("//d/a")))
      .Commit();
  EXPECT_EQ(Revisions().back(), last);
  const AuditCheck check = Check();
  EXPECT_FALSE(check.broken) << check.broken->why;
  EXPECT_EQ(check.last.number, last);
  EXPECT_EQ(check.revisions, last);
  EXPECT_EQ(check.entries, last + 1);
}

TEST_F(AuditTest, NoSecretNorItsHashIsInIt) {
  record::Session session;
  session.set_program("p");
  session.set_secret_sha256("do not tell");
  driver_->Put(keys::Session("s"), session.SerializeAsString()).Commit();
  driver_->Put(keys::Session("s"), session.SerializeAsString()).Commit();
  driver_->End("s", pb::REASON_CLOSED).Commit();
  for (const uint64_t number : Revisions()) {
    const std::string stored = Stored(keys::Audit(number));
    EXPECT_EQ(stored.find("do not tell"), std::string::npos) << number;
    EXPECT_NE(stored.find("p"), std::string::npos) << number;
  }
}

TEST_F(AuditTest, IsInTheBatchOfItsChange) {
  driver_->Register("//d/a", "i", {});
  driver_->Stage();
  EXPECT_EQ(Stored(keys::Audit(1)), "");
  driver_->Write();
  EXPECT_NE(Stored(keys::Audit(1)), "");
  EXPECT_NE(Stored(keys::Registration(A("//d/a"), "i")), "");
  driver_->Publish();
}

TEST_F(AuditTest, TwoReplicasOfTheSameBatchesHaveEqualChains) {
  auto other = View::Create(dir_ / "other", {"cluster", 1});
  ASSERT_TRUE(other.ok());
  Driver also(**other);
  for (Driver* driver : {driver_.get(), &also}) {
    driver->Open("s").Commit();
    driver->Register("//d/a", "i", {.session = "s", .label = "x"}).Register("//d/b", "i", {});
    driver->Commit();
    driver->End("s", pb::REASON_EXPIRED).Commit();
  }
  const auto check = (*other)->VerifyAudit({}, GoOn);
  ASSERT_TRUE(check.ok());
  EXPECT_EQ(check->last_hash, Check().last_hash);
  EXPECT_NE(check->last_hash, AuditHash{});
  also.Register("//d/a", "j", {}).Commit();
  EXPECT_NE((*other)->VerifyAudit({}, GoOn)->last_hash, Check().last_hash);
}

TEST_F(AuditTest, ARestartGoesOnWithTheChain) {
  RegisterAt(1, 1);
  Reopen();
  RegisterAt(2, 2);
  const AuditCheck check = Check();
  EXPECT_FALSE(check.broken);
  EXPECT_EQ(check.revisions, 2U);
}

TEST_F(AuditTest, AFailedWriteLeavesTheChainAsItWas) {
  RegisterAt(1, 1);
  driver_->Register("//d/b", "i", {});
  driver_->Stage();
  view_->Discard({1, 2});
  Reopen();
  RegisterAt(2, 2);
  EXPECT_FALSE(Check().broken);
}

TEST_F(AuditTest, AStoreOfBeforeThereWasALogBeginsOne) {
  RegisterAt(1, 1);
  Overwrite(keys::Audit(1), "");
  Overwrite(keys::kApplied, Stored(keys::kApplied).substr(0, 48));
  Reopen();
  EXPECT_EQ(view_->Applied().number, 1U);
  RegisterAt(2, 2);
  const AuditCheck check = Check();
  EXPECT_FALSE(check.broken);
  EXPECT_EQ(check.revisions, 1U);
}

TEST_F(AuditTest, EachOf500EditsIsFound) {
  for (int n = 1; n <= 40; ++n) RegisterAt(n, n);
  view_->TrimAudit(UINT64_MAX, 6);
  ASSERT_EQ(Revisions().size(), 35U);
  ASSERT_FALSE(CheckNewest().broken);
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&random](size_t n) { return random() % n; };
  for (int round = 0; round < 500; ++round) {
    std::map<std::string, std::string> was;
    const auto edit = [&](const std::string& key, const std::string& value) {
      was.emplace(key, Stored(key));
      Overwrite(key, value);
    };
    const uint64_t number = 6 + below(35);
    const std::string key = keys::Audit(number), value = Stored(key);
    ASSERT_NE(value, "");
    std::string what;
    uint64_t first = number;
    switch (round % 8) {
      case 0:
      case 1: {
        std::string changed = value;
        changed[below(value.size())] ^= static_cast<char>(1 << below(8));
        edit(key, changed);
        what = "a bit";
        break;
      }
      case 2:
        edit(key, "");
        what = "removed";
        break;
      case 3: {
        const uint64_t other = number == 40 ? 39 : number + 1;
        edit(key, Stored(keys::Audit(other)));
        edit(keys::Audit(other), value);
        first = std::min(number, other);
        what = "swapped";
        break;
      }
      case 4:
        for (uint64_t n = 6; n <= number; ++n) edit(keys::Audit(n), "");
        what = "start cut off";
        break;
      case 5:
        for (uint64_t n = number; n <= 40; ++n) edit(keys::Audit(n), "");
        what = "end cut off";
        break;
      case 6: {  // and its own hash computed anew, but not those after it
        std::string changed = value;
        changed.back() ^= 1;
        const AuditHash former = number == 6 ? DecodeAuditFloor(Stored(keys::kAuditFloor))->hash
                                             : DecodeAudit(Stored(keys::Audit(number - 1)))->hash;
        std::copy(former.begin(), former.end(), changed.begin());
        const AuditHash anew = DigestOf(changed);
        std::copy(anew.begin(), anew.end(), changed.begin());
        edit(key, changed);
        first = std::min<uint64_t>(number + 1, 40);
        what = "hashed anew";
        break;
      }
      default:
        edit(key, value.substr(0, 1 + below(value.size() - 1)));
        what = "shortened";
    }
    const AuditCheck check = CheckNewest();
    ASSERT_TRUE(check.broken) << what << " at " << number << ", round " << round;
    // A hash that was changed itself shows there, or where it was to be followed.
    EXPECT_GE(check.broken->at.number, first) << what;
    EXPECT_LE(check.broken->at.number, what == "removed" || what == "start cut off" ? number + 1
                                       : what == "end cut off"                      ? 40
                                                                                    : first)
        << what;
    for (const auto& [stored_key, stored] : was) Overwrite(stored_key, stored);
  }
  EXPECT_FALSE(CheckNewest().broken);
}

TEST_F(AuditTest, ALogWrittenAnewIsFoundByWhoKeptAHash) {
  for (int n = 1; n <= 5; ++n) RegisterAt(n, n);
  const AuditCheck former = Check();
  const AuditSeen seen{former.last.number,
                       std::string(former.last_hash.data(), former.last_hash.size())};
  RegisterAt(6, 6);
  EXPECT_FALSE(Check(seen).broken);
  const AuditCheck wrong = Check(AuditSeen{5, std::string(32, 'x')});
  ASSERT_TRUE(wrong.broken);
  EXPECT_EQ(wrong.broken->at.number, 5U);
  // One that has no such revision was written anew, too.
  EXPECT_TRUE(Check(AuditSeen{7, seen.hash}).broken);
  view_->TrimAudit(UINT64_MAX, 6);
  EXPECT_FALSE(CheckNewest(seen).broken);  // the hash before the first that is left is kept
  RegisterAt(7, 7);
  view_->TrimAudit(UINT64_MAX, 7);
  RegisterAt(8, 8);
  EXPECT_EQ(view_->VerifyAudit(seen, GoOn).status().code(), Code::kNotFound);
}

TEST_F(AuditTest, IsKeptBySize) {
  for (int n = 1; n <= 100; ++n) RegisterAt(n, n, std::string(1000, 'x'));
  const uint64_t one = Stored(keys::Audit(50)).size();
  view_->TrimAudit(100 * one, 0);
  EXPECT_EQ(Revisions().size(), 100U);
  view_->TrimAudit(20 * one, 0);
  EXPECT_LE(Revisions().size(), 20U);
  EXPECT_GE(Revisions().size(), 18U);
  EXPECT_FALSE(CheckNewest().broken) << CheckNewest().broken->why;
  RegisterAt(101, 101);
  EXPECT_FALSE(Check().broken);
  Reopen();
  view_->TrimAudit(1, 0);
  EXPECT_FALSE(CheckNewest().broken);
  RegisterAt(102, 102);
  EXPECT_EQ(Revisions(), std::vector<uint64_t>{102});
  EXPECT_FALSE(Check().broken);
  EXPECT_EQ(Check().floor, 101U);
}

TEST_F(AuditTest, IsKeptByAgeAndAClockThatWasWrongTakesNothingYoung) {
  for (int n = 1; n <= 10; ++n) RegisterAt(n * 1000, n);
  RegisterAt(1, 11);  // the clock was set back for a moment
  driver_->Erase(keys::Registration(A("//d/a"), "i1")).Commit();  // nobody notes a time
  RegisterAt(12'000, 13);
  view_->TrimAudit(UINT64_MAX, 5'000);
  EXPECT_EQ(Revisions(), (std::vector<uint64_t>{5, 6, 7, 8, 9, 10, 11, 12, 13}));
  EXPECT_FALSE(CheckNewest().broken);
  EXPECT_EQ(view_->AuditSince(9'500).value(), 10U);
}

TEST_F(AuditTest, VerifyingEndsWhenNobodyWaits) {
  RegisterAt(1, 1);
  EXPECT_EQ(view_->VerifyAudit({}, [] { return false; }).status().code(), Code::kCancelled);
}

}  // namespace
}  // namespace datawire::directory
