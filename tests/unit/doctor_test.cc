#include "doctor.h"

#include <gtest/gtest.h>

#include <functional>

// What dw doctor makes of what servers say.

namespace datawire::cli {
namespace {

using std::chrono::milliseconds;

/// A server with which nothing is wrong.
Examined Well(const std::string& server = "a:1") {
  pb::StatusResponse status;
  status.mutable_source()->set_cluster_id("c");
  status.mutable_source()->set_epoch(1);
  status.mutable_source()->set_node_id("n");
  status.set_version("1.0");
  status.set_healthy(true);
  status.set_wall_ms(1'000'000);
  status.set_open_files(10);
  status.set_open_files_most(4096);
  status.set_disc_free_bytes(50ull << 30);
  status.set_disc_bytes(100ull << 30);
  return {server, std::move(status), milliseconds(2), 1'000'000};
}

/// The findings of one server that are not ok, `warn disc`; and that each has a remedy.
std::vector<std::string> Wrong(const std::function<void(pb::StatusResponse&, Examined&)>& change) {
  Examined examined = Well();
  change(*examined.status, examined);
  std::vector<std::string> out;
  for (const Finding& finding : Diagnose({examined}, "1.0", 1024)) {
    EXPECT_EQ(finding.remedy.empty(), finding.verdict == Verdict::kOk) << finding.what;
    EXPECT_EQ(finding.what.find('\n'), std::string::npos);
    if (finding.verdict != Verdict::kOk)
      out.push_back(std::string(VerdictName(finding.verdict)) + " " + finding.check);
  }
  return out;
}

using Lines = std::vector<std::string>;

TEST(Doctor, FindsNothingWrongWithWhatIsWell) {
  EXPECT_EQ(Wrong([](auto&, auto&) {}), Lines());
  EXPECT_EQ(Diagnose({Well()}, "1.0", 1024).size(), 8u) << "and says what it looked at";
}

TEST(Doctor, AServerThatDoesNotAnswerFailsAndIsAskedNothingMore) {
  Examined silent{"b:2", Status(Code::kUnavailable, "cannot be reached"), milliseconds(0), 0};
  const auto findings = Diagnose({silent}, "1.0", 1024);
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[0].verdict, Verdict::kFail);
  EXPECT_EQ(findings[0].server, "b:2");
  EXPECT_NE(findings[0].what.find("cannot be reached"), std::string::npos);
}

TEST(Doctor, AServerThatDoesNotCommitFailsAndABrakeWarns) {
  EXPECT_EQ(Wrong([](auto& status, auto&) { status.set_healthy(false); }), Lines{"fail health"});
  EXPECT_EQ(Wrong([](auto& status, auto&) { status.set_brake_on(true); }), Lines{"warn health"});
}

TEST(Doctor, ClocksThatAreApartWarnWhicheverIsAhead) {
  for (const int64_t apart : {-5000, 5000}) {
    EXPECT_EQ(Wrong([&](auto& status, auto&) { status.set_wall_ms(1'000'000 + apart); }),
              Lines{"warn clock"});
    EXPECT_EQ(Wrong([&](auto& status, auto& examined) {
                status.set_wall_ms(1'000'000 + apart);
                examined.took = milliseconds(6000);
              }),
              Lines())
        << "a slow call is no difference of clocks";
  }
  EXPECT_EQ(Wrong([](auto& status, auto&) { status.set_wall_ms(1'000'900); }), Lines());
}

TEST(Doctor, AnotherVersionWarns) {
  EXPECT_EQ(Wrong([](auto& status, auto&) { status.set_version("2.0"); }), Lines{"warn version"});
}

TEST(Doctor, AnOlderServerThatDoesNotSayWarns) {
  EXPECT_EQ(Wrong([](auto& status, auto&) {
              status.clear_wall_ms();
              status.clear_open_files_most();
              status.clear_disc_bytes();
            }),
            (Lines{"warn clock", "warn files", "warn disc"}));
}

TEST(Doctor, OpenFilesWarnWhenTheyRunLowAndFailBeforeTheyRunOut) {
  const auto files = [](uint64_t open, uint64_t most) {
    return Wrong([&](auto& status, auto&) {
      status.set_open_files(open);
      status.set_open_files_most(most);
    });
  };
  EXPECT_EQ(files(10, 1024), Lines{"warn files"});
  EXPECT_EQ(files(7999, 10'000), Lines());
  EXPECT_EQ(files(8000, 10'000), Lines{"warn files"});
  EXPECT_EQ(files(9500, 10'000), Lines{"fail files"});
  EXPECT_EQ(Diagnose({Well()}, "1.0", 200).back().verdict, Verdict::kWarn);
}

TEST(Doctor, DiscSpaceWarnsWhenItRunsLowAndFailsBeforeTheServerRefuses) {
  const auto disc = [](uint64_t free_mib, uint64_t all_mib) {
    return Wrong([&](auto& status, auto&) {
      status.set_disc_free_bytes(free_mib << 20);
      status.set_disc_bytes(all_mib << 20);
    });
  };
  EXPECT_EQ(disc(2000, 10'000), Lines());
  EXPECT_EQ(disc(1023, 10'000), Lines{"warn disc"});
  EXPECT_EQ(disc(2000, 100'000), Lines{"warn disc"}) << "less than a twentieth";
  EXPECT_EQ(disc(63, 10'000), Lines{"fail disc"});
}

TEST(Doctor, ServersOfTwoClustersOrEpochsFail) {
  for (const bool other_id : {true, false}) {
    Examined other = Well("b:2");
    if (other_id)
      other.status->mutable_source()->set_cluster_id("d");
    else
      other.status->mutable_source()->set_epoch(2);
    const auto findings = Diagnose({Well(), other}, "1.0", 1024);
    const auto& cluster = findings[findings.size() - 2];
    EXPECT_EQ(cluster.check, "cluster");
    EXPECT_EQ(cluster.verdict, Verdict::kFail);
    EXPECT_NE(cluster.what.find("b:2"), std::string::npos) << cluster.what;
  }
}

/// Two nodes and one member of etcd, all well.
pb::MembersResponse WellMembers() {
  pb::MembersResponse out;
  for (const char* id : {"n1", "n2"}) {
    auto* node = out.add_nodes();
    node->set_id(id);
    node->set_version("1.0");
    node->mutable_status()->set_healthy(true);
  }
  auto* member = out.add_etcd();
  member->set_endpoint("e:1");
  member->set_reachable(true);
  member->set_leader(true);
  return out;
}

Lines WrongOfCluster(const std::function<void(pb::MembersResponse&)>& change) {
  pb::MembersResponse members = WellMembers();
  change(members);
  Lines out;
  for (const Finding& finding : DiagnoseCluster(members)) {
    EXPECT_EQ(finding.remedy.empty(), finding.verdict == Verdict::kOk) << finding.what;
    if (finding.verdict != Verdict::kOk)
      out.push_back(std::string(VerdictName(finding.verdict)) + " " + finding.check + " " +
                    finding.server);
  }
  return out;
}

TEST(Doctor, OfAClusterItTellsWhatIsWrongWithNodesAndEtcd) {
  EXPECT_EQ(WrongOfCluster([](auto&) {}), Lines());
  EXPECT_EQ(WrongOfCluster([](auto& all) { all.mutable_nodes(1)->clear_status(); }),
            Lines{"fail node n2"});
  EXPECT_EQ(
      WrongOfCluster([](auto& all) { all.mutable_nodes(1)->mutable_status()->set_healthy(false); }),
      Lines{"fail node n2"});
  EXPECT_EQ(WrongOfCluster(
                [](auto& all) { all.mutable_nodes(0)->mutable_status()->set_alarm("unequal"); }),
            Lines{"warn node n1"});
  EXPECT_EQ(WrongOfCluster([](auto& all) { all.mutable_nodes(0)->set_version("0.9"); }),
            Lines{"warn version "});
  EXPECT_EQ(WrongOfCluster([](auto& all) {
              all.mutable_etcd(0)->set_reason("its space quota is reached");
              all.mutable_etcd(0)->set_no_space(true);
            }),
            Lines{"fail etcd e:1"});
  EXPECT_EQ(WrongOfCluster([](auto& all) { all.mutable_etcd(0)->set_leader(false); }),
            Lines{"fail etcd "});
}

TEST(Doctor, WhereEtcdsQuotaIsReachedItSaysWhatToRun) {
  pb::MembersResponse members = WellMembers();
  members.mutable_nodes(0)->mutable_status()->mutable_revision()->set_number(70'000);
  members.mutable_nodes(1)->mutable_status()->mutable_revision()->set_number(69'000);
  members.add_nodes()->set_id("gone");
  members.mutable_etcd(0)->set_no_space(true);
  members.mutable_etcd(0)->set_reason("its space quota is reached");
  for (const char* endpoint : {"e:2", "e:3"}) members.add_etcd()->set_endpoint(endpoint);
  for (const Finding& finding : DiagnoseCluster(members)) {
    if (finding.server != "e:1") continue;
    EXPECT_EQ(finding.remedy,
              "etcdctl --command-timeout=60s --endpoints=e:2,e:3,e:1 compact 69000; "
              "etcdctl --command-timeout=60s --endpoints=e:2,e:3,e:1 defrag; "
              "etcdctl --command-timeout=60s --endpoints=e:2,e:3,e:1 alarm disarm");
  }
}

}  // namespace
}  // namespace datawire::cli
