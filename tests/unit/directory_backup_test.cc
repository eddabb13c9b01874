#include <rocksdb/db.h>

#include <fstream>

#include "directory_fixture.h"
#include "from_backup.h"
#include "view/checkpoint.h"

// Snapshots of a directory that serves, and a directory made from one.

namespace datawire::directory {
namespace {

namespace fs = std::filesystem;

constexpr char kOne[] = "amqp://127.0.0.1:5001";

class BackupTest : public DirectoryTest {
 protected:
  using Saved = Result<pb::SnapshotResponse>;
  using Call = void (Directory::*)(const pb::SnapshotRequest&, std::function<void(Saved)>);

  Saved Ask(Call call, const std::string& path) {
    pb::SnapshotRequest request;
    request.set_directory(path);
    auto done = std::make_shared<std::promise<Saved>>();
    (*directory_.*call)(request, [done](Saved r) { done->set_value(std::move(r)); });
    return Within5s(done->get_future());
  }
  Saved Save(const std::string& path) { return Ask(&Directory::Snapshot, path); }
  Saved Verify(const std::string& path) { return Ask(&Directory::VerifySnapshot, path); }
  Code CodeOf(const Saved& saved) { return saved.ok() ? Code::kOk : saved.status().code(); }

  /// Serves the directory that was made at `path`.
  void Serve(const std::string& path) {
    Stop();
    auto view = View::Open(path);
    ASSERT_TRUE(view.ok()) << view.status().ToString();
    view_ = std::move(*view);
    Start();
  }

  const std::string& snapshot() {
    if (snapshot_.empty()) snapshot_ = path_ + "/snapshot";
    return snapshot_;
  }
  std::string snapshot_;
};

TEST_F(BackupTest, ASnapshotHoldsWhatWasThereAndVerifies) {
  RegisterStatic("//d/a", kOne);
  TestTether process(*directory_);
  process.Hello();
  const auto at = process.Register(1, "//d/b", kOne).done().revision();
  const auto saved = Save(snapshot());
  ASSERT_TRUE(saved.ok()) << saved.status().ToString();
  RegisterStatic("//d/later", kOne);
  const auto verified = Verify(snapshot());
  ASSERT_TRUE(verified.ok()) << verified.status().ToString();
  EXPECT_EQ(verified->ShortDebugString(), saved->ShortDebugString());
  EXPECT_EQ(verified->cluster_id(), "test");
  EXPECT_EQ(FromWire(verified->revision()), FromWire(at));
  EXPECT_EQ(verified->registrations(), 2u);
  EXPECT_EQ(verified->addresses(), 2u);
  EXPECT_EQ(verified->sessions(), 1u);
  EXPECT_GT(verified->bytes(), 0u);
}

TEST_F(BackupTest, APathThatWillNotDoIsRefusedWithTheRule) {
  const std::vector<std::tuple<std::string, Code, std::string>> cases = {
      {"relative", Code::kInvalid, "absolute"},
      {"", Code::kInvalid, "absolute"},
      {path_, Code::kConflict, "there already"},
      {path_ + "/none/snapshot", Code::kInvalid, "no directory to be in"},
      {path_ + "/data/snapshot", Code::kInvalid, "inside the data directory"},
      {path_ + "/x/../data/snapshot", Code::kInvalid, "inside the data directory"},
  };
  for (const auto& [path, code, part] : cases) {
    const auto saved = Save(path);
    EXPECT_EQ(CodeOf(saved), code) << path;
    EXPECT_NE(saved.status().message().find(part), std::string::npos) << saved.status().message();
  }
  EXPECT_EQ(CodeOf(Verify(path_ + "/none")), Code::kNotFound);
  EXPECT_EQ(CodeOf(Verify(path_ + "/data")), Code::kInvalid) << "it is served";
}

TEST_F(BackupTest, ADamagedSnapshotIsCorrupt) {
  for (int i = 0; i < 200; ++i) RegisterStatic("//d/a" + std::to_string(i), kOne);
  ASSERT_TRUE(Save(snapshot()).ok());
  for (const auto& file : fs::directory_iterator(snapshot())) {
    if (file.path().extension() != ".sst") continue;
    // A copy: the file is shared with the store that is served.
    fs::copy_file(file.path(), path_ + "/copy");
    std::fstream out(path_ + "/copy", std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(file.file_size() / 3));
    out << "damaged";
    out.close();
    fs::rename(path_ + "/copy", file.path());
  }
  EXPECT_EQ(CodeOf(Verify(snapshot())), Code::kCorrupt);
  const auto made = MakeFromSnapshot(snapshot(), path_ + "/restored", 0);
  EXPECT_FALSE(made.ok());
  EXPECT_FALSE(fs::exists(path_ + "/restored"));
}

TEST_F(BackupTest, CountsThatAreNotThoseOfTheRecordsAreCorrupt) {
  RegisterStatic("//d/a", kOne);
  ASSERT_TRUE(Save(snapshot()).ok());
  // A row that no revision made: its checksum is right, and it is wrong.
  {
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, snapshot(), &db).ok());
    const std::unique_ptr<rocksdb::DB> owner(db);
    ASSERT_TRUE(db->Put({}, "r/other", "row").ok());
  }
  fs::remove(snapshot() + "/LOCK");
  const auto verified = Verify(snapshot());
  EXPECT_EQ(CodeOf(verified), Code::kCorrupt);
  EXPECT_NE(verified.status().message().find("addresses"), std::string::npos);
}

TEST_F(BackupTest, ARestoredDirectoryIsOfANewEpochAndGivesSessionsGrace) {
  RegisterStatic("//d/a", kOne);
  std::optional<TestTether> process(std::in_place, *directory_);
  process->Hello(3000);
  process->Register(1, "//d/b", kOne);
  ASSERT_TRUE(Save(snapshot()).ok());
  RegisterStatic("//d/later", kOne);
  const Revision before = view_->Applied();
  const std::string id = process->id, secret = process->secret;
  process.reset();
  const auto made = MakeFromSnapshot(snapshot(), path_ + "/restored", 0);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  EXPECT_EQ(made->epoch, 2u);
  EXPECT_EQ(made->sessions, 1u);
  Serve(path_ + "/restored");
  EXPECT_EQ(view_->authority().cluster_id, "test");
  EXPECT_GT(view_->Applied(), before) << "to every cache it is newer";
  EXPECT_EQ(StatusOf("//d/a"), AnswerStatus::kFound);
  EXPECT_EQ(StatusOf("//d/later"), AnswerStatus::kNotFound);
  EXPECT_GT(Resolve("//d/a").revision, before);
  Pass(50s);
  EXPECT_EQ(StatusOf("//d/b"), AnswerStatus::kFound) << "the TTL of 3 s is over, the grace is not";
  TestTether again(*directory_);
  again.id = id;
  again.secret = secret;
  const auto welcome = again.Resume(again, 2);
  EXPECT_TRUE(welcome.welcome().resumed());
  EXPECT_EQ(welcome.welcome().revision().epoch(), 2u) << "the process learns of the new epoch";
  const auto history = view_->History({2, 1}, 1000);
  EXPECT_EQ(history.status().code(), Code::kAborted) << "what was before the restore is no history";
}

TEST_F(BackupTest, ASnapshotThatServedBeforeWantsAGreaterEpoch) {
  ASSERT_TRUE(Save(snapshot()).ok());
  const auto low = MakeFromSnapshot(snapshot(), path_ + "/restored", 1);
  EXPECT_EQ(low.status().code(), Code::kInvalid);
  const auto made = MakeFromSnapshot(snapshot(), path_ + "/restored", 9);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  EXPECT_EQ(made->epoch, 9u);
  const auto again = MakeFromSnapshot(snapshot(), path_ + "/restored", 10);
  EXPECT_EQ(again.status().code(), Code::kConflict) << "it is not empty";
  EXPECT_EQ(CodeOf(Verify(snapshot())), Code::kOk) << "the snapshot is as it was";
}

TEST_F(BackupTest, VerifyingEndsWhenTheDirectoryStops) {
  RegisterStatic("//d/a", kOne);
  ASSERT_TRUE(Save(snapshot()).ok());
  const std::atomic<bool> stop{true};
  const auto read = ReadSnapshot(snapshot(), Depth::kWhole, stop);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.status().code(), Code::kUnavailable);
  EXPECT_NE(read.status().message().find("stopping"), std::string::npos);
}

TEST_F(BackupTest, StopWaitsForTheOneUnderWayAndRefusesTheNext) {
  ASSERT_TRUE(Save(snapshot()).ok());
  directory_->Stop();
  EXPECT_EQ(CodeOf(Save(path_ + "/other")), Code::kUnavailable);
  EXPECT_FALSE(fs::exists(path_ + "/other"));
}

}  // namespace
}  // namespace datawire::directory
