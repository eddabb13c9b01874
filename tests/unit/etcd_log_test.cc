#include <filesystem>

#include "engine/etcd/etcd.h"
#include "etcd_process.h"
#include "failing_disc.h"
#include "log_conformance.h"
#include "view_fixture.h"

namespace datawire::directory {
namespace {

using testing_view::TempDir;
using namespace std::chrono_literals;

/// One etcd for all tests of this program: each begins with an empty one.
EtcdProcess& SharedEtcd() {
  static EtcdProcess etcd;
  return etcd;
}

/// The engine over a real etcd. Crash: a power loss of the node while it runs; etcd goes on.
class EtcdEngine {
 public:
  EtcdEngine() {
    SharedEtcd().Wipe();
    etcd::Client client({SharedEtcd().endpoint()});
    EXPECT_TRUE(InitEtcdAuthority(client, {"cluster", 1}, 5s).ok());
    NewDisc();
    Open();
  }
  ~EtcdEngine() { Close(); }
  Log& log() { return *log_; }
  View& view() { return *view_; }

  void Crash() {
    ++generation_;
    disc_->WriteAsAfterPowerLoss(disc_->calls(), nullptr, Path());
    Close();
    NewDisc();
    Open();
    // What was acknowledged is seen when the watch has caught up.
    std::promise<void> caught_up;
    log_->ReadBarrier(BootClock::now() + 10s, [&](Result<Revision>) { caught_up.set_value(); });
    caught_up.get_future().wait();
  }

 private:
  std::string Path() const { return dir_ / ("data" + std::to_string(generation_)); }
  void Open() {
    client_ = std::make_unique<etcd::Client>(std::vector{SharedEtcd().endpoint()});
    const auto authority = ReadEtcdAuthority(*client_, 5s);
    ASSERT_TRUE(authority.ok()) << authority.status().ToString();
    ViewOptions options;
    options.env = env_.get();
    view_ = View::OpenReplica(Path(), *authority, options).value();
    EtcdOptions as;
    as.node_id = "node";
    as.incarnation = "run" + std::to_string(++runs_);
    as.ended = [](const Status& status) { ADD_FAILURE() << status.ToString(); };
    log_ = OpenEtcd(*client_, *view_, as).value();
    const BootTime until = BootClock::now() + 10s;
    while (!log_->ready() && BootClock::now() < until) std::this_thread::yield();
    ASSERT_TRUE(log_->ready());
  }
  void Close() {
    log_.reset();
    view_.reset();
    client_.reset();
  }
  void NewDisc() {
    disc_ = std::make_shared<FailingDisc>(Path());
    env_ = rocksdb::NewCompositeEnv(disc_);
  }

  TempDir dir_;
  int generation_ = 0, runs_ = 0;
  std::shared_ptr<FailingDisc> disc_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<etcd::Client> client_;
  std::unique_ptr<View> view_;
  std::unique_ptr<Log> log_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Etcd, LogConformance, EtcdEngine);

}  // namespace
}  // namespace datawire::directory
