#include "snapshot.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>

#include "cache.h"
#include "datawire/cache_snapshot.h"
#include "datawire/limits.h"
#include "fake_directory.h"
#include "snapshot_file.h"

namespace datawire::resolver {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::FakeDirectory;

Address A(std::string_view text) {
  return Address::Parse(text).value();
}

Answer Found(const std::string& address, uint64_t number, milliseconds age) {
  Answer answer{.address = A(address),
                .status = AnswerStatus::kFound,
                .matched = A(address),
                .policy = Policy::kOrdered,
                .revision = {3, number},
                .modified = {3, number - 1},
                .age = age,
                .ttl = seconds(30),
                .source = "snapshot",
                .total = 2,
                .hash = 0x1234567890abcdefull + number};
  for (const char* url : {"amqp://127.0.0.1:1001", "amqps://[::1]:1002/node"})
    answer.endpoints.push_back({.url = EndpointUrl::Parse(url).value(),
                                .priority = 7,
                                .weight = 9,
                                .region = "r",
                                .zone = "z",
                                .labels = {{"k", "v"}},
                                .is_static = true,
                                .created = 5});
  answer.endpoints.back().state = EndpointState::kSuspect;
  return answer;
}

SnapshotContent Content() {
  SnapshotContent content{.cluster = "c1",
                          .revision = {3, 42},
                          .saved = {.now = BootTime(hours(5)), .wall_ms = 1000, .boot = "b"}};
  content.entries.push_back({Found("//d/a", 42, milliseconds(700)), milliseconds(300)});
  content.entries.push_back({Found("//d/b/c", 40, hours(2)), hours(2)});
  return content;
}

std::string Text(const Answer& a) {
  std::string text = a.address.text() + " " + std::to_string(int(a.status)) + " " +
                     (a.matched ? a.matched->text() : "-") + " " + std::to_string(int(a.policy)) +
                     " " + a.revision.ToString() + " " + a.modified.ToString() + " " +
                     std::to_string(a.age.count()) + " " + std::to_string(a.ttl.count()) + " " +
                     a.source + " " + std::to_string(a.total) + " " + std::to_string(a.hash);
  return text;
}

void ExpectSame(const SnapshotContent& a, const SnapshotContent& b) {
  EXPECT_EQ(a.cluster, b.cluster);
  EXPECT_EQ(a.revision, b.revision);
  EXPECT_EQ(a.saved.now, b.saved.now);
  EXPECT_EQ(a.saved.wall_ms, b.saved.wall_ms);
  EXPECT_EQ(a.saved.boot, b.saved.boot);
  ASSERT_EQ(a.entries.size(), b.entries.size());
  for (size_t i = 0; i < a.entries.size(); i++) {
    EXPECT_EQ(Text(a.entries[i].answer), Text(b.entries[i].answer));
    EXPECT_EQ(a.entries[i].answer.endpoints, b.entries[i].answer.endpoints);
    EXPECT_EQ(a.entries[i].received, b.entries[i].received);
  }
}

TEST(ResolverSnapshot, WhatWasEncodedIsReadBackWhole) {
  const auto read = DecodeSnapshot(EncodeSnapshot(Content()));
  ASSERT_TRUE(read.ok()) << read.status().message();
  ExpectSame(*read, Content());
}

TEST(ResolverSnapshot, TruncatedAtAnyByteOrWithMoreItIsRefused) {
  const std::string bytes = EncodeSnapshot(Content());
  for (size_t size = 0; size < bytes.size(); size++) {
    // A buffer of just this size, so that the sanitizer sees a read past it.
    const std::vector<char> cut(bytes.begin(), bytes.begin() + static_cast<long>(size));
    const auto read = DecodeSnapshot({cut.data(), cut.size()});
    ASSERT_FALSE(read.ok()) << size;
    EXPECT_EQ(read.status().code(), Code::kCorrupt);
    EXPECT_EQ(read.status().message().find('\n'), std::string::npos);
  }
  EXPECT_FALSE(DecodeSnapshot(bytes + "x").ok());
}

TEST(ResolverSnapshot, NoFlippedBitGivesWrongData) {
  const std::string bytes = EncodeSnapshot(Content());
  std::mt19937_64 random(11);
  for (int i = 0; i < 2000; i++) {
    std::string bad = bytes;
    for (uint64_t flips = 1 + random() % 3; flips > 0; flips--)
      bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
    if (bad == bytes) continue;
    EXPECT_FALSE(DecodeSnapshot(bad).ok()) << i;
  }
}

// What a file with right sums could still say: the parser alone must hold.
TEST(ResolverSnapshot, ContentsThatNobodySavedAreRefused) {
  SnapshotContent content = Content();
  content.cluster.clear();
  EXPECT_FALSE(DecodeSnapshot(EncodeSnapshot(content)).ok());
  content = Content();
  content.entries[0].answer.status = AnswerStatus::kNotFound;
  EXPECT_FALSE(DecodeSnapshot(EncodeSnapshot(content)).ok());
  content = Content();
  content.entries[1].answer.matched = A("//elsewhere");
  EXPECT_FALSE(DecodeSnapshot(EncodeSnapshot(content)).ok());
}

TEST(ResolverSnapshot, InOneRunOfTheMachineItsWallClockDoesNotCount) {
  const Moment saved{BootTime(hours(5)), 1'000'000'000, "b"};
  for (const int64_t wall : {int64_t{0}, int64_t{1'000'000'000}, INT64_MAX, INT64_MIN}) {
    const auto since = SinceSaved(saved, {BootTime(hours(6)), wall, "b"});
    ASSERT_TRUE(since.ok());
    EXPECT_EQ(*since, hours(1));
  }
  EXPECT_FALSE(SinceSaved(saved, {BootTime(hours(4)), 1'000'000'000, "b"}).ok());
}

TEST(ResolverSnapshot, AfterARestartOfTheMachineItIsAsOldAsTheWallClockSaysButNotYoungerThanThat) {
  const int64_t wall = 1'000'000'000;
  const Moment saved{BootTime(hours(5)), wall, "b"};
  const auto since = [&](milliseconds passed, BootTime up) {
    return SinceSaved(saved, {up, wall + passed.count(), "other"});
  };
  EXPECT_EQ(*since(hours(3), BootTime(minutes(1))), hours(3));
  EXPECT_EQ(*since(seconds(2), BootTime(hours(2))), hours(2)) << "it was saved before the start";
  EXPECT_EQ(*since(-minutes(4), BootTime(minutes(1))), minutes(1));
  EXPECT_FALSE(since(-minutes(6), BootTime(minutes(1))).ok());
  EXPECT_FALSE(SinceSaved({BootTime(hours(5)), INT64_MAX, "b"}, {BootTime{}, 0, "c"}).ok());
  EXPECT_TRUE(SinceSaved({BootTime(hours(5)), INT64_MIN, "b"}, {BootTime{}, 0, "c"}).ok());
}

TEST(ResolverSnapshot, RefusalsSayWhichRule) {
  const SnapshotContent content = Content();
  const auto why = [&](std::string_view cluster, BootTime now) {
    const auto usable = Usable(content, cluster, {now, 1000, "b"}, hours(24));
    return usable.ok() ? "usable" : usable.status().message();
  };
  EXPECT_EQ(why("", BootTime(hours(6))), "usable");
  EXPECT_EQ(why("c1", BootTime(hours(29))), "usable");
  EXPECT_EQ(why("c2", BootTime(hours(6))), "is of cluster `c1`, not `c2`");
  EXPECT_EQ(why("", BootTime(hours(29) + seconds(1))), "was saved 86401 s ago, at most 86400 s");
  EXPECT_EQ(why("", BootTime(hours(4))), "saved 3600 s in the future (CLOCK_BOOTTIME)");
}

TEST(ResolverSnapshot, AChangeIsSavedAtOnceThenAtABoundedRateAndAgesEachMinute) {
  std::mt19937_64 random(5);
  const BootTime start{hours(1)};
  SnapshotSchedule schedule(start, random);
  EXPECT_FALSE(schedule.Due(start, 0));
  EXPECT_TRUE(schedule.Due(start, 1));
  schedule.Tried(start, milliseconds(1), true, 1);
  EXPECT_FALSE(schedule.Due(start, 2));
  EXPECT_TRUE(schedule.Due(start + kSnapshotApart, 2));
  EXPECT_FALSE(schedule.Due(start + seconds(47), 1)) << "nothing changed";
  EXPECT_TRUE(schedule.Due(start + seconds(72), 1)) << "60 s + 20 %";
  schedule.Tried(start, seconds(2), true, 2);
  EXPECT_FALSE(schedule.Due(start + seconds(39), 3)) << "saving is a twentieth of the time";
  EXPECT_TRUE(schedule.Due(start + seconds(40), 3));
  schedule.Tried(start, milliseconds(1), false, 4);
  EXPECT_TRUE(schedule.Due(start + kSnapshotApart, 4)) << "it failed: again";
}

TEST(ResolverSnapshot, ARestoredAnswerIsStaleWithItsTrueAgeUntilConfirmed) {
  std::mt19937_64 random(1);
  const BootTime now{hours(30)};
  const size_t hash = HashOf("//d/a");
  Cache cache(ResolverPolicy{}, 10, 1 << 20);
  cache.SetLink(LinkState::kDown);
  ASSERT_TRUE(cache.Restore(Found("//d/a", 42, hours(3)), hash, "c1", now - hours(2), now, random));
  EXPECT_EQ(cache.StateOf("//d/a", hash, now), EntryState::kStale);
  auto found = cache.Find(A("//d/a"), hash, {}, now + hours(1));
  ASSERT_EQ(found.kind, Found::Kind::kAnswer);
  EXPECT_EQ(found.answer->age, hours(4));
  EXPECT_TRUE(found.answer->stale);
  EXPECT_EQ(found.answer->source, "snapshot");
  EXPECT_EQ(found.answer->revision, (Revision{3, 42}));
  EXPECT_TRUE(cache.Peek("//d/a", hash, now + hours(22)));
  EXPECT_FALSE(cache.Peek("//d/a", hash, now + hours(22) + seconds(1))) << "24 h since received";
  // P4: a server that is behind what the last process saw changes nothing.
  EXPECT_EQ(cache.Store(Found("//d/a", 41, seconds(0)), hash, {.cluster = "c1"}, now, random),
            Cache::Stored::kRefused);
  EXPECT_FALSE(cache.Accepts("c2"));
  EXPECT_EQ(cache.Store(Found("//d/a", 42, seconds(0)), hash, {.cluster = "c1"}, now, random),
            Cache::Stored::kRefreshed);
  EXPECT_EQ(cache.Peek("//d/a", hash, now)->source, "cache");
  EXPECT_FALSE(cache.Peek("//d/a", hash, now)->stale);
  EXPECT_FALSE(cache.Restore(Found("//d/a", 43, hours(3)), hash, "c1", now, now, random));
}

bool Await(const std::function<bool()>& condition) {
  std::mutex mutex;
  std::condition_variable looks;
  std::unique_lock lock(mutex);
  const BootTime until = BootClock::now() + seconds(20);
  while (!condition() && BootClock::now() < until) looks.wait_for(lock, milliseconds(5));
  return condition();
}

class ResolverSnapshotFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = std::filesystem::temp_directory_path() / "datawire-snapshot-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder = path;
    file = folder + "/cache";
  }
  void TearDown() override {
    if (!folder.empty()) std::filesystem::remove_all(folder);
  }
  ResolverOptions Options(const std::string& server) const {
    ResolverOptions options;
    options.directory = {server};
    options.snapshot_file = file;
    return options;
  }
  void LearnFrom(FakeDirectory& directory) {
    directory.Start();
    directory.Set("//d/a", {"amqp://127.0.0.1:1001"});
    auto resolver = Resolver::Open(Options(directory.server())).value();
    ASSERT_EQ(resolver->Resolve(A("//d/a"), {.deadline = seconds(20)})->status,
              AnswerStatus::kFound);
    resolver.reset();
    directory.Stop();
  }

  std::string folder, file;
};

TEST_F(ResolverSnapshotFile, ACrashAtAnyStepOfSavingLeavesTheOldFileOrTheNew) {
  const std::string before(200'000, 'a'), after(300'000, 'b');
  std::vector<std::string> steps;
  ASSERT_TRUE(
      WriteSnapshotFile(file, after, [&](std::string_view s) { steps.emplace_back(s); }).ok());
  struct stat about {};
  ASSERT_EQ(::stat(file.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  EXPECT_EQ(steps, (std::vector<std::string>{"open", "truncate", "write", "write", "write", "write",
                                             "write", "fsync", "rename", "fsync folder", "done"}));
  for (size_t crash = 0; crash < steps.size(); crash++) {
    ASSERT_TRUE(WriteSnapshotFile(file, before).ok()) << "after a crash, too";
    const pid_t child = ::fork();
    if (child == 0) {
      size_t step = 0;
      (void)WriteSnapshotFile(file, after, [&](std::string_view) {
        if (step++ == crash) ::_exit(7);
      });
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 7);
    EXPECT_EQ(ReadSnapshotFile(file).value() == after, crash > 8) << steps[crash];
    EXPECT_EQ(ReadSnapshotFile(file).value() == before, crash <= 8) << steps[crash];
  }
}

TEST_F(ResolverSnapshotFile, TwoThatSaveAtOnceDoNotMixTheirBytes) {
  ASSERT_TRUE(WriteSnapshotFile(file, "old").ok());
  bool met = false;
  const Status first = WriteSnapshotFile(file, "first", [&](std::string_view step) {
    if (step != "fsync") return;
    met = true;
    EXPECT_EQ(WriteSnapshotFile(file, "second").code(), Code::kConflict);
    EXPECT_EQ(ReadSnapshotFile(file).value(), "old");
  });
  EXPECT_TRUE(first.ok() && met);
  EXPECT_EQ(ReadSnapshotFile(file).value(), "first");
}

TEST_F(ResolverSnapshotFile, NoRegularFileIsReadAndNothingHangs) {
  EXPECT_EQ(ReadSnapshotFile(file).status().code(), Code::kNotFound);
  EXPECT_EQ(ReadSnapshotFile(folder).status().code(), Code::kInvalid);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  EXPECT_EQ(ReadSnapshotFile(file).status().code(), Code::kInvalid);
}

TEST_F(ResolverSnapshotFile, ARestartedProcessAnswersWithinASecondWhileEveryDirectoryIsDown) {
  FakeDirectory directory;
  LearnFrom(directory);
  const BootTime start = BootClock::now();
  auto resolver = Resolver::Open(Options(directory.server())).value();
  const auto answer = resolver->Resolve(A("//d/a"));
  EXPECT_LT(BootClock::now() - start, seconds(1));
  ASSERT_EQ(answer->status, AnswerStatus::kFound) << resolver->Stats().snapshot_error;
  EXPECT_EQ(answer->endpoints.at(0).url.text(), "amqp://127.0.0.1:1001");
  EXPECT_EQ(answer->source, "snapshot");
  EXPECT_EQ(resolver->Stats().snapshot_loaded, 1u);
  // A later process knows that it is older by now; nothing made it young.
  resolver.reset();
  const auto kept = ReadCacheSnapshot(file);
  ASSERT_TRUE(kept.ok()) << kept.status().message();
  EXPECT_EQ(kept->cluster, "c1");
  ASSERT_EQ(kept->answers.size(), 1u);
  EXPECT_GE(kept->answers[0].age, answer->age);
}

TEST_F(ResolverSnapshotFile, TheAnswerOfASnapshotIsReplacedByWhatTheDirectoryKnows) {
  FakeDirectory directory;
  LearnFrom(directory);
  directory.Start();
  directory.Set("//d/a", {"amqp://127.0.0.1:1002"});
  auto resolver = Resolver::Open(Options(directory.server())).value();
  EXPECT_TRUE(Await([&] {
    return resolver->Resolve(A("//d/a"))->endpoints.at(0).url.text() == "amqp://127.0.0.1:1002";
  }));
  const auto answer = resolver->Resolve(A("//d/a"));
  EXPECT_EQ(answer->endpoints.at(0).url.text(), "amqp://127.0.0.1:1002");
  EXPECT_NE(answer->source, "snapshot");
}

TEST_F(ResolverSnapshotFile, OneThatIsRefusedIsNamedAndStaysUntilThereIsSomethingToSave) {
  std::ofstream(file) << "garbage";
  auto resolver = Resolver::Open(Options("127.0.0.1:1")).value();
  EXPECT_EQ(resolver->Stats().snapshot_error,
            "snapshot " + file +
                " refused: not a whole snapshot: at byte 0: does not begin with DWCACHE1");
  EXPECT_EQ(resolver->Resolve(A("//d/a"), {.deadline = milliseconds(1)})->status,
            AnswerStatus::kUnavailable);
  resolver.reset();
  EXPECT_EQ(ReadSnapshotFile(file).value(), "garbage");
  FakeDirectory directory;
  LearnFrom(directory);
  EXPECT_TRUE(ReadCacheSnapshot(file).ok());
  ResolverOptions other = Options(directory.server());
  other.snapshot_cluster = "c2";
  EXPECT_EQ(Resolver::Open(other).value()->Stats().snapshot_error,
            "snapshot " + file + " refused: is of cluster `c1`, not `c2`");
}

TEST_F(ResolverSnapshotFile, AChangeIsSavedWhileTheProcessRuns) {
  FakeDirectory directory;
  directory.Start();
  directory.Set("//d/a", {"amqp://127.0.0.1:1001"});
  auto resolver = Resolver::Open(Options(directory.server())).value();
  ASSERT_EQ(resolver->Resolve(A("//d/a"), {.deadline = seconds(20)})->status, AnswerStatus::kFound);
  ASSERT_TRUE(Await([&] { return resolver->Stats().snapshot_saves > 0; }));
  EXPECT_EQ(ReadCacheSnapshot(file).value().answers.size(), 1u);
}

}  // namespace
}  // namespace datawire::resolver
