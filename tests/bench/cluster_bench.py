"""A cluster of three etcd members and three nodes on this machine against bare etcd, for tests/bench/run.

  cluster_bench.py --out FILE
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from fill_bench import cpu_seconds
from harness import programs
from harness.cluster import Cluster
from harness.etcd import Etcd
from harness.programs import Directory, Program, binary, dw, eventually

SECONDS = "8"
ROUNDS = 3
REPLAYED = 50_000


def load(*args):
    return json.loads(subprocess.run([binary("cluster_load"), *args], check=True, stdout=subprocess.PIPE).stdout)


def registered(etcd, *args):
    """Registrations a second, and microseconds of etcd's CPU that one of them cost."""
    before = sum(map(cpu_seconds, etcd.members))
    rate = load(*args)["rate"]
    return rate, (sum(map(cpu_seconds, etcd.members)) - before) / (rate * float(SECONDS)) * 1e6


def revisions_in(etcd, seconds):
    before = etcd.revision()
    time.sleep(seconds)
    return etcd.revision() - before


def resolves(node):
    """Resolves a second, 64 in flight, against the bare echo of the same run. The node on core 0, as in directory_bench."""
    if os.cpu_count() > 1:
        subprocess.run(["taskset", "-a", "-cp", "0", str(node.pid)], check=True, stdout=subprocess.DEVNULL)
    out = os.path.join(programs.scratch("resolves"), "out.json")
    subprocess.run([binary("directory_bench"), node.address, "--benchmark_filter=ResolveUnary64", "--benchmark_repetitions=5",
                    f"--benchmark_out={out}", "--benchmark_out_format=json"], check=True, stdout=subprocess.DEVNULL,
                   cwd=os.path.dirname(out))
    with open(out, encoding="utf-8") as file:
        medians = {run["run_name"].split("/")[1]: run["items_per_second"] for run in json.load(file)["benchmarks"]
                   if run.get("aggregate_name") == "median"}
    return medians["directory"] / medians["echo"]


def fill(directory, *args):
    result = dw("bench", "fill", *args, directory=directory, timeout=300)
    if result.code != 0:
        sys.exit(f"cluster_bench: {result.stderr}")


def replays(cluster):
    """Events a second that a node takes in which was away for them, its start included."""
    one, _, away = cluster.nodes
    away.stop(30)
    fill(one, "--endpoints", str(REPLAYED), "--sessions", "1000", "--keep", "1h")
    wanted = one.metric("datawire_revision")
    began = time.monotonic()
    away.start_again()
    eventually(lambda: away.metric("datawire_revision") >= wanted, 120, "the node has caught up")
    took = time.monotonic() - began
    if away.metric("datawire_etcd_listings_total") > 0:
        sys.exit("cluster_bench: the node listed etcd instead of following it")
    return REPLAYED / took


def measure():
    bare, nodes, visible, alone, replicated = [], [], [], [], []
    for _ in range(ROUNDS):
        with Etcd(3) as etcd:
            etcd.wait_healthy()
            bare.append(registered(etcd, "etcd", etcd.wait_leader().client, SECONDS))
        with Cluster(direct=True) as cluster:
            nodes.append(registered(cluster.etcd, "register", cluster.addresses, SECONDS, "120"))
            visible.append(load("visible", cluster.nodes[0].address, cluster.nodes[1].address, "5", "1000")["p50_us"])
            replicated.append(resolves(cluster.nodes[2]))
        with Directory() as directory:
            alone.append(resolves(directory))
    with Cluster(direct=True) as cluster:
        quiet = revisions_in(cluster.etcd, 60)
        with Program("dw", "--directory", cluster.addresses, "bench", "fill", "--endpoints", "10000", "--sessions", "10000",
                     "--hold", "-o", "jsonl", label="fill") as holding:
            holding.wait_for_line("endpoints", 120)
            time.sleep(5)
            held = revisions_in(cluster.etcd, 60)
        replayed = replays(cluster)
    return {
        "Cluster/register": {"rate": statistics.median(rate for rate, _ in nodes)},
        "Cluster/bare_etcd": {"rate": statistics.median(rate for rate, _ in bare)},
        "Cluster/register_etcd_cpu": {"value": statistics.median(cpu for _, cpu in nodes)},
        "Cluster/bare_etcd_cpu": {"value": statistics.median(cpu for _, cpu in bare)},
        "Cluster/visible": {"p50": statistics.median(visible)},
        "Cluster/resolve": {"value": statistics.median(replicated)},
        "Cluster/resolve_embedded": {"value": statistics.median(alone)},
        "Cluster/replay": {"value": replayed},
        "Cluster/revisions_quiet": {"value": quiet},
        "Cluster/revisions_of_heartbeats": {"value": held - quiet},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    figures = measure()
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump(figures, file)
    print(json.dumps(figures, indent=1), file=sys.stderr)


if __name__ == "__main__":
    main()
