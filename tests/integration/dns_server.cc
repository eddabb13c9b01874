#include "dns_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "datawire/assert.h"

namespace datawire::testing {
namespace {

constexpr char kProgram[] = "/usr/sbin/dnsmasq";

// dnsmasq takes no port 0. One that UDP and TCP have free now is free in a moment, too.
std::string FreePort() {
  while (true) {
    const int udp = ::socket(AF_INET, SOCK_DGRAM, 0), tcp = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    auto* const any = reinterpret_cast<sockaddr*>(&at);
    const bool free = ::bind(udp, any, size) == 0 && ::getsockname(udp, any, &size) == 0 &&
                      ::bind(tcp, any, size) == 0;
    ::close(udp);
    ::close(tcp);
    if (free) return std::to_string(ntohs(at.sin_port));
  }
}

}  // namespace

DnsServer::DnsServer() : address_("127.0.0.1:" + FreePort()) {
  std::string path = std::filesystem::temp_directory_path() / "datawire-dns-XXXXXX";
  const int file = ::mkstemp(path.data());
  DW_ASSERT(file >= 0);
  ::close(file);
  config_ = path;
}

DnsServer::~DnsServer() {
  Kill();
  std::filesystem::remove(config_);
}

void DnsServer::Kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void DnsServer::Serve(const std::vector<std::string>& records, int ttl_s) {
  Kill();
  {
    std::ofstream config(config_);
    config << "listen-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/test/\n"
           << "port=" << address_.substr(address_.find(':') + 1) << "\nlocal-ttl=" << ttl_s << "\n";
    for (const std::string& record : records)
      config << "srv-host=_datawire._tcp.example.test" << (record.empty() ? "" : ",") << record
             << "\n";
  }
  const std::string option = "--conf-file=" + config_;
  int log[2];
  DW_ASSERT(::pipe2(log, O_CLOEXEC) == 0);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(log[1], STDERR_FILENO);
    ::execl(kProgram, kProgram, "--no-daemon", option.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(log[1]);
  FILE* const in = ::fdopen(log[0], "r");
  char line[512] = "no output";
  bool started = false;
  while (!started && std::fgets(line, sizeof line, in) != nullptr)
    started = std::string_view(line).find(": started") != std::string_view::npos;
  std::fclose(in);
  if (!started) std::fprintf(stderr, "dnsmasq did not start: %s\n", line);
  DW_ASSERT(started);
}

}  // namespace datawire::testing
