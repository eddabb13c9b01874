#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "datawire/client.h"
#include "http/metrics.h"

namespace datawire::intermediaries {

/// What these programs have in common: flags, the ready line, metrics, the end by a signal.
/// Thread-compatible.
class Program {
 public:
  Program(const std::string& name, const std::string& what);

  CLI::App& flags() { return flags_; }
  CLI::Option* Duration(const std::string& flag, std::chrono::milliseconds& to,
                        const std::string& what);
  /// Exit code when the program is to end here (usage, --help, --version).
  std::optional<int> Parse(int argc, char** argv);

  ClientOptions client_options() const;
  ServiceOptions service_options() const;
  /// How long it waits at its end for what is under way.
  std::chrono::milliseconds stop_most() const { return stop_most_; }

  /// `value` is asked for by those who read /metrics, on their thread.
  void Show(const std::string& name, const std::string& help, std::function<double()> value);
  /// Serves the pages, prints `ready amqp=URL http=HOST:PORT`, waits for SIGTERM or SIGINT, or
  /// until `over`. An exit code.
  int Run(const std::string& url, const std::function<bool()>& over = nullptr);
  /// One line on stderr. Any thread.
  void Tell(const std::string& line) const;
  int Fail(const Status& status) const;

 private:
  const std::string name_;
  CLI::App flags_;
  std::vector<std::string> directory_;
  std::string listen_ = "127.0.0.1:0", announce_, http_;
  TlsFiles tls_;
  uint32_t credit_ = limits::kServiceCredit;
  std::chrono::milliseconds stop_most_{10'000};
  struct Figure {
    std::string name, help;
    std::function<double()> value;
  };
  std::vector<Figure> shown_;
};

}  // namespace datawire::intermediaries
