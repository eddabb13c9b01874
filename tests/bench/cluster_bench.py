"""A cluster of three etcd members and three nodes on this machine against bare etcd, for tests/bench/run.

  cluster_bench.py --out FILE
"""

import argparse
import json
import statistics
import subprocess
import time

from harness.cluster import Cluster
from harness.etcd import Etcd
from harness.programs import Program, binary, eventually

SECONDS = "8"
ROUNDS = 3


def load(*args):
    return json.loads(subprocess.run([binary("cluster_load"), *args], check=True, stdout=subprocess.PIPE).stdout)


def revisions_in(etcd, seconds):
    before = etcd.revision()
    time.sleep(seconds)
    return etcd.revision() - before


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    bare, nodes, one, visible = [], [], [], []
    for _ in range(ROUNDS):
        with Etcd(3) as etcd:
            etcd.wait_healthy()
            bare.append(load("etcd", etcd.wait_leader().client, SECONDS)["rate"])
        with Cluster(direct=True) as cluster:
            addresses = [node.address for node in cluster.nodes]
            nodes.append(load("register", ",".join(addresses), SECONDS, "120")["rate"])
            one.append(load("register", addresses[0], "4", "1")["p50_us"])
            visible.append(load("visible", addresses[0], addresses[1], "5", "1000")["p50_us"])
    with Cluster(direct=True) as cluster:
        eventually(lambda: all(node.is_ready() for node in cluster.nodes))
        quiet = revisions_in(cluster.etcd, 60)
        with Program("dw", "--directory", ",".join(node.address for node in cluster.nodes), "bench", "fill", "--endpoints", "10000",
                     "--sessions", "10000", "--hold", label="fill") as fill:
            fill.wait_for_line("hold", 120, "stderr")
            held = revisions_in(cluster.etcd, 60)
    figures = {
        "Cluster/register": {"rate": statistics.median(nodes)},
        "Cluster/bare_etcd": {"rate": statistics.median(bare)},
        "Cluster/register_one": {"p50": statistics.median(one)},
        "Cluster/visible": {"p50": statistics.median(visible)},
        "Cluster/revisions_quiet": {"value": quiet},
        "Cluster/revisions_10000_sessions": {"value": held},
    }
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump(figures, file)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
