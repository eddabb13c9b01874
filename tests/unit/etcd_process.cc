#include "etcd_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "datawire/clock.h"
#include "engine/etcd/client.h"

namespace datawire::directory {
namespace {

int FreePort() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&at), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size), 0);
  ::close(fd);
  return ntohs(at.sin_port);
}

}  // namespace

EtcdProcess::EtcdProcess() {
  std::string path = (std::filesystem::temp_directory_path() / "etcd-XXXXXX").string();
  directory_ = ::mkdtemp(path.data());
  endpoint_ = "127.0.0.1:" + std::to_string(FreePort());
  const std::string peer = "http://127.0.0.1:" + std::to_string(FreePort());
  const std::string client = "http://" + endpoint_;
  std::vector<std::string> arguments = {"etcd",
                                        "--name=m",
                                        "--data-dir=" + directory_ + "/data",
                                        "--listen-client-urls=" + client,
                                        "--advertise-client-urls=" + client,
                                        "--listen-peer-urls=" + peer,
                                        "--initial-advertise-peer-urls=" + peer,
                                        "--initial-cluster=m=" + peer,
                                        "--auto-compaction-retention=0",
                                        "--experimental-watch-progress-notify-interval=1s"};
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int log = ::open((directory_ + "/log").c_str(), O_CREAT | O_WRONLY, 0600);
    ::dup2(log, 1);
    ::dup2(log, 2);
    ::execvp("etcd", argv.data());
    ::_exit(127);
  }
  etcd::Client asks({endpoint_});
  const BootTime until = BootClock::now() + std::chrono::seconds(20);
  etcd::api::RangeRequest request;
  request.set_key("x");
  while (!asks.Range(0, request, std::chrono::milliseconds(500)).ok())
    if (BootClock::now() > until) {
      ADD_FAILURE() << "etcd does not start, see " << directory_;
      return;
    }
}

EtcdProcess::~EtcdProcess() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void EtcdProcess::Wipe() {
  etcd::Client client({endpoint_});
  etcd::api::TxnRequest request;
  auto* const all = request.add_success()->mutable_request_delete_range();
  all->set_key(std::string(1, '\0'));
  all->set_range_end(std::string(1, '\0'));
  EXPECT_TRUE(client.Txn(0, request, std::chrono::seconds(5)).ok());
}

void EtcdProcess::Freeze() {
  ::kill(pid_, SIGSTOP);
}

void EtcdProcess::Thaw() {
  ::kill(pid_, SIGCONT);
}

}  // namespace datawire::directory
