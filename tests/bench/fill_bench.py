#!/usr/bin/python3
"""A million endpoints (P17): fills a directory by `dw bench fill` and measures it. For tests/bench/run, or by hand:

  DATAWIRE_BIN=build/release/bin PYTHONPATH=tests tests/bench/fill_bench.py [--endpoints N] [--out FILE]

Prints {figure: {"value": number}} as JSON. The server runs on core 0, the rest on core 1. At 1 M: some 3 min, 1 GB of disc.
"""

import argparse
import json
import os
import statistics
import sys
import time
import urllib.error
import urllib.request

from harness import programs
from harness.api import Api, Failed, pb
from harness.others import Lister, deaf_watcher, resolve_p99

SECOND_TICKS = os.sysconf("SC_CLK_TCK")
ADDS = 1000


class Pinned(programs.Directory):
    """On core 0, if there are two."""

    def command(self):
        return (["taskset", "-c", "0"] if os.cpu_count() > 1 else []) + super().command()


class Restored(Pinned):
    def __init__(self, snapshot):
        super().__init__()
        self.snapshot = snapshot

    def command(self):
        return [word for word in super().command() if word != "--init"] + ["--restore", self.snapshot]


def say(text):
    print(f"fill_bench: {text}", file=sys.stderr, flush=True)


def dw(directory, *args, timeout=900):
    result = programs.dw(*args, directory=directory, timeout=timeout)
    if result.code != 0:
        sys.exit(f"fill_bench: dw {' '.join(args)}: {result.code} {result.stderr}")
    return result.stdout


def fill(directory, *args):
    return json.loads(dw(directory, "bench", "fill", *args, "--keep", "1h", "-o", "json"))


def rss(directory):
    with open(f"/proc/{directory.pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


def cpu_seconds(program):
    with open(f"/proc/{program.pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / SECOND_TICKS


def address_of(number):
    return f"//bench/{number // 1000:06}/{number % 1000:03}"


def ready(directory):
    try:
        with urllib.request.urlopen(f"http://{directory.http}/readyz", timeout=5) as response:
            return response.status == 200
    except urllib.error.HTTPError:
        return False


def start(directory, endpoints, begin):
    """Seconds until the first answer, and until /readyz says that it is current."""
    begun = time.monotonic()
    begin()
    with Api(directory) as api:
        def answers():
            try:
                return api.resolve(address_of(endpoints // 2)).answers[0].row.total == 1
            except Failed:
                return False
        programs.eventually(answers, 300, "the first answer")
        answered = time.monotonic() - begun
        programs.eventually(lambda: ready(directory), 300, "it is current")
        current = time.monotonic() - begun
        if api.status().registrations != endpoints:
            sys.exit(f"fill_bench: {api.status().registrations} registrations after a start, not {endpoints}")
    return answered, current


def list_all(directory, endpoints):
    """Milliseconds of each page."""
    took, token, count = [], "", 0
    with Api(directory) as api:
        while True:
            request = pb.ListRequest(page_token=token).SerializeToString()
            begun = time.monotonic()
            answer = api.raw("/datawire.directory.v1.Directory/List", request)
            took.append((time.monotonic() - begun) * 1e3)
            page = pb.ListResponse.FromString(answer)
            count += len(page.items)
            token = page.next_page_token
            if not token:
                break
    if count != endpoints:
        sys.exit(f"fill_bench: listed {count} of {endpoints}")
    return took


def change(directory, endpoints):
    """A tenth of all sessions comes back with another weight, one stream holds their addresses: seconds that it took,
    seconds from the last acknowledgement until the last change was seen, messages, answers."""
    wanted = endpoints // 10
    with Api(directory) as api:
        stream = api.subscribe()
        for first in range(0, wanted, ADDS):
            stream.send(pb.SubscribeRequest(add=[pb.SubscribeRequest.Held(address=address_of(n))
                                                 for n in range(first, min(first + ADDS, wanted))]))
        known = 0
        while known < wanted:
            known += len(stream.receive(60).answers)
        begun = time.monotonic()
        with programs.Program("dw", "--directory", directory.address, "bench", "fill", "--endpoints", wanted, "--sessions",
                              max(1, wanted // 100), "--weight", 50, "--keep", "1h", "-o", "json") as filling:
            seen, messages, answers = set(), 0, 0
            while len(seen) < wanted:
                message = stream.receive(60)
                messages += 1 if message.answers else 0
                answers += len(message.answers)
                seen.update(a.address for a in message.answers if all(e.weight == 50 for e in a.row.endpoints))
            all_seen = time.monotonic() - begun
            if filling.wait(300) != 0:
                sys.exit(f"fill_bench: {filling.tail()}")
            took = json.loads(filling.output())["seconds"]
    return took, max(0.0, all_seen - took), messages, answers


def beside_lists(directory, endpoints, rounds=5, resolves=2000):
    """99th percentiles in ms of one who resolves, without and with somebody who lists all again and again , interleaved, median of
    the rounds; MiB that the server's memory grew by, over a watcher that never reads, too."""
    quiet, busy = [], []
    addresses = [address_of(i * 97 % endpoints) for i in range(resolves)]
    with Api(directory) as api:
        resolve_p99(api, addresses)
        before = rss(directory)
        deaf = deaf_watcher(api)
        for _ in range(rounds):
            quiet.append(resolve_p99(api, addresses) * 1e3)
            with Lister(directory) as lists:
                busy.append(resolve_p99(api, addresses) * 1e3)
                lists.wait_for_line("listed", 300)
        deaf.cancel()
        return statistics.median(quiet), statistics.median(busy), rss(directory) - before


def heartbeats(sessions, seconds=20):
    """Share of one core that the heartbeats of so many sessions cost the server, at the default TTL."""
    with Pinned() as directory, programs.Program(
            "dw", "--directory", directory.address, "bench", "fill", "--endpoints", sessions, "--sessions", sessions,
            "--hold", "-o", "jsonl") as holding:
        holding.wait_for_line("endpoints", 120)
        time.sleep(5)
        before, begun = cpu_seconds(directory), time.monotonic()
        time.sleep(seconds)
        share = (cpu_seconds(directory) - before) / (time.monotonic() - begun)
        memory = rss(directory)
        holding.kill(programs.signal.SIGINT)
        if holding.wait(120) != 130:
            sys.exit(f"fill_bench: {holding.tail()}")
    return share, memory


def measure(endpoints):
    figures = {}

    def keep(name, value):
        figures[f"Million/{name}"] = {"value": value}
        say(f"{name} {value:.3f}")

    sessions = max(1, endpoints // 100)
    with Pinned() as directory:
        keep("fill_seconds", fill(directory, "--endpoints", str(endpoints), "--sessions", str(sessions))["seconds"])
        keep("fill_rss_mib", rss(directory))
        pages = list_all(directory, endpoints)
        some = max(1, len(pages) // 10)
        keep("list_seconds", sum(pages) / 1e3)
        keep("list_page_p50_ms", statistics.median(pages))
        keep("list_page_p99_ms", sorted(pages)[len(pages) * 99 // 100])
        keep("list_last_pages_to_first", statistics.median(pages[-some:]) / statistics.median(pages[:some]))
        begun = time.monotonic()
        dw(directory, "tree", address_of(endpoints // 2).rsplit("/", 1)[0])
        keep("tree_branch_ms", (time.monotonic() - begun) * 1e3)
        took, lag, messages, answers = change(directory, endpoints)
        keep("change_seconds", took)
        keep("change_last_seen_after_seconds", lag)
        keep("change_messages", messages)
        keep("change_answers_to_changes", answers / (endpoints // 10))
        keep("used_rss_mib", rss(directory))
        quiet, busy, grown = beside_lists(directory, endpoints)
        keep("resolve_p99_ms", quiet)
        keep("resolve_p99_beside_lists_ms", busy)
        keep("rss_after_lists_and_a_deaf_watcher_mib", grown)
        directory.kill9()
        answered, current = start(directory, endpoints, directory.start_again)
        keep("restart_first_answer_seconds", answered)
        keep("restart_current_seconds", current)
        keep("restart_rss_mib", rss(directory))
        snapshot = os.path.join(programs.scratch("snapshot"), "s")
        dw(directory, "snapshot", "save", snapshot)
    restored = Restored(snapshot)
    try:
        _, current = start(restored, endpoints, lambda: restored.start().ready(300))
        keep("restore_seconds", current)
        restored.stop(30)
    finally:
        restored.end()
    share, memory = heartbeats(10_000)
    keep("heartbeats_share_of_a_core", share)
    keep("held_sessions_rss_mib", memory)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=1_000_000)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    if os.cpu_count() > 1:
        os.sched_setaffinity(0, {1})
    text = json.dumps(measure(arguments.endpoints), indent=1)
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
