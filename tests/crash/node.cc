#include "node.h"

#include <gtest/gtest.h>
#include <sys/vfs.h>

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "engine/embedded.h"

namespace datawire::directory {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

constexpr long kTmpfs = 0x01021994, kRamfs = 0x858458f6;  // statfs(2)
constexpr auto kTickEvery = 5ms;
constexpr uint64_t kReserve = 1 << 20;  // small, as the stores are

}  // namespace

CrashFolder::CrashFolder() {
  const char* set = std::getenv("DATAWIRE_TEST_DIR");
  const std::string base = set != nullptr ? set : DATAWIRE_CRASH_DIR;
  fs::create_directories(base);
  path_ = base + "/crash-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) std::abort();
  struct statfs what {};
  EXPECT_EQ(::statfs(path_.c_str(), &what), 0);
  EXPECT_TRUE(what.f_type != kTmpfs && what.f_type != kRamfs)
      << path_ << " is in memory: set DATAWIRE_TEST_DIR to a folder on a disc";
}

CrashFolder::~CrashFolder() {
  std::error_code ignored;
  if (::testing::Test::HasFailure())
    std::cout << "files of the failed test: " << path_ << "\n";
  else
    fs::remove_all(path_, ignored);
}

Node::Node(const std::string& folder)
    : folder_(folder),
      disc_(std::make_shared<FailingDisc>(folder)),
      env_(rocksdb::NewCompositeEnv(disc_)) {}

Status Node::Start(std::optional<BootTime> simulated) {
  ViewOptions options;
  options.env = env_.get();
  options.row_cache_bytes = options.block_cache_bytes = 4 << 20;
  options.reserve_bytes = kReserve;
  auto view = View::Open(folder_, options);
  // A store whose creation was cut says so: nothing in it was acknowledged.
  if (view.status().code() == Code::kNotFound) view = View::Create(folder_, {"crash", 1}, options);
  if (!view.ok()) return view.status();
  view_ = std::move(*view);
  DW_ASSIGN(log_, OpenEmbedded(*view_));
  DW_ASSIGN(directory_, Directory::Open(*view_, *log_, {"node-1", "run", /*seed=*/0},
                                        simulated.value_or(BootClock::now())));
  if (simulated) return {};
  stopping_ = false;
  ticker_ = std::thread([this] {
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    while (!stopping_) {
      directory_->Tick(BootClock::now());
      never.wait_for(lock, kTickEvery);
    }
  });
  return {};
}

void Node::Stop() {
  stopping_ = true;
  if (ticker_.joinable()) ticker_.join();
  if (directory_) directory_->Stop();
  directory_.reset();
  if (log_) log_->Stop();
  log_.reset();
  view_.reset();
}

}  // namespace datawire::directory
