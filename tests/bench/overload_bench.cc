// Far more load than a directory can carry: what is still served, and who pays. Server on core 0,
// the crowd on core 1.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <filesystem>

#include "child.h"
#include "overload.h"

namespace datawire::bench {
namespace {

void Resolves(benchmark::State& state, const std::string& address) {
  Overload out;
  for (auto _ : state) out = MeasureOverload(address, std::chrono::seconds(5));
  state.counters["good_of_peak"] = out.good / out.peak;
  state.counters["peak_per_second"] = out.peak;
  state.counters["refused_per_second"] = out.refused;
  state.counters["sessions_lost"] = out.sessions_lost;
  state.counters["heartbeat_p99_ms"] = out.heartbeat_p99 * 1e3;
  state.counters["resolve_p99_ms"] = out.resolve_p99 * 1e3;
  state.counters["resolve_p99_peak_ms"] = out.resolve_p99_peak * 1e3;
  state.counters["recovery_s"] = out.recovery;
}

void Registers(benchmark::State& state, const std::string& address) {
  double part = 0;
  for (auto _ : state) part = RegistersOfPeak(address, std::chrono::seconds(3));
  state.counters["good_of_peak"] = part;
}

}  // namespace

int Main(int argc, char** argv) {
  const std::string data = std::filesystem::absolute("overload-data-" + std::to_string(::getpid()));
  {
    const Child directory("datawire-directory",
                          {"--data", data, "--init", "--node-id", "n1", "--listen", "127.0.0.1:0",
                           "--http-listen", "127.0.0.1:0"});
    PinSelf();
    benchmark::RegisterBenchmark("Overload/resolves", [&](auto& state) {
      Resolves(state, directory.address());
    })->Iterations(1);
    benchmark::RegisterBenchmark("Overload/registers", [&](auto& state) {
      Registers(state, directory.address());
    })->Iterations(1);
    benchmark::Initialize(&argc, argv);
    if (!benchmark::ReportUnrecognizedArguments(argc, argv)) benchmark::RunSpecifiedBenchmarks();
  }
  std::filesystem::remove_all(data);
  return 0;
}

}  // namespace datawire::bench

int main(int argc, char** argv) {
  return datawire::bench::Main(argc, argv);
}
