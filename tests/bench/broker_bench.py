#!/usr/bin/python3
"""The same messages over a direct link and through RabbitMQ's AMQP 1.0, on one machine: `dw bench link`."""

import argparse
import json
import subprocess

from harness import programs
from harness.broker import Broker


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the figures, as JSON")
    out = parser.parse_args().out
    with Broker() as broker:
        ran = subprocess.run([programs.binary("dw"), "bench", "link", "-o", "json", "--broker", broker.queue("bench")], check=True,
                             capture_output=True, text=True, timeout=300)
    figures = {f"Path/{one['path']}": {"rate": one["messages_per_second"], "p50": one["p50_us"]} for one in json.loads(ran.stdout)}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
