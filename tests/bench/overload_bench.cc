// Far more load than a directory can carry: what is still served, and who pays. Server on core 0,
// the crowd on core 1.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <filesystem>

#include "child.h"
#include "overload.h"

namespace datawire::bench {
namespace {

// A server for each measurement: the sessions of the one before would expire in the next.
class Fresh {
 public:
  const std::string& address() const { return directory_.address(); }

 private:
  struct Folder {
    static std::string New() {
      static int count = 0;
      return std::filesystem::absolute("overload-data-" + std::to_string(::getpid()) + "-" +
                                       std::to_string(++count));
    }
    ~Folder() { std::filesystem::remove_all(path); }
    const std::string path = New();
  };
  const Folder data_;
  const Child directory_{"datawire-directory",
                         {"--data", data_.path, "--init", "--node-id", "n1", "--listen",
                          "127.0.0.1:0", "--http-listen", "127.0.0.1:0"}};
};

void Resolves(benchmark::State& state) {
  const Fresh server;
  PinSelf();
  Overload out;
  for (auto _ : state) out = MeasureOverload(server.address(), std::chrono::seconds(5));
  state.counters["good_of_peak"] = out.good / out.peak;
  state.counters["peak_per_second"] = out.peak;
  state.counters["refused_per_second"] = out.refused;
  state.counters["sessions_lost"] = out.sessions_lost;
  state.counters["heartbeat_p99_ms"] = out.heartbeat_p99 * 1e3;
  state.counters["resolve_p99_ms"] = out.resolve_p99 * 1e3;
  state.counters["resolve_p99_peak_ms"] = out.resolve_p99_peak * 1e3;
  state.counters["recovery_s"] = out.recovery;
}

void Registers(benchmark::State& state) {
  const Fresh server;
  PinSelf();
  double part = 0;
  for (auto _ : state) part = RegistersOfPeak(server.address(), std::chrono::seconds(3));
  state.counters["good_of_peak"] = part;
}

}  // namespace

int Main(int argc, char** argv) {
  benchmark::RegisterBenchmark("Overload/resolves", Resolves)->Iterations(1);
  benchmark::RegisterBenchmark("Overload/registers", Registers)->Iterations(1);
  benchmark::Initialize(&argc, argv);
  if (!benchmark::ReportUnrecognizedArguments(argc, argv)) benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace datawire::bench

int main(int argc, char** argv) {
  return datawire::bench::Main(argc, argv);
}
