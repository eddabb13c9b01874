#include "program.h"

#include <csignal>
#include <cstdio>

#include "datawire/duration.h"
#include "http/server.h"

namespace datawire::intermediaries {
namespace {

constexpr std::chrono::milliseconds kLook{100};  // between looks at whether it is over

sigset_t Ends() {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  return ends;
}

}  // namespace

Program::Program(const std::string& name, const std::string& what) : name_(name), flags_(what) {
  const sigset_t ends = Ends();
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before there are threads, so that none takes it
  std::signal(SIGPIPE, SIG_IGN);
  flags_.set_version_flag("--version", DATAWIRE_VERSION);
  flags_.add_option("--directory", directory_, "HOST:PORT[,...]; else found as the library does")
      ->delimiter(',');
  flags_.add_option("--tls-cert", tls_.cert, "certificate chain, PEM");
  flags_.add_option("--tls-key", tls_.key, "its key");
  flags_.add_option("--tls-ca", tls_.ca, "who signs the peers' certificates");
  flags_.add_option("--listen", listen_, "HOST:PORT for AMQP")->capture_default_str();
  flags_.add_option("--announce", announce_, "HOST[:PORT] to register; else the bound one");
  flags_.add_option("--http-listen", http_, "HOST:PORT for /metrics, /healthz, /readyz; else none");
  flags_.add_option("--credit", credit_, "messages in flight a link")
      ->capture_default_str()
      ->check(CLI::Range(1u, 1'000'000u));
  Duration("--stop-timeout", stop_most_, "at the end, for what is under way");
}

CLI::Option* Program::Duration(const std::string& flag, std::chrono::milliseconds& to,
                               const std::string& what) {
  return flags_
      .add_option_function<std::string>(
          flag,
          [&to, flag](const std::string& text) {
            const auto value = ParseDuration(text);
            if (!value.ok()) throw CLI::ValidationError(flag, value.status().message());
            to = *value;
          },
          what + " (default " + std::to_string(to.count()) + "ms)")
      ->type_name("DURATION");
}

std::optional<int> Program::Parse(int argc, char** argv) {
  try {
    flags_.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return flags_.exit(e);  // --help, --version
    std::fprintf(stderr, "%s: %s\n", name_.c_str(), e.what());
    return 1;
  }
  return std::nullopt;
}

ClientOptions Program::client_options() const {
  ClientOptions options;
  options.resolver.directory = directory_;
  options.resolver.tls = tls_;
  options.program = name_;
  return options;
}

ServiceOptions Program::service_options() const {
  ServiceOptions options;
  options.listen = listen_;
  options.announce = announce_;
  options.credit = credit_;
  return options;
}

void Program::Show(const std::string& name, const std::string& help,
                   std::function<double()> value) {
  shown_.push_back({name, help, std::move(value)});
}

int Program::Run(const std::string& url, const std::function<bool()>& over) {
  std::unique_ptr<HttpServer> pages;
  if (!http_.empty()) {
    const auto at = HostPort::Parse(http_);
    if (!at.ok()) return Fail(at.status());
    auto started =
        HttpServer::Start(*at, {[this] {
                                  std::vector<Metric> metrics;
                                  for (const Figure& one : shown_)
                                    metrics.push_back({one.name, one.help, {{{}, one.value()}}});
                                  return MetricsText(metrics);
                                },
                                [] { return Status::Ok(); }});
    if (!started.ok()) return Fail(started.status());
    pages = std::move(started).value();
    std::printf("ready amqp=%s http=%s\n", url.c_str(),
                HostPort{at->host, pages->port()}.ToString().c_str());
  } else {
    std::printf("ready amqp=%s\n", url.c_str());
  }
  std::fflush(stdout);
  const sigset_t ends = Ends();
  const timespec look{0, std::chrono::nanoseconds(kLook).count()};
  while (sigtimedwait(&ends, nullptr, &look) < 0 && !(over && over())) {
  }
  return 0;
}

void Program::Tell(const std::string& line) const {
  std::fprintf(stderr, "%s: %s\n", name_.c_str(), line.c_str());
}

int Program::Fail(const Status& status) const {
  Tell(status.message());
  return MappingOf(status.code()).exit_code;
}

}  // namespace datawire::intermediaries
