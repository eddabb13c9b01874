#include <gtest/gtest.h>

#include "datawire/record/v1/record.pb.h"
#include "engine/etcd/follower.h"
#include "engine/etcd/members.h"
#include "engine/etcd/patience.h"
#include "engine/etcd/transaction.h"
#include "view/encoding.h"

namespace datawire::directory::etcd {
namespace {

const NodeKeys kKeys{"n1", "run7"};

Op PutOp(const std::string& key) {
  Op op;
  op.changes = {{false, key, "x"}};
  return op;
}

// ---- Transaction

TEST(EtcdTransaction, TakesSoManyOpsThatEtcdTakesThem) {
  Transaction transaction(128);
  size_t taken = 0;
  Op op = PutOp("d/0");
  op.guards.resize(7);
  op.changes.resize(7);
  for (; taken < 1000; ++taken) {
    for (size_t i = 0; i < 7; ++i)
      op.changes[i].key = op.guards[i].key = "d/" + std::to_string(taken * 7 + i);
    if (!transaction.Fits(op)) break;
    transaction.Add(op);
  }
  const api::TxnRequest request = transaction.Build(kKeys, std::pair{uint64_t{0}, uint64_t{1}});
  EXPECT_EQ(taken, 120u);
  EXPECT_LE(request.success_size() + 7, 128) << "etcd counts the outer ones and one nested";
}

TEST(EtcdTransaction, AnOpOnAKeyThatItWritesDoesNotFit) {
  Transaction transaction(128);
  transaction.Add(PutOp("d/a"));
  EXPECT_FALSE(transaction.Fits(PutOp("d/a")));
  Op guards = PutOp("d/b");
  guards.guards = {{Guard::kAbsent, "d/a"}};
  EXPECT_FALSE(transaction.Fits(guards));
  Op reads = PutOp("d/b");
  reads.read_on_failure = "d/a";
  EXPECT_FALSE(transaction.Fits(reads));
  EXPECT_TRUE(transaction.Fits(PutOp("d/b")));
}

TEST(EtcdTransaction, StaysBelowTheBytesThatEtcdTakes) {
  Transaction transaction(128);
  Op op = PutOp("d/a");
  op.changes[0].value.assign(16 * 1024, 'v');
  size_t taken = 0;
  for (; taken < 128; ++taken) {
    op.changes[0].key = "d/" + std::to_string(taken);
    if (!transaction.Fits(op)) break;
    transaction.Add(op);
  }
  EXPECT_GT(taken, 50u);
  EXPECT_LT(transaction.Build(kKeys, {}).ByteSizeLong(), 1'500'000u);
}

// What etcd answers when the outer guards do not hold.
api::TxnResponse Refused(const std::string& run, const std::string& slot) {
  api::TxnResponse out;
  out.mutable_header()->set_revision(50);
  for (const std::string& value : {run, slot}) {
    auto* const range = out.add_responses()->mutable_response_range();
    if (value.empty()) continue;
    auto* const kv = range->add_kvs();
    kv->set_value(value);
    kv->set_mod_revision(40);
  }
  return out;
}

TEST(EtcdTransaction, TellsWhyNothingWasDone) {
  const auto read = [](const std::string& run, const std::string& slot) {
    return Transaction::Read(Refused(run, slot), kKeys, true, 5);
  };
  EXPECT_EQ(read("run8", "run7 4").what, Verdict::kForeign) << "another run has taken over";
  EXPECT_EQ(read("", "").what, Verdict::kForeign);
  EXPECT_EQ(read("run7", "").what, Verdict::kForeign);
  EXPECT_EQ(read("run7", "garbage").what, Verdict::kForeign);
  const Verdict repeated = read("run7", "run7 5");
  EXPECT_EQ(repeated.what, Verdict::kRepeated);
  EXPECT_EQ(repeated.at, 40u) << "when it was done";
  const Verdict earlier = read("run7", "run7 3");
  EXPECT_EQ(earlier.what, Verdict::kEarlier);
  EXPECT_EQ(earlier.slot, 3u);
}

// ---- Follower

api::WatchResponse Response(std::initializer_list<std::pair<const char*, int64_t>> puts) {
  api::WatchResponse out;
  for (const auto& [key, at] : puts) {
    auto* const event = out.add_events();
    event->mutable_kv()->set_key(std::string(kPrefix) + key);
    event->mutable_kv()->set_mod_revision(at);
    out.mutable_header()->set_revision(at);
  }
  return out;
}

std::vector<uint64_t> Revisions(const Result<std::vector<Followed>>& taken) {
  std::vector<uint64_t> out;
  if (!taken.ok()) return out;
  for (const Followed& one : *taken) out.push_back(one.batch.at.number);
  return out;
}

using Numbers = std::vector<uint64_t>;

TEST(EtcdFollower, GivesWholeRevisionsInOrderEachOnce) {
  Follower follower(1, 10);
  EXPECT_EQ(follower.next(), 11u);
  const auto taken = follower.Take(Response({{"d/a", 11}, {"d/b", 11}, {"d/c", 12}}));
  ASSERT_EQ(Revisions(taken), (Numbers{11, 12}));
  EXPECT_EQ((*taken)[0].batch.puts.size(), 2u);
  EXPECT_EQ(Revisions(follower.Take(Response({{"d/b", 11}, {"d/c", 12}, {"d/d", 13}}))),
            (Numbers{13}))
      << "what comes again is dropped";
  EXPECT_EQ(follower.next(), 14u);
}

TEST(EtcdFollower, AnAuthorityOfTheSameEpochIsNoNews) {
  Follower follower(2, 10);
  const auto authority = [](uint64_t epoch, int64_t at, uint32_t format = kFormat) {
    record::v1::Authority value;
    value.set_epoch(epoch);
    value.set_format(format);
    auto out = Response({{"m/epoch", at}});
    out.mutable_events(0)->mutable_kv()->set_value(value.SerializeAsString());
    return out;
  };
  EXPECT_EQ(Revisions(follower.Take(authority(2, 11))), (Numbers{11}));
  EXPECT_EQ(follower.Take(authority(3, 12)).status().code(), Code::kFenced);
  EXPECT_EQ(follower.Take(authority(2, 13, kFormat + 1)).status().code(), Code::kFenced)
      << "what follows may be of kinds that this program would take for something else";
}

TEST(EtcdFollower, KindsThatItDoesNotKnowAreNoneOfTheViewsRecords) {
  Follower follower(1, 10);
  const auto taken =
      follower.Take(Response({{"z/new", 11}, {"r/a", 12}, {"x/a", 13}, {"d/a", 14}}));
  ASSERT_EQ(Revisions(taken), (Numbers{11, 12, 13, 14}));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE((*taken)[i].batch.puts.empty()) << i;
  EXPECT_EQ((*taken)[3].batch.puts.size(), 1u);
}

TEST(EtcdFollower, AHoleMeansThatTheViewMustBeListedAnew) {
  Follower follower(1, 10);
  EXPECT_EQ(follower.Take(Response({{"d/a", 12}})).status().code(), Code::kAborted);
  follower.Jump(20);
  EXPECT_EQ(Revisions(follower.Take(Response({{"d/a", 21}}))), (Numbers{21}));
  EXPECT_EQ(follower.Take(Response({{"d/a", 22}, {"d/a", 24}})).status().code(), Code::kAborted);
}

TEST(EtcdFollower, ProgressBeyondWhatWasSentMeansThatTheWatchLostItsPlace) {
  Follower follower(1, 10);
  api::WatchResponse progress;
  progress.mutable_header()->set_revision(10);
  EXPECT_TRUE(follower.Take(progress).ok());
  progress.mutable_header()->set_revision(11);
  EXPECT_EQ(follower.Take(progress).status().code(), Code::kUnavailable);
}

TEST(EtcdFollower, ACompactedStartIsListedAndAnotherEndIsWatchedAgain) {
  Follower follower(1, 10);
  api::WatchResponse canceled;
  canceled.set_canceled(true);
  EXPECT_EQ(follower.Take(canceled).status().code(), Code::kUnavailable);
  canceled.set_compact_revision(30);
  EXPECT_EQ(follower.Take(canceled).status().code(), Code::kAborted);
}

TEST(EtcdFollower, SlotsAreNoneOfTheViewsRecordsAndCountAsRevisions) {
  Follower follower(1, 10);
  const auto taken = follower.Take(Response({{"b/n1/slot", 11}, {"d/a", 12}}));
  ASSERT_EQ(Revisions(taken), (Numbers{11, 12}));
  EXPECT_TRUE((*taken)[0].batch.puts.empty());
  EXPECT_EQ((*taken)[0].slots.size(), 1u);
}

TEST(EtcdFollower, ARaisedEpochIsTold) {
  Follower follower(1, 10);
  EXPECT_EQ(follower.Take(Response({{"m/epoch", 11}})).status().code(), Code::kFenced);
}

TEST(EtcdMembers, AnAlarmIsThatOfItsMemberWhoeverTellsIt) {
  const auto said = [](const std::string& endpoint, uint64_t id, uint64_t leader) {
    api::StatusResponse status;
    status.mutable_header()->set_member_id(id);
    status.set_leader(leader);
    return MemberSaid{endpoint, status, {}};
  };
  std::vector<MemberSaid> all{said("a:1", 1, 2),
                              said("b:1", 2, 2),
                              said("c:1", 3, 0),
                              {"d:1", Status(Code::kTimeout, "does not answer"), {}}};
  api::AlarmMember alarm;
  alarm.set_memberid(1);
  alarm.set_alarm(api::NOSPACE);
  all[0].status->add_errors("memberID:1 alarm:NOSPACE ");
  all[1].status->add_errors("memberID:1 alarm:NOSPACE ");
  all[1].alarms.push_back(alarm);
  const auto members = Judge(all);
  EXPECT_TRUE(members[0].no_space);
  EXPECT_FALSE(members[0].leader);
  EXPECT_FALSE(members[1].no_space);
  EXPECT_EQ(members[1].reason, "");
  EXPECT_TRUE(members[1].leader);
  EXPECT_EQ(members[2].reason, "it knows of no leader");
  EXPECT_FALSE(members[3].reached.ok());
}

// ---- Patience

TEST(EtcdPatience, AFrozenMemberIsLeftAfterASecondAndTheNextHasTwiceTheTime) {
  const BootTime at{std::chrono::hours(1)};
  Patience patience(at);
  std::vector<int> moves;
  for (int ms = 0; ms <= 70'000; ms += 250)
    if (patience.Over(at, at + std::chrono::milliseconds(ms))) moves.push_back(ms);
  EXPECT_EQ(moves, (std::vector<int>{1250, 3500, 7750, 16'000, 32'250, 48'500, 64'750}));
  patience.Renew();
  EXPECT_TRUE(patience.Over(at, at + std::chrono::milliseconds(66'000))) << "as at first";
}

TEST(EtcdPatience, WhoIsNotBehindLongIsLeftAlone) {
  const BootTime at{std::chrono::hours(1)};
  Patience patience(at);
  EXPECT_FALSE(patience.Over(at + std::chrono::seconds(9), at + std::chrono::seconds(10)));
}

}  // namespace
}  // namespace datawire::directory::etcd
