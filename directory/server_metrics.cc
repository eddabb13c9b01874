#include "server_metrics.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/directory.h"
#include "engine/log.h"
#include "grpc/server.h"
#include "http/metrics.h"
#include "ops/process.h"
#include "view/view.h"

namespace datawire::directory {
namespace {

using Metrics = std::vector<Metric>;

void Add(Metrics& metrics, std::string name, std::string help, double value) {
  metrics.push_back({std::move(name), std::move(help), {{{}, value}}});
}

void Add(Metrics& metrics, std::string name, std::string help, uint64_t value) {
  Add(metrics, std::move(name), std::move(help), static_cast<double>(value));
}

void AddLabelled(Metrics& metrics, std::string name, std::string help, const char* label,
                 std::initializer_list<std::pair<const char*, uint64_t>> values) {
  Metric metric{std::move(name), std::move(help), {}};
  for (const auto& [of, value] : values)
    metric.samples.push_back({{{label, of}}, static_cast<double>(value)});
  metrics.push_back(std::move(metric));
}

double Seconds(BootClock::duration time) {
  return std::max(0.0, std::chrono::duration<double>(time).count());
}

void AddVerbs(Metrics& to, const Directory::Counters& c) {
  Add(to, "datawire_resolves_total", "Resolve calls", c.resolves);
  Add(to, "datawire_resolved_names_total", "Addresses answered by Resolve", c.resolved_names);
  Add(to, "datawire_registers_total", "Register operations", c.registers);
  Add(to, "datawire_withdraws_total", "Withdraw operations", c.withdraws);
  Add(to, "datawire_refused_total", "Operations refused", c.refused);
  Add(to, "datawire_heartbeats_total", "Heartbeats of sessions", c.heartbeats);
  Add(to, "datawire_sessions_opened_total", "Sessions opened", c.sessions_opened);
  Add(to, "datawire_sessions_resumed_total", "Sessions resumed", c.sessions_resumed);
  Add(to, "datawire_sessions_ended_total", "Sessions ended, for any reason", c.sessions_ended);
  Add(to, "datawire_sessions_expired_total", "Sessions ended for lack of heartbeats",
      c.sessions_expired);
  Add(to, "datawire_pushes_total", "Answers pushed to subscribers", c.pushes);
  Add(to, "datawire_watch_events_total", "Events sent to watchers", c.watch_events);
  Add(to, "datawire_watch_resyncs_total", "Times a watcher was told RESYNC", c.watch_resyncs);
  Add(to, "datawire_brake_trips_total", "Times mass expiry was stopped", c.brake_trips);
  Add(to, "datawire_streams_paced_total", "Streams told to begin later", c.streams_paced);
  Add(to, "datawire_quota_refusals_total", "Refused because a principal has its quota",
      c.quota_refusals);
}

void AddState(Metrics& to, const pb::StatusResponse& status) {
  Add(to, "datawire_epoch", "Epoch of the revision", status.revision().epoch());
  Add(to, "datawire_revision", "Applied revision number", status.revision().number());
  Add(to, "datawire_healthy", "1: commits work and are quick", uint64_t{status.healthy()});
  Add(to, "datawire_answer_age_seconds", "Age of what is answered",
      static_cast<double>(status.age_ms()) / 1000);
  Add(to, "datawire_brake_on", "1: mass expiry is stopped", uint64_t{status.brake_on()});
  Add(to, "datawire_sessions", "Live sessions", status.sessions());
  Add(to, "datawire_sessions_suspect", "Sessions whose endpoints are suspect",
      status.sessions_suspect());
  Add(to, "datawire_registrations", "Live registrations", status.registrations());
  Add(to, "datawire_addresses", "Addresses with registrations", status.addresses());
  Add(to, "datawire_subscribers", "Open Subscribe streams", status.subscribers());
  Add(to, "datawire_subscriptions", "Addresses subscribed to, over all streams",
      status.subscriptions());
  Add(to, "datawire_watchers", "Open Watch streams", status.watchers());
}

void AddView(Metrics& to, const View::Counts& counts) {
  Add(to, "datawire_row_cache_hits_total", "Rows found in the cache", counts.row_cache_hits);
  Add(to, "datawire_row_cache_misses_total", "Rows read from the store", counts.row_cache_misses);
  Add(to, "datawire_row_cache_bytes", "Size of the row cache", counts.row_cache_bytes);
}

void AddFront(Metrics& to, const GrpcUse& use) {
  Metric calls{"datawire_grpc_calls_total", "Calls and streams finished, by verb and code", {}};
  for (const GrpcUse::Finished& one : use.finished) {
    calls.samples.push_back({{{"verb", std::string(one.verb)}, {"code", std::string(one.code)}},
                             static_cast<double>(one.calls)});
  }
  to.push_back(std::move(calls));
  AddLabelled(to, "datawire_grpc_streams", "Open streams, by verb", "verb",
              {{"tether", use.tethers}, {"subscribe", use.subscribes}, {"watch", use.watches}});
  Add(to, "datawire_connections_refused_total", "Connections reset for lack of files, or room",
      use.connections_refused);
  AddLabelled(to, "datawire_shed_total", "Calls refused or dropped because too many waited",
              "class", {{"resolve", use.resolves_shed}, {"list", use.lists_shed}});
}

struct EngineFigure {
  std::string_view name;  // as the engine calls it
  const char *metric, *help;
};
constexpr EngineFigure kEngineFigures[] = {
    {"transactions", "datawire_etcd_transactions_total", "Transactions committed"},
    {"ops", "datawire_etcd_ops_total", "Operations in them"},
    {"transactions_repeated", "datawire_etcd_transactions_repeated_total",
     "Transactions found done when they were sent again"},
    {"transactions_resent", "datawire_etcd_transactions_resent_total",
     "Transactions sent again, to the next member"},
    {"transactions_fenced", "datawire_etcd_transactions_fenced_total",
     "Transactions refused: another run of the node has taken over"},
    {"no_space", "datawire_etcd_no_space_total", "Times the space quota was reached"},
    {"watches", "datawire_etcd_watches_total", "Watches opened"},
    {"compared", "datawire_etcd_compared_total", "Comparisons of replicas that came to their end"},
    {"compared_unequal", "datawire_etcd_compared_unequal_total",
     "Of these, those that found a difference"},
    {"compared_incomplete", "datawire_etcd_compared_incomplete_total",
     "Comparisons that did not come to their end"},
    {"scrubs", "datawire_etcd_scrubs_total", "Comparisons with what etcd holds"},
    {"replica_wrong", "datawire_etcd_replica_wrong_total",
     "Times this replica was not what etcd holds"},
    {"listings", "datawire_etcd_listings_total", "Listings of all records"},
    {"watch_gaps", "datawire_etcd_watch_gaps_total", "Times a watch had left something out"},
    {"listed", "datawire_etcd_listed", "Records listed so far, in a listing"},
    {"leases_lost", "datawire_etcd_leases_lost_total", "Times the node's lease was lost"},
    {"compactions", "datawire_etcd_compactions_total", "Compactions by this node"},
};

void AddEngine(Metrics& to, const Log& log) {
  for (const auto& [name, count] : log.figures()) {
    const auto* const figure =
        std::find_if(std::begin(kEngineFigures), std::end(kEngineFigures),
                     [name = name](const EngineFigure& one) { return one.name == name; });
    if (figure == std::end(kEngineFigures))
      Add(to, std::string(name), "Of the engine, not described", count);  // a test finds it
    else
      Add(to, figure->metric, figure->help, count);
  }
}

}  // namespace

std::string ServerMetrics::Text(BootTime now) const {
  Metrics metrics;
  const pb::StatusResponse status = directory.GetStatus();
  metrics.push_back({"datawire_build_info",
                     "1, with what runs in its labels",
                     {{{{"version", status.version()},
                        {"engine", status.engine()},
                        {"node", status.source().node_id()},
                        {"cluster", status.source().cluster_id()}},
                       1}}});
  Add(metrics, "datawire_uptime_seconds", "Since the process started", Seconds(now - started));
  AddState(metrics, status);
  AddVerbs(metrics, directory.counters());
  AddView(metrics, view.counts());
  AddEngine(metrics, log);
  AddFront(metrics, grpc.use());
  const ProcessUse process = ReadProcessUse();
  Add(metrics, "datawire_process_open_files", "Open file descriptors", process.open_files);
  Add(metrics, "datawire_process_resident_bytes", "Resident memory", process.resident_bytes);
  return MetricsText(metrics);
}

}  // namespace datawire::directory
