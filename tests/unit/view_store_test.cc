#include <fcntl.h>
#include <rocksdb/perf_context.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <regex>

#include "view/encoding.h"
#include "view/recent.h"
#include "view/row.h"
#include "view_fixture.h"

namespace datawire::directory::testing_view {
namespace {

Status OpenStatus(const std::string& path) {
  auto opened = View::Open(path);
  return opened.ok() ? Status::Ok() : opened.status();
}

TEST(ViewOpenTest, AMissingPathIsRefusedAndNotCreated) {
  TempDir dir;
  const Status status = OpenStatus(dir / "none");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(status.message().find(dir / "none"), std::string::npos);
  EXPECT_NE(status.message().find("--init"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "none"));
  std::filesystem::create_directory(dir / "empty");
  EXPECT_EQ(OpenStatus(dir / "empty").code(), Code::kNotFound);
  EXPECT_TRUE(std::filesystem::is_empty(dir / "empty"));
}

TEST(ViewOpenTest, AnInitialisedOneIsNotCreatedAgain) {
  TempDir dir;
  ASSERT_TRUE(View::Create(dir / "data", {"one", 1}).ok());
  const auto again = View::Create(dir / "data", {"two", 2});
  EXPECT_EQ(again.status().code(), Code::kConflict);
  auto opened = View::Open(dir / "data");
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ((*opened)->authority().cluster_id, "one");
  EXPECT_EQ((*opened)->Applied(), (Revision{1, 0}));
}

TEST(ViewOpenTest, OneInUseByAnotherProcessIsRefused) {
  TempDir dir;
  { ASSERT_TRUE(View::Create(dir / "data", {"one", 1}).ok()); }
  // The lock as another process holds it: a child, for locks of our own do not exclude us.
  int held[2], done[2];
  ASSERT_EQ(::pipe(held), 0);
  ASSERT_EQ(::pipe(done), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const int fd = ::open((dir / "data/LOCK").c_str(), O_RDWR);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    char byte = ::fcntl(fd, F_SETLK, &lock) == 0 ? 'y' : 'n';
    if (::write(held[1], &byte, 1) != 1) ::_exit(1);
    ::close(done[1]);
    ::_exit(::read(done[0], &byte, 1) < 0);
  }
  char byte = 0;
  ASSERT_EQ(::read(held[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'y');
  const Status status = OpenStatus(dir / "data");
  for (int fd : {held[0], held[1], done[0], done[1]}) ::close(fd);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find("in use by another process"), std::string::npos)
      << status.message();
  EXPECT_TRUE(OpenStatus(dir / "data").ok());
}

TEST(ViewOpenTest, ANewerFormatIsRefused) {
  TempDir dir;
  {
    auto view = View::Create(dir / "data", {"one", 1}).value();
    record::Authority newer;
    newer.set_cluster_id("one");
    newer.set_format(kFormat + 1);
    ASSERT_TRUE(view->db()
                    .Put({}, keys::kAuthority,
                         EncodeRecord({keys::kAuthority, newer.SerializeAsString(), 0, 0}))
                    .ok());
  }
  const Status status = OpenStatus(dir / "data");
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("format 2"), std::string::npos) << status.message();
}

TEST_F(ViewTest, HistoryResumesOverAReopenAndSaysWhenItNoLongerReachesBack) {
  for (int i = 0; i < 20; ++i) driver_->Register("//d/a" + std::to_string(i), "i", {}).Commit();
  Reopen();
  auto all = view_->History({1, 0}, 1 << 20);
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->size(), 20u);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ((*all)[i].first, (Revision{1, i + 1}));
  EXPECT_EQ(view_->History({1, 0}, 1)->size(), 1u) << "at least one, whatever the bytes";
  EXPECT_TRUE(view_->History({1, 20}, 1 << 20)->empty());
  view_->TrimHistory(7);
  driver_->Register("//d/x", "i", {}).Commit();
  EXPECT_EQ(view_->History({1, 6}, 1 << 20).status().code(), Code::kAborted);
  EXPECT_EQ(view_->History({1, 7}, 1 << 20)->size(), 14u);
  Reopen();
  EXPECT_EQ(view_->History({1, 6}, 1 << 20).status().code(), Code::kAborted);
  EXPECT_EQ(view_->History({1, 7}, 1 << 20)->size(), 14u);
  EXPECT_EQ(view_->History({2, 7}, 1 << 20).status().code(), Code::kAborted) << "another epoch";
  EXPECT_EQ(view_->History({1, 99}, 1 << 20).status().code(), Code::kAborted) << "not yet";
}

class SmallHistoryTest : public ViewTest {
 protected:
  ViewOptions Options() override {
    ViewOptions options;
    options.history_bytes = 10000;
    return options;
  }
};

TEST_F(SmallHistoryTest, HistoryKeepsItsByteBound) {
  for (int i = 0; i < 1000; ++i) {
    driver_->Register("//d/a", "i", {.priority = static_cast<uint32_t>(i)}).Commit();
    if (i == 500) Reopen();
  }
  uint64_t after = 0;
  while (!view_->History({1, after}, 1 << 20).ok()) ++after;
  size_t bytes = 0;
  const auto kept = view_->History({1, after}, 1 << 20);
  for (const auto& [at, events] : *kept) bytes += events.size();
  EXPECT_LE(bytes, 11500u);
  EXPECT_GE(bytes, 6000u);
  EXPECT_EQ(kept->front().first.number, after + 1);
}

TEST_F(ViewTest, AHeldSnapshotPagesThroughOneRevisionWhileChangesGoOn) {
  for (int i = 10; i < 50; ++i)
    driver_->Register("//d/a/n" + std::to_string(i), "i", {.subtree = i % 2 == 0}).Commit();
  driver_->Register("//d/a", "i", {}).Register("//d/ab", "i", {}).Register("//e", "i", {}).Commit();
  const auto held = view_->Hold();
  std::vector<std::string> rows, registrations;
  std::string after, next;
  int change = 0;
  do {
    const auto page = held->Rows(A("//d/a"), after, 7).value();
    if (page.empty()) break;
    for (const auto& item : page) {
      rows.push_back(item.address.text());
      EXPECT_EQ(item.row->status, AnswerStatus::kFound);
      EXPECT_EQ(item.subtree, rows.size() > 1 && rows.size() % 2 == 0) << rows.back();
    }
    after = page.back().address.Key();
    driver_->Register("//d/a/n" + std::to_string(49 - change), "i", {.ended = pb::REASON_WITHDRAWN})
        .Register("//d/a/later" + std::to_string(change), "i", {})
        .Commit();
    ++change;
  } while (true);
  ASSERT_EQ(rows.size(), 41u);
  EXPECT_EQ(rows[0], "//d/a") << "an ancestor comes before what is below it";
  EXPECT_TRUE(std::is_sorted(rows.begin() + 1, rows.end()));
  do {
    std::vector<std::string> events;
    ASSERT_TRUE(held->Registrations(A("//d/a"), next, 7, &events, &next).ok());
    for (const auto& bytes : events) {
      pb::Event event;
      ASSERT_TRUE(event.ParseFromString(bytes));
      EXPECT_EQ(event.kind(), pb::Event::KIND_PUT);
      registrations.push_back(event.address());
    }
  } while (!next.empty());
  std::sort(registrations.begin(), registrations.end());
  std::sort(rows.begin(), rows.end());
  EXPECT_EQ(registrations, rows);
  EXPECT_EQ(held->Rows(std::nullopt, "", 1000)->size(), 43u);
  EXPECT_LT(held->at(), view_->Applied());
}

// ---- readers against Publish

TEST_F(ViewTest, ACacheFillIsDroppedIfAPublishCameMeanwhile) {
  driver_->Register("//d/a", "1", {.url = "amqp://old:1"}).Commit();
  bool once = true;
  view_->SetStopPoint([&](std::string_view where) {
    if (where != "fill" || !std::exchange(once, false)) return;
    driver_->Register("//d/a", "1", {.url = "amqp://new:1"}).Commit();
  });
  Answer(*view_, "//d/a");
  EXPECT_FALSE(once);
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=1: amqp://new:1/up");
}

TEST_F(ViewTest, WhatIsWrittenButNotPublishedIsNotAnswered) {
  driver_->Register("//d/a", "1", {.url = "amqp://old:1"}).Commit();
  driver_->Register("//d/a", "1", {.url = "amqp://new:1"}).Stage();
  driver_->Write();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=1: amqp://old:1/up");
  driver_->Publish();
  EXPECT_EQ(Answer(*view_, "//d/a"), "FOUND //d/a total=1: amqp://new:1/up");
}

class NoCacheTest : public ViewTest {
 protected:
  ViewOptions Options() override {
    ViewOptions options;
    options.row_cache_bytes = 0;
    return options;
  }
};

TEST_F(ViewTest, ACachedRowAndOneReadBesideItAreOfOneRevision) {
  const auto put = [&](int n) {
    for (const char* address : {"//d/a", "//e/b"})
      driver_->Register(address, "1", {.url = "amqp://h:" + std::to_string(n)});
    driver_->Commit();
  };
  put(1);
  Answer(*view_, "//d/a");
  bool once = true;
  view_->SetStopPoint([&](std::string_view where) {
    if (where == "read" && std::exchange(once, false)) put(2);
  });
  const std::vector<Address> asked{A("//d/a"), A("//e/b")};
  std::vector<Match> out;
  ASSERT_TRUE(view_->Resolve(asked, &out).ok());
  EXPECT_FALSE(once);
  EXPECT_EQ(Shown(out[0]), "FOUND //d/a total=1: amqp://h:2/up");
  EXPECT_EQ(Shown(out[1]), "FOUND //e/b total=1: amqp://h:2/up");
}

TEST_F(NoCacheTest, SeveralAddressesAreReadAtOneRevision) {
  const auto put = [&](int n) {
    for (const char* address : {"//d/a", "//e/b"})
      driver_->Register(address, "1", {.url = "amqp://h:" + std::to_string(n)});
    driver_->Commit();
  };
  put(1);
  int overtakes = 0;
  for (int most : {1, 3, 1000}) {  // once, a few times, and always
    int left = most;
    view_->SetStopPoint([&](std::string_view where) {
      if (where == "read" && left-- > 0) put(2 + overtakes++);
    });
    const std::vector<Address> asked{A("//d/a"), A("//e/b"), A("//d/a")};
    std::vector<Match> out;
    const auto at = view_->Resolve(asked, &out);
    ASSERT_TRUE(at.ok());
    const std::string first = Shown(out[0]), second = Shown(out[1]);
    EXPECT_EQ(first.substr(first.find("amqp")), second.substr(second.find("amqp")));
    EXPECT_EQ(first, Shown(out[2]));
    pb::Row row;
    ASSERT_TRUE(row.ParseFromString(out[0].row->bytes));
    EXPECT_EQ(row.modified().number(), at->number) << "each revision here changes the row";
  }
  EXPECT_GT(overtakes, 8);
}

TEST_F(NoCacheTest, AnAddressAndItsAncestorsAreReadAtOneRevision) {
  // The exact row and the subtree above take turns: at no revision is the answer NOT_FOUND.
  bool exact = false;
  const auto turn = [&] {
    exact = !exact;
    const pb::Reason gone = pb::REASON_WITHDRAWN, here = pb::REASON_NONE;
    driver_->Register("//d/a/b", "1", {.ended = exact ? here : gone})
        .Register("//d", "1", {.subtree = true, .ended = exact ? gone : here})
        .Commit();
  };
  turn();
  turn();
  for (int most : {1, 2, 5, 1000}) {
    int left = most;
    view_->SetStopPoint([&](std::string_view where) {
      if (where == "read" && left-- > 0) turn();
    });
    EXPECT_NE(Answer(*view_, "//d/a/b"), "NOT_FOUND");
  }
}

TEST_F(ViewTest, ADiscardedStageLeavesNothing) {
  driver_->Register("//d/a", "1", {}).Stage();
  view_->Discard({1, 1});
  EXPECT_EQ(view_->Applied(), (Revision{1, 0}));
  Driver other(*view_);
  other.Register("//d/b", "1", {}).Commit();
  EXPECT_EQ(Answer(*view_, "//d/a"), "NOT_FOUND");
  EXPECT_EQ(Answer(*view_, "//d/b"), "FOUND //d/b total=1: amqp://h:1/up");
}

// Reads of this thread that reached RocksDB.
uint64_t StoreReads() {
  const rocksdb::PerfContext& context = *rocksdb::get_perf_context();
  return context.get_from_memtable_count;
}

// One for a whole file grows with the store, beyond what the cache takes.
TEST_F(ViewTest, IndexesOfTheStoreAreInParts) {
  driver_->Register("//d/a", "1", {}).Commit();
  ASSERT_TRUE(view_->db().Flush({}).ok());
  rocksdb::TablePropertiesCollection files;
  ASSERT_TRUE(view_->db().GetPropertiesOfAllTables(&files).ok());
  ASSERT_FALSE(files.empty());
  for (const auto& [name, file] : files) EXPECT_GE(file->index_partitions, 1u) << name;
}

TEST_F(ViewTest, ARegistrationThatComesAgainIsNotSearchedInTheStore) {
  rocksdb::SetPerfLevel(rocksdb::PerfLevel::kEnableCount);
  driver_->Open("s").Commit();
  driver_->Register("//d/a", "1", {.session = "s"}).Commit();
  const uint64_t before = StoreReads();
  EXPECT_GT(before, 0u);
  driver_->Register("//d/a", "1", {.session = "s", .priority = 7}).Commit();
  EXPECT_EQ(StoreReads(), before);
  EXPECT_EQ(RowOf(*view_, "//d/a").endpoints(0).priority(), 7u);
}

TEST_F(ViewTest, WhatWasDiscardedIsNotRemembered) {
  driver_->Register("//d/a", "1", {}).Commit();
  const std::string key = keys::Registration(A("//d/a"), "1");
  const auto before = view_->Get(key).value();
  ASSERT_TRUE(before);
  driver_->Register("//d/a", "1", {.priority = 9}).Stage();
  EXPECT_EQ(view_->Get(key).value()->modified, before->modified);
  view_->Discard({1, 2});
  EXPECT_EQ(view_->Get(key).value()->modified, before->modified);
  Driver other(*view_);
  other.Erase(key).Commit();
  EXPECT_FALSE(view_->Get(key).value());
  EXPECT_EQ(Answer(*view_, "//d/a"), "NOT_FOUND");
}

TEST_F(ViewTest, ARevisionStagedOnAnotherThatIsNotPublishedSeesIt) {
  driver_->Register("//d/a", "1", {}).Commit();
  rocksdb::WriteBatchWithIndex out(rocksdb::BytewiseComparator(), 0, true);
  const std::string second = keys::Registration(A("//d/a"), "2");
  const std::string third = keys::Registration(A("//d/a"), "3");
  Batch one{.at = {1, 2}, .puts = {}, .erased = {}, .before = {}}, two = one;
  two.at = {1, 3};
  one.puts.push_back({second, Value({.url = "amqp://h:2"}).SerializeAsString(), 2, 2});
  two.puts.push_back({third, Value({.url = "amqp://h:3"}).SerializeAsString(), 3, 3});
  ASSERT_TRUE(view_->Stage(one, out).ok());
  ASSERT_TRUE(view_->Stage(two, out).ok());
  ASSERT_TRUE(view_->db().Write({}, out.GetWriteBatch()).ok());
  view_->Publish({1, 3});
  EXPECT_EQ(Answer(*view_, "//d/a"),
            "FOUND //d/a total=3: amqp://h:1/up amqp://h:2/up amqp://h:3/up");
}

TEST(RecentTest, IsBoundedAndKeepsWhatIsAskedFor) {
  constexpr size_t kMost = 32 << 10;
  const std::optional<Recent::Value> absent(std::in_place), present(std::in_place, "y");
  Recent recent(kMost);
  EXPECT_FALSE(recent.Find("d/kept"));
  recent.Set("d/kept", std::nullopt);
  recent.Set("d/forgotten", "x");
  for (int i = 0; i < 1000; ++i) {
    recent.Set("d/" + std::to_string(i), std::string(i % 200, 'x'));
    ASSERT_LE(recent.bytes(), kMost);
    ASSERT_EQ(recent.Find("d/kept"), absent) << i;
  }
  EXPECT_FALSE(recent.Find("d/forgotten"));
  EXPECT_GT(recent.bytes(), kMost / 2 - 500);
  recent.Set("d/kept", "y");
  EXPECT_EQ(recent.Find("d/kept"), present);
}

class SmallCacheTest : public ViewTest {
 protected:
  ViewOptions Options() override {
    ViewOptions options;
    options.row_cache_bytes = 64 << 10;
    return options;
  }
};

TEST_F(SmallCacheTest, TheCacheIsBoundedAndAMissIsAnsweredFromTheStore) {
  for (int i = 0; i < 1000; ++i) driver_->Register("//d/n" + std::to_string(i), "i", {});
  driver_->Commit();
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < 1000; ++i) {
      ASSERT_EQ(Answer(*view_, "//d/n" + std::to_string(i)).substr(0, 5), "FOUND");
      ASSERT_EQ(Answer(*view_, "//none/n" + std::to_string(i)), "NOT_FOUND");
    }
  EXPECT_LE(view_->counts().row_cache_bytes, 64u << 10);
  EXPECT_GT(view_->counts().row_cache_bytes, 16u << 10);
}

// ---- FORMAT.md

std::string Hex(std::string_view bytes) {
  std::string out;
  for (unsigned char c : bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    out += kDigits[c >> 4];
    out += kDigits[c & 15];
  }
  return out;
}

TEST_F(ViewTest, TheExamplesOfTheFormatAreWhatIsStored) {
  driver_->Open(std::string(16, 's')).Commit();
  driver_
      ->Register("//demo/upper", std::string(16, 'i'),
                 {.session = std::string(16, 's'), .url = "amqp://127.0.0.1:5672", .subtree = true})
      .Commit();
  driver_->End(std::string(16, 's'), pb::REASON_EXPIRED).Commit();
  record::AddressPolicy policy;
  policy.set_policy(pb::POLICY_ORDERED);
  driver_->Put(keys::Policy(A("//demo/lower")), policy.SerializeAsString()).Commit();
  std::map<std::string, std::string> stored;
  const std::unique_ptr<rocksdb::Iterator> it(view_->db().NewIterator({}));
  for (it->SeekToFirst(); it->Valid(); it->Next())
    stored[Hex(it->key().ToStringView())] = Hex(it->value().ToStringView());
  std::ifstream file(DATAWIRE_SOURCE_DIR "/directory/view/FORMAT.md");
  const std::regex example("^    ([0-9a-f]+) = ?([0-9a-f]*)$");
  std::smatch match;
  size_t examples = 0;
  for (std::string line; std::getline(file, line);) {
    if (!std::regex_match(line, match, example)) continue;
    ++examples;
    EXPECT_EQ(stored[match[1]], match[2]) << "key " << match[1];
    stored.erase(match[1]);
  }
  stored.erase(Hex(keys::kAuthority));  // holds the time
  EXPECT_GE(examples, 8u);
  for (const auto& [key, value] : stored)
    ADD_FAILURE() << "no example in FORMAT.md:\n    " << key << " = " << value;
}

}  // namespace
}  // namespace datawire::directory::testing_view
