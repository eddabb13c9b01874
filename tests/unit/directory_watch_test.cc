#include "core/watcher.h"
#include "directory_fixture.h"

// Watch of the directory on the real engine and view.

namespace datawire::directory {
namespace {

constexpr char kOne[] = "amqp://127.0.0.1:5001";
constexpr char kTwo[] = "amqp://127.0.0.1:5002";

// A Watch stream and what it said.
struct TestWatcher {
  TestWatcher(Directory& directory, const pb::WatchRequest& request) {
    auto opened = directory.OpenWatcher(request, {}, stream);
    status = opened.status();
    if (opened.ok()) watcher = std::move(*opened);
  }
  std::vector<pb::WatchResponse> Drain() {
    std::vector<pb::WatchResponse> out;
    while (true) {
      auto bytes = watcher->Next();
      EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
      if (!bytes.ok() || !*bytes) return out;
      EXPECT_LE((*bytes)->size(), limits::kPushBytes);
      out.emplace_back();
      EXPECT_TRUE(out.back().ParseFromString(**bytes));
    }
  }
  // `PUT //d/a`, `BEGIN`, ... of all there is.
  std::vector<std::string> Said() {
    std::vector<std::string> out;
    for (const auto& response : Drain()) {
      if (response.kind() > pb::WatchResponse::KIND_CHANGES_PART)
        out.push_back(pb::WatchResponse::Kind_Name(response.kind()).substr(5));
      for (const auto& event : response.events())
        out.push_back((event.kind() == pb::Event::KIND_PUT ? "PUT " : "GONE ") + event.address());
    }
    return out;
  }
  TestStream stream;
  std::unique_ptr<Watcher> watcher;
  Status status;
};

using Said = std::vector<std::string>;

class WatchTest : public DirectoryTest {
 protected:
  static pb::WatchRequest After(Revision revision, const std::string& prefix = "") {
    pb::WatchRequest request;
    request.set_prefix(prefix);
    ToWire(revision, request.mutable_after());
    return request;
  }
};

TEST_F(WatchTest, BeginsWithASnapshotAndGoesOnWithEveryChange) {
  RegisterStatic("//d/a", kOne);
  TestWatcher watcher(*directory_, {});
  EXPECT_EQ(watcher.Said(), (Said{"SNAPSHOT_BEGIN", "SNAPSHOT", "PUT //d/a", "SNAPSHOT_END"}));
  const int seen = watcher.stream.wakes();
  RegisterStatic("//d/b", kOne);
  WithdrawStatic("//d/a", kOne);
  EXPECT_TRUE(watcher.stream.Await(seen));
  EXPECT_EQ(watcher.Said(), (Said{"PUT //d/b", "GONE //d/a"}));
  EXPECT_EQ(directory_->counters().watch_events, 3u);
}

TEST_F(WatchTest, ResumesAfterARestartWithoutAGapOrResync) {
  RegisterStatic("//d/a", kOne);
  const Revision seen = view_->Applied();
  RegisterStatic("//d/b", kOne);
  Restart();
  RegisterStatic("//d/c", kOne);
  TestWatcher watcher(*directory_, After(seen));
  EXPECT_EQ(watcher.Said(), (Said{"PUT //d/b", "PUT //d/c"}));
  RegisterStatic("//d/d", kOne);
  EXPECT_EQ(watcher.Said(), (Said{"PUT //d/d"}));
}

TEST_F(WatchTest, SaysResyncWhenHistoryDoesNotReachBack) {
  RegisterStatic("//d/a", kOne);
  const Revision seen = view_->Applied();
  RegisterStatic("//d/b", kOne);
  view_->TrimHistory(view_->Applied().number);
  RegisterStatic("//d/c", kOne);  // readers see the trimmed history with the next revision
  TestWatcher watcher(*directory_, After(seen));
  EXPECT_EQ(watcher.Said(), (Said{"RESYNC", "SNAPSHOT_BEGIN", "SNAPSHOT", "PUT //d/a", "PUT //d/b",
                                  "PUT //d/c", "SNAPSHOT_END"}));
  EXPECT_EQ(directory_->counters().watch_resyncs, 1u);
  TestWatcher other_epoch(*directory_, After({7, 1}));
  EXPECT_EQ(other_epoch.Said().at(0), "RESYNC");
  TestWatcher ahead(*directory_, After({1, 1'000'000}));
  EXPECT_EQ(ahead.status.code(), Code::kBehind);
}

TEST_F(WatchTest, KeepsToItsPrefixAndReportsProgress) {
  TestWatcher watcher(*directory_, After(view_->Applied(), "//d/a"));
  RegisterStatic("//d/a/b", kOne);
  RegisterStatic("//d/ab", kOne);
  EXPECT_EQ(watcher.Said(), (Said{"PUT //d/a/b"}));
  RegisterStatic("//d/ab", kTwo);
  Pass(1500ms);
  const auto progress = watcher.Drain();
  ASSERT_EQ(progress.size(), 1u);
  EXPECT_EQ(progress[0].kind(), pb::WatchResponse::KIND_PROGRESS);
  EXPECT_EQ(FromWire(progress[0].revision()), view_->Applied());
}

TEST_F(WatchTest, ALargeRevisionComesInPartsOfOneRevision) {
  TestTether process(*directory_);
  process.Hello();
  for (int call = 0; call < 20; ++call) {
    pb::TetherRequest request;
    request.mutable_register_()->set_op_id(call + 1);
    for (int i = 0; i < 50; ++i)
      TestTether::Add(&request, "//d/" + std::string(100, 'x') + std::to_string(call * 50 + i),
                      kOne);
    process.Ask(request);
  }
  pb::WatchRequest request;
  request.set_no_snapshot(true);
  TestWatcher watcher(*directory_, request);
  watcher.Drain();
  process.Bye();
  const auto responses = watcher.Drain();
  ASSERT_GT(responses.size(), 1u);
  int events = 0;
  for (size_t i = 0; i < responses.size(); ++i) {
    events += responses[i].events_size();
    EXPECT_EQ(responses[i].kind(), i + 1 == responses.size()
                                       ? pb::WatchResponse::KIND_CHANGES
                                       : pb::WatchResponse::KIND_CHANGES_PART);
    EXPECT_EQ(responses[i].revision().number(), responses[0].revision().number());
  }
  EXPECT_EQ(events, 1000);
}

TEST_F(WatchTest, AWatcherThatHoldsBackTooMuchIsResynced) {
  TestWatcher watcher(*directory_, {});
  watcher.Drain();
  pb::RegisterRequest request;
  for (int i = 0; i < 50; ++i) {
    auto* registration = request.add_registrations();
    registration->set_address("//d/" + std::string(120, 'x') + std::to_string(i));
    registration->mutable_endpoint()->set_url(kOne);
  }
  for (uint32_t i = 0; i < 120; ++i) {  // of about 10 KiB each
    for (auto& registration : *request.mutable_registrations())
      registration.mutable_endpoint()->set_priority(i + 1);
    auto done = std::make_shared<std::promise<Result<pb::RegisterResponse>>>();
    directory_->Register(request, {}, [done](auto r) { done->set_value(std::move(r)); });
    ASSERT_TRUE(Within5s(done->get_future()).ok());
  }
  const Said said = watcher.Said();
  ASSERT_FALSE(said.empty());
  EXPECT_EQ(said[0], "RESYNC");
  EXPECT_EQ(said.back(), "SNAPSHOT_END");
  RegisterStatic("//d/a", kOne);
  EXPECT_EQ(watcher.Said(), (Said{"PUT //d/a"}));
}

TEST_F(WatchTest, NeverTellsASessionIdOrSecret) {
  TestTether process(*directory_);
  TestWatcher watcher(*directory_, {});
  watcher.Drain();
  process.Hello();
  process.Register(1, "//d/a", kOne);
  process.Bye();
  std::string all;
  for (const auto& response : watcher.Drain()) all += response.SerializeAsString();
  ASSERT_NE(all.find("//d/a"), std::string::npos);
  EXPECT_EQ(all.find(process.id), std::string::npos);
  EXPECT_EQ(all.find(process.secret), std::string::npos);
}

TEST_F(WatchTest, AChangeBetweenTheLastReadOfHistoryAndTheQueueIsNotLost) {
  int reads = 0;
  view_->SetStopPoint([&](std::string_view where) {
    if (where == "history" && ++reads == 1) RegisterStatic("//d/a", kOne);
  });
  TestWatcher watcher(*directory_, After(view_->Applied()));
  EXPECT_EQ(watcher.Said(), (Said{"PUT //d/a"}));
  RegisterStatic("//d/b", kOne);
  EXPECT_EQ(watcher.Said(), (Said{"PUT //d/b"}));
}

TEST_F(WatchTest, WhatHistoryAlreadyHadIsNotToldAgainWhenItIsPublished) {
  const Revision before = view_->Applied();
  RegisterStatic("//d/a", kOne);
  // As opened after the revision could be read and before the hub was told of it.
  auto ground = std::make_shared<Ground>(*view_, *log_, DirectoryOptions{}, now_);
  TestStream stream;
  WatcherState watcher(ground, std::nullopt, stream, before);
  watcher.StartAfter(before);
  const auto first = watcher.Next();
  ASSERT_TRUE(first.ok() && first->has_value());
  EXPECT_EQ(*watcher.Next(), std::nullopt);
  auto batch = std::make_shared<SharedBatch>();
  batch->at = view_->Applied();
  batch->whole.messages = {**first};
  watcher.Publish(batch->at, batch);
  EXPECT_EQ(*watcher.Next(), std::nullopt);
}

TEST_F(WatchTest, EveryRevisionOnceAndInOrderUnderLoad) {
  TestWatcher watcher(*directory_, After(view_->Applied()));
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i)
    writers.emplace_back([this, i] {
      for (int j = 0; j < 25; ++j) RegisterStatic("//d/a" + std::to_string(i * 25 + j), kOne);
    });
  std::set<std::string> seen;
  size_t events = 0;
  uint64_t last = 0;
  const auto take = [&] {
    for (const auto& response : watcher.Drain()) {
      EXPECT_GT(response.revision().number(), last);
      last = response.revision().number();
      for (const auto& event : response.events()) seen.insert(event.address()), ++events;
    }
  };
  while (seen.size() < 50) {
    const int wakes = watcher.stream.wakes();
    take();
    if (seen.size() >= 50) break;
    ASSERT_TRUE(watcher.stream.Await(wakes));
  }
  for (auto& writer : writers) writer.join();
  take();
  EXPECT_EQ(seen.size(), 100u);
  EXPECT_EQ(events, 100u);
}

}  // namespace
}  // namespace datawire::directory
