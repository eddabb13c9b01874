#include <rocksdb/db.h>
#include <rocksdb/utilities/write_batch_with_index.h>

#include "core/members.h"
#include "core/nodes.h"
#include "datawire/record/v1/record.pb.h"
#include "directory_fixture.h"

// What a node asks others, with others that the test answers for; drains that take several steps.

namespace datawire::directory {
namespace {

/// The engine as one that others share, too. Fails what is proposed after `fail_after` changes.
class SharedLog final : public Log {
 public:
  explicit SharedLog(std::unique_ptr<Log> inner) : inner_(std::move(inner)) {
    inner_->SetAfterGroup([this] { AfterGroup(); });
  }
  void Propose(Op op, BootTime deadline, Done done) override {
    most_changes = std::max(most_changes.load(), op.changes.size());
    if (at_propose) std::exchange(at_propose, nullptr)();
    if (!op.changes.empty() && fail_after-- == 0)
      return done({Status(Code::kOutcomeUnknown, "lost"), {}, {}});
    inner_->Propose(std::move(op), deadline, std::move(done));
  }
  void ReadBarrier(BootTime deadline, std::function<void(Result<Revision>)> done) override {
    if (at_barrier) std::exchange(at_barrier, nullptr)();
    inner_->ReadBarrier(deadline, std::move(done));
  }
  Freshness Fresh() const override { return inner_->Fresh(); }
  std::string name() const override { return "etcd"; }
  bool shared() const override { return true; }
  void Stop() override { inner_->Stop(); }

  std::atomic<size_t> most_changes{0};
  std::atomic<int> fail_after{-1};
  std::function<void()> at_barrier;  // what this node learns by waiting for it
  std::function<void()> at_propose;  // what others do before

 private:
  const std::unique_ptr<Log> inner_;
};

/// Keeps what is asked until the test answers.
class FakeNodes final : public Nodes {
 public:
  struct Asked {
    std::string address;
    pb::AcknowledgedRequest request;
    Done<pb::AcknowledgedResponse> done;
  };
  void GetStatus(const std::string& address, BootTime, Done<pb::StatusResponse> done) override {
    pb::StatusResponse status;
    status.mutable_source()->set_cluster_id("test");
    status.mutable_source()->set_node_id(address.substr(0, address.find(':')));
    done(std::move(status));
  }
  void Acknowledged(const std::string& address, const pb::AcknowledgedRequest& request, BootTime,
                    Done<pb::AcknowledgedResponse> done) override {
    const std::lock_guard lock(mutex_);
    asked_.push_back({address, request, std::move(done)});
  }
  void Stop() override {}

  /// What is asked since the last call.
  std::vector<Asked> Take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(asked_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<Asked> asked_;
};

pb::AcknowledgedResponse Waiting(const std::vector<std::string>& peers = {}) {
  pb::AcknowledgedResponse out;
  out.mutable_waiting()->Assign(peers.begin(), peers.end());
  out.set_waiting_total(peers.size());
  return out;
}

class NodesTest : public DirectoryTest {
 protected:
  NodesTest() { options_.nodes = &nodes_; }
  std::unique_ptr<Log> OpenLog() override {
    return std::make_unique<SharedLog>(DirectoryTest::OpenLog());
  }
  SharedLog& log() { return static_cast<SharedLog&>(*log_); }

  /// As etcd brings it: no op writes such keys.
  void Put(const std::string& key, std::optional<std::string> value) {
    Settle();
    Batch batch;
    batch.at = view_->Applied();
    ++batch.at.number;
    if (value)
      batch.puts.push_back({key, *value, batch.at.number, batch.at.number});
    else
      batch.erased.push_back(key);
    rocksdb::WriteBatchWithIndex staged(rocksdb::BytewiseComparator(), 0, true);
    ASSERT_TRUE(view_->Stage(batch, staged).ok());
    ASSERT_TRUE(view_->db().Write({}, staged.GetWriteBatch()).ok());
    view_->Publish(batch.at);
  }
  void Live(const std::string& id, const std::string& incarnation = "run") {
    record::v1::NodeAlive alive;
    alive.set_incarnation(incarnation);
    alive.set_address(id + ":1");
    Put("alive/" + id, alive.SerializeAsString());
  }

  using Reply = std::future<Result<pb::DrainResponse>>;
  Reply Drain(const std::string& address, uint64_t within_ms, const std::string& op_id = "",
              bool undo = false) {
    pb::DrainRequest request;
    request.set_address(address);
    request.set_op_id(op_id);
    request.set_undo(undo);
    request.set_acknowledged_within_ms(within_ms);
    auto reply = std::make_shared<std::promise<Result<pb::DrainResponse>>>();
    directory_->Drain(request, {"127.0.0.1:77", ""},
                      [reply](auto r) { reply->set_value(std::move(r)); });
    Settle();
    return reply->get_future();
  }
  static bool Ready(const Reply& reply) { return reply.wait_for(0s) == std::future_status::ready; }
  /// `draining 3, up 1`.
  std::map<std::string, int> States(const std::string& address) {
    std::map<std::string, int> states;
    for (const Endpoint& e : Resolve(address).endpoints)
      ++states[std::string(EndpointStateName(e.state))];
    return states;
  }

  FakeNodes nodes_;
};

TEST_F(NodesTest, ADrainWaitsForTheSubscribersOfEveryNodeThatLives) {
  Live("n2");
  Live("n3");
  Live("node-1");  // itself
  Put("a/n4", "5");
  RegisterStatic("//d/a", "amqp://h:1", "", true);
  auto reply = Drain("//d/a", 60'000);
  auto asked = nodes_.Take();
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[0].address, "n2:1");
  EXPECT_EQ(asked[1].address, "n3:1");
  ASSERT_EQ(asked[0].request.targets_size(), 1);
  EXPECT_EQ(asked[0].request.targets(0).address(), "//d/a");
  EXPECT_TRUE(asked[0].request.targets(0).subtree());
  EXPECT_EQ(FromWire(asked[0].request.revision()), view_->Applied());
  Pass(2s);
  asked[0].done(Waiting());
  Pass(2s);
  EXPECT_FALSE(Ready(reply));
  asked[1].done(Waiting());
  ASSERT_TRUE(Ready(reply));
  EXPECT_EQ(reply.get()->waiting_total(), 0u);
  EXPECT_TRUE(nodes_.Take().empty()) << "who has answered is not asked again";
}

TEST_F(NodesTest, AtTheDeadlineItSaysWhoHasNotAcknowledgedAndAtWhichNode) {
  Live("n2");
  Live("n3");
  RegisterStatic("//d/a", "amqp://h:1");
  TestSubscriber silent(*directory_, {"peer:1", ""});
  silent.Add("//d/a");
  silent.Drain();
  auto reply = Drain("//d/a", 3000);
  auto asked = nodes_.Take();
  Pass(3s);
  asked[0].done(Waiting({"peer:2"}));
  EXPECT_FALSE(Ready(reply));
  Pass(2s);
  ASSERT_TRUE(Ready(reply));
  const auto response = reply.get();
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->waiting_total(), 3u);
  const std::vector<std::string> waiting(response->waiting().begin(), response->waiting().end());
  EXPECT_EQ(waiting[0], "node n3 (it does not answer)");
  EXPECT_EQ(std::set<std::string>(waiting.begin() + 1, waiting.end()),
            (std::set<std::string>{"peer:1 at node node-1", "peer:2 at node n2"}));
  asked[1].done(Waiting());  // too late: nobody listens
}

TEST_F(NodesTest, WhoFailsIsAskedAgainAndWhoLivesNoMoreIsNotWaitedFor) {
  Live("n2");
  Live("n3");
  RegisterStatic("//d/a", "amqp://h:1");
  auto reply = Drain("//d/a", 60'000);
  for (auto& one : nodes_.Take()) one.done(Status(Code::kUnavailable, "refused"));
  Pass(1s);
  auto again = nodes_.Take();
  ASSERT_EQ(again.size(), 2u);
  again[0].done(Waiting());
  EXPECT_FALSE(Ready(reply));
  Put("alive/n3", std::nullopt);
  Pass(1s);
  ASSERT_TRUE(Ready(reply));
  EXPECT_EQ(reply.get()->waiting_total(), 0u);
}

TEST_F(NodesTest, ANodeThatBeganAnewIsAskedAnew) {
  Live("n2", "first");
  RegisterStatic("//d/a", "amqp://h:1");
  auto reply = Drain("//d/a", 60'000);
  auto first = nodes_.Take();
  Live("n2", "second");
  Pass(1s);
  auto second = nodes_.Take();
  ASSERT_EQ(second.size(), 1u);
  first[0].done(Waiting());
  EXPECT_FALSE(Ready(reply)) << "that run is over";
  second[0].done(Waiting());
  EXPECT_TRUE(Ready(reply));
}

TEST_F(NodesTest, OneThatWaitsForOthersIsRefusedWhenTheNodeStops) {
  Live("n2");
  RegisterStatic("//d/a", "amqp://h:1");
  auto reply = Drain("//d/a", 60'000);
  directory_->Stop();
  ASSERT_TRUE(Ready(reply));
  EXPECT_EQ(reply.get().status().code(), Code::kUnavailable);
  auto later = Drain("//d/a", 60'000, "", true);
  ASSERT_TRUE(Ready(later));
  EXPECT_EQ(later.get().status().code(), Code::kUnavailable);
}

TEST_F(NodesTest, AskedByAnotherItWaitsUntilItIsThereItselfAndItsSubscribersToo) {
  RegisterStatic("//d/a", "amqp://h:1");
  TestSubscriber subscriber(*directory_, {"peer:1", ""});
  subscriber.Add("//d/a");
  subscriber.Drain();
  pb::AcknowledgedRequest request;
  request.add_targets()->set_address("//d/a");
  request.set_within_ms(3000);
  Revision next = view_->Applied();
  next.number += 50;
  ToWire(next, request.mutable_revision());
  using Answer = Result<pb::AcknowledgedResponse>;
  const auto ask = [&] {
    auto reply = std::make_shared<std::promise<Answer>>();
    directory_->Acknowledged(request, [reply](Answer r) { reply->set_value(std::move(r)); });
    return reply->get_future();
  };
  auto behind = ask();
  Pass(4s);
  ASSERT_EQ(behind.wait_for(0s), std::future_status::ready);
  EXPECT_EQ(behind.get().status().code(), Code::kBehind);
  auto late = ask();
  for (int i = 1; view_->Applied() < next; ++i)
    RegisterStatic("//d/x", "amqp://h:" + std::to_string(i));
  Pass(1s);
  EXPECT_NE(late.wait_for(0s), std::future_status::ready);
  pb::SubscribeRequest taken;
  ToWire(next, taken.mutable_acknowledged());
  ASSERT_TRUE(subscriber.subscriber->OnRequest(taken).ok());
  Pass(1s);
  ASSERT_EQ(late.wait_for(0s), std::future_status::ready);
  EXPECT_EQ(late.get()->waiting_total(), 0u);
  request.set_within_ms(600'001);
  EXPECT_EQ(ask().get().status().code(), Code::kInvalid);
}

class ManyTest : public NodesTest {
 protected:
  void RegisterMany(int from, int count) {
    for (int i = from; i < from + count; ++i)
      RegisterStatic("//d/a", "amqp://h:" + std::to_string(i + 1));
  }
};

TEST_F(ManyTest, ManyAreDrainedInStepsThatAnyEngineTakes) {
  RegisterMany(0, 250);
  const auto reply = Drain("//d/a", 0).get();
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(reply->drained(), 250u);
  EXPECT_LE(log().most_changes, 100u);
  EXPECT_EQ(States("//d/a"), (std::map<std::string, int>{{"draining", 250}}));
  EXPECT_EQ(Drain("//d/a", 0, "", true).get()->drained(), 250u);
  EXPECT_EQ(States("//d/a"), (std::map<std::string, int>{{"up", 250}}));
}

TEST_F(ManyTest, ARetryGoesOnWithWhatWasRegisteredWhenItBegan) {
  const std::string op(16, '1');
  RegisterMany(0, 230);
  log().fail_after = 1;
  EXPECT_EQ(Drain("//d/a", 0, op).get().status().code(), Code::kOutcomeUnknown);
  EXPECT_EQ(States("//d/a"), (std::map<std::string, int>{{"draining", 100}, {"up", 130}}));
  RegisterMany(230, 10);
  EXPECT_EQ(Drain("//d/a", 0, op).get()->drained(), 130u);
  EXPECT_EQ(States("//d/a"), (std::map<std::string, int>{{"draining", 230}, {"up", 10}}));
  EXPECT_EQ(Drain("//d/a", 0, op).get()->drained(), 0u);
  EXPECT_EQ(Drain("//d/a", 0, std::string(16, '2')).get()->drained(), 10u);
}

TEST_F(NodesTest, ADrainSeesWhatWasRegisteredBeforeOnAnyNode) {
  log().at_barrier = [this] { RegisterStatic("//d/a", "amqp://h:1"); };
  const auto reply = Drain("//d/a", 0).get();
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(reply->drained(), 1u);
}

// ---- Members

TEST_F(NodesTest, MembersAreAllThatLiveOrDidWithTheirRolesAndWhatTheySay) {
  Live("n2");
  Put("a/n3", "17");
  Put("l/reaper", "n2 run");
  const auto members = directory_->Members();
  ASSERT_TRUE(members.ok()) << members.status().ToString();
  ASSERT_EQ(members->nodes_size(), 3);
  EXPECT_EQ(members->nodes(0).id(), "n2");
  EXPECT_EQ(members->nodes(0).address(), "n2:1");
  ASSERT_EQ(members->nodes(0).roles_size(), 1);
  EXPECT_EQ(members->nodes(0).roles(0), "reaper");
  EXPECT_TRUE(members->nodes(0).has_status());
  EXPECT_EQ(members->nodes(0).lag(), view_->Applied().number);
  EXPECT_EQ(members->nodes(1).id(), "n3");
  EXPECT_EQ(members->nodes(1).applied(), 17u);
  EXPECT_FALSE(members->nodes(1).has_status());
  EXPECT_NE(members->nodes(1).unreachable().find("no lease"), std::string::npos);
  EXPECT_EQ(members->nodes(2).id(), "node-1");
  EXPECT_TRUE(members->nodes(2).has_status()) << "itself, though it has no lease now";
  EXPECT_EQ(members->nodes(2).lag(), 0u);
}

class ForgetTest : public NodesTest {
 protected:
  Result<Revision> Forget(const std::string& node, const Peer& peer = {"10.0.0.9:1", "ops"}) {
    pb::ForgetNodeRequest request;
    request.set_node(node);
    auto reply = std::make_shared<std::promise<Result<Revision>>>();
    directory_->ForgetNode(request, peer, [reply](const auto& r) {
      if (!r.ok()) return reply->set_value(r.status());
      reply->set_value(FromWire(r->revision()));
    });
    return Within5s(reply->get_future());
  }
  std::vector<std::string> Listed() {
    std::vector<std::string> ids;
    const auto members = directory_->Members();
    for (const auto& node : members->nodes()) ids.push_back(node.id());
    return ids;
  }
};

TEST_F(ForgetTest, ANodeThatLivesNoMoreIsListedNoMoreAndAgainIsTheSameAnswer) {
  Put("a/n3", "17");
  EXPECT_EQ(Listed(), (std::vector<std::string>{"n3", "node-1"}));
  const auto first = Forget("n3");
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_EQ(Listed(), (std::vector<std::string>{"node-1"}));
  RegisterStatic("//d/a", "amqp://h:1");
  EXPECT_EQ(Forget("n3").value(), *first);
  Put("a/n3", "40");  // it came back, and went
  EXPECT_GT(Forget("n3").value(), *first);
}

TEST_F(ForgetTest, WhoLivesOrIsAskedOrIsUnknownIsNotForgotten) {
  Put("a/n2", "5");
  Live("n2");
  Put("a/node-1", "5");
  EXPECT_EQ(Forget("n2").status().code(), Code::kConflict);
  EXPECT_EQ(Forget("node-1").status().code(), Code::kConflict);
  EXPECT_EQ(Forget("n3").status().code(), Code::kNotFound);
  EXPECT_EQ(Forget("").status().code(), Code::kNotFound);
  EXPECT_EQ(Listed(), (std::vector<std::string>{"n2", "node-1"}));
}

TEST_F(ForgetTest, OneThatLivesAgainBeforeTheCommitIsNotForgotten) {
  Put("a/n2", "5");
  log().at_propose = [this] { Live("n2"); };
  EXPECT_EQ(Forget("n2").status().code(), Code::kConflict);
  EXPECT_EQ(Listed(), (std::vector<std::string>{"n2", "node-1"}));
}

TEST_F(ForgetTest, TheAuditLogSaysWhoDidIt) {
  Put("a/n3", "17");
  ASSERT_TRUE(Forget("n3").ok());
  const auto page = directory_->AuditTail({});
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->entries_size(), 1);
  const auto& entry = page->entries(0);
  EXPECT_EQ(entry.verb(), pb::AUDIT_VERB_FORGET_NODE);
  EXPECT_EQ(entry.node(), "n3");
  EXPECT_EQ(entry.identity(), "ops");
  EXPECT_EQ(entry.peer(), "10.0.0.9:1");
  EXPECT_GT(entry.at_wall_ms(), 0);
}

TEST(Members, WhoeverElseAnswersAtANodesAddressIsNotIt) {
  pb::Source source;
  source.set_cluster_id("c");
  pb::StatusResponse other;
  other.mutable_source()->set_cluster_id("c");
  other.mutable_source()->set_node_id("n9");
  const auto members =
      ComposeMembers({{.id = "n1", .alive = true}, {.id = "n2", .alive = true}},
                     {{"n1", other}, {"n2", Status(Code::kTimeout, "no answer")}}, {}, source);
  EXPECT_EQ(members.nodes(0).unreachable(), "node n9 of cluster c answers there");
  EXPECT_FALSE(members.nodes(0).has_status());
  EXPECT_EQ(members.nodes(1).unreachable(), "no answer");
}

TEST(Members, TheNewestThatAnybodyKnowsOfIsWhatANodeIsBehind) {
  pb::Source source;
  source.set_cluster_id("c");
  pb::StatusResponse status;
  status.mutable_source()->set_cluster_id("c");
  status.mutable_source()->set_node_id("n1");
  status.mutable_revision()->set_number(90);
  Log::Member member;
  member.revision = 100;
  const auto members =
      ComposeMembers({{.id = "n1", .alive = true}}, {{"n1", status}}, {member}, source);
  EXPECT_EQ(members.nodes(0).lag(), 10u);
  EXPECT_TRUE(members.etcd(0).reachable());
}

}  // namespace
}  // namespace datawire::directory
