"""Many endpoints, in number and at one address: what `dw bench fill` loads, paging, restart, changes, and the memory of
clients that ask for all of it or do not read. Larger, on two cores: tests/bench/fill_bench.py."""

import collections
import json
import statistics
import threading
import time
import urllib.request

from harness import cases, programs
from harness.api import Api, pb
from harness.others import Lister, deaf_watcher, resolve_p99
from harness.programs import Directory, Program, dw, dw_json, eventually

ENDPOINTS, SESSIONS = 50_000, 500
MEMORY_ENDPOINTS = 100_000
PAGE = 1000
URL = "amqp://10.1.{}.1:{}"


def fill(directory, *args, deadline=120):
    result = dw("bench", "fill", *args, "-o", "json", directory=directory, timeout=deadline)
    if result.code != 0:
        raise AssertionError(result)
    return json.loads(result.stdout)


def pages(api, **fields):
    """All pages of one list: the items of each."""
    token = ""
    while True:
        page = api.list(page_token=token, **fields)
        yield page.items
        token = page.next_page_token
        if not token:
            return


def rss_mib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


class ManyEndpoints(cases.TestCase):
    def ready(self, directory):
        with urllib.request.urlopen(f"http://{directory.http}/readyz", timeout=5) as response:
            return response.status == 200

    def subscribed(self, api, addresses):
        """A stream that holds them, and {address: weights} of what it was told."""
        stream, told = api.subscribe(), {}
        for i in range(0, len(addresses), PAGE):
            stream.send(pb.SubscribeRequest(add=[pb.SubscribeRequest.Held(address=a) for a in addresses[i:i + PAGE]]))
        self.until(stream, told, lambda: len(told) == len(addresses))
        return stream, told

    def until(self, stream, told, enough):
        end = time.monotonic() + 60
        while not enough():
            self.assertLess(time.monotonic(), end, "not told of everything")
            for answer in stream.receive(30).answers:
                told[answer.address] = [endpoint.weight for endpoint in answer.row.endpoints]

    def test_lists_and_trees_are_whole_a_restart_answers_and_each_change_is_seen(self):
        with Directory() as directory:
            done = fill(directory, "--endpoints", ENDPOINTS, "--sessions", SESSIONS, "--keep", "1h")
            self.assertEqual((done["endpoints"], done["sessions"], done["refused"]), (ENDPOINTS, SESSIONS, 0))
            with Api(directory) as api:
                listed = [item.address for items in pages(api) for item in items]
                self.assertEqual((len(listed), len(set(listed))), (ENDPOINTS, ENDPOINTS))
                self.assertEqual(sum(1 for items in pages(api, prefix="//bench/000007") for _ in items), 1000)
                tree = dw("tree", "//bench", directory=directory).stdout.splitlines()
                self.assertEqual(len([line for line in tree if line.strip()]), 1 + 50 + ENDPOINTS)
            directory.kill9()
            begun = time.monotonic()
            directory.start_again()
            with Api(directory) as api:
                answer = api.resolve(listed[ENDPOINTS // 2]).answers[0]
                self.assertEqual((answer.row.status, answer.row.total), (pb.ANSWER_STATUS_FOUND, 1))
                eventually(lambda: self.ready(directory), 30, "the server is current")
                self.assertLess(time.monotonic() - begun, 10)
                status = api.status()
                self.assertEqual((status.registrations, status.sessions), (ENDPOINTS, SESSIONS))
                # A tenth of the processes comes again with another weight: new sessions, the same addresses and URLs.
                some = sorted(listed)[:ENDPOINTS // 10]
                stream, told = self.subscribed(api, some)
                self.assertEqual(told, {address: [100] for address in some})
                fill(directory, "--endpoints", len(some), "--sessions", SESSIONS // 10, "--weight", "50", "--keep", "1h")
                self.until(stream, told, lambda: told == {address: [50] for address in some})
                self.assertEqual(api.status().registrations, ENDPOINTS)

    def test_what_a_fill_made_ends_with_it_and_interrupted_it_says_how_far_it_came(self):
        with Directory() as directory:
            with Api(directory) as api:
                fill(directory, "--endpoints", 2000, "--sessions", 40, "--addresses", 100)
                self.assertEqual((api.status().registrations, api.status().sessions), (0, 0))
                for args in (["--endpoints", "1000000", "--sessions", "2000"],
                             ["--endpoints", "2000", "--sessions", "200", "--hold", "--ttl", "3s"]):
                    with Program("dw", "--directory", directory.address, "bench", "fill", *args, "-o", "jsonl") as filling:
                        eventually(lambda: api.status().registrations >= 2000, 30, "2,000 are registered")
                        filling.kill(programs.signal.SIGINT)
                        self.assertEqual(filling.wait(60), 130)
                        self.assertGreaterEqual(json.loads(filling.output())["endpoints"], 2000)
                        self.assertEqual(filling.output("stderr"), "")
                    self.assertEqual((api.status().registrations, api.status().sessions), (0, 0))

    def test_a_fill_that_is_refused_says_why_in_one_line(self):
        self.one_line(dw("bench", "fill", directory="127.0.0.1:1"), 4, "127.0.0.1:1", "cannot be reached")
        for args, parts in ((["--sessions", "9"], ["1000000 endpoints in 9 sessions", "1000 at most"]),
                            (["--endpoints", "5"], ["10000 sessions for 5 endpoints"]),
                            (["--addresses", "1000001"], ["--addresses 1000001"]),
                            (["--hold", "--connections", "8"], ["--connections must be 100"]),
                            (["--hold", "--keep", "1h"], ["without --keep"]),
                            (["--keep", "1s"], ["--keep `1s`", "3s to 1h"]),
                            (["--prefix", "bench"], ["`bench`"])):
            self.one_line(dw("bench", "fill", *args, directory="127.0.0.1:1"), 1, *parts)
        self.one_line(dw("bench", "empty", directory="127.0.0.1:1"), 1, "`empty`", "fill")


class OneAddress(cases.TestCase):
    ADDRESS = "//crowd/one"

    def register(self, tether, op, numbers):
        """One call; seconds until its acknowledgement."""
        request = pb.TetherRequest(register=pb.TetherRequest.Register(op_id=op, registrations=[
            pb.TetherRequest.Registration(address=self.ADDRESS, endpoint=pb.EndpointSpec(
                url=URL.format(number // 1000, 20_000 + number % 1000))) for number in numbers]))
        begun = time.monotonic()
        tether.send(request)
        self.assertFalse(tether.receive(20).done.HasField("refusal"))
        return time.monotonic() - begun

    def group(self, endpoint):
        return int(endpoint.url.split(".")[2])

    def test_ten_thousand_endpoints_cost_the_same_are_shown_fairly_and_can_go(self):
        one_by_one = range(500, 1000), range(9500, 10_000)
        took = []
        with Directory() as directory, Api(directory) as api:
            tethers = [api.tether(ttl_ms=600_000) for _ in range(10)]
            for tether in tethers:
                self.assertTrue(tether.receive().HasField("welcome"))
            for number in range(0, 10_000, 50):
                tether, numbers = tethers[number // 1000], range(number, number + 50)
                if any(number in alone for alone in one_by_one):
                    took += [self.register(tether, 1 + each, [each]) for each in numbers]
                else:
                    self.register(tether, 1 + number, numbers)
            early, late = statistics.median(took[:500]), statistics.median(took[500:])
            print(f"one more at an address that has 500 to 1,000: {early * 1e3:.2f} ms, 9,500 to 10,000: {late * 1e3:.2f} ms")
            self.assertLess(late, 3 * early)

            row = api.resolve(self.ADDRESS).answers[0].row
            self.assertEqual(row.total, 10_000)
            self.assertLessEqual(row.ByteSize(), 48 * 1024)
            self.assertLessEqual(len(row.endpoints), 256)
            self.assertGreater(len(row.endpoints), 128)
            shown = collections.Counter(self.group(endpoint) for endpoint in row.endpoints)
            self.assertEqual(set(shown), set(range(10)), shown)

            for group, tether in enumerate(tethers):
                for first in range(2, 1000, 50):
                    tether.send(pb.TetherRequest(withdraw=pb.TetherRequest.Withdraw(op_id=100_000 + first, withdrawals=[
                        pb.TetherRequest.Withdrawal(address=self.ADDRESS, url=URL.format(group, 20_000 + number))
                        for number in range(first, min(first + 50, 1000))])))
                    self.assertFalse(tether.receive(20).done.HasField("refusal"))
            row = api.resolve(self.ADDRESS).answers[0].row
            self.assertEqual((row.total, sorted(endpoint.url for endpoint in row.endpoints)),
                             (20, sorted(URL.format(g, 20_000 + n) for g in range(10) for n in range(2))))


class Memory(cases.TestCase):
    ROUNDS, SLICE = 5, 0.004

    def test_lists_of_everything_and_a_watcher_that_never_reads_cost_neither_memory_nor_others(self):
        with Directory() as directory, Api(directory) as api:
            fill(directory, "--endpoints", MEMORY_ENDPOINTS, "--sessions", 1000, "--keep", "1h")
            addresses = [f"//bench/{n // 1000:06}/{n % 1000:03}" for n in range(0, MEMORY_ENDPOINTS, 100)]
            for _ in pages(api):
                pass
            resolve_p99(api, addresses)
            before = rss_mib(directory.pid)
            self.addCleanup(deaf_watcher(api).cancel)
            eventually(lambda: api.status().watchers == 1, 10, "the watcher is there")
            quiet, busy = [], []
            for _ in range(self.ROUNDS):
                quiet.append(resolve_p99(api, addresses))
                with Lister(directory) as lists:
                    busy.append(resolve_p99(api, addresses))
                    lists.wait_for_line("listed", 60)
                    self.assertEqual(lists.output("stderr"), "")
                fill(directory, "--endpoints", 2000, "--sessions", 20, "--weight", 1 + len(quiet), "--keep", "1h")  # what the watcher would be told
            after = rss_mib(directory.pid)
            quiet, busy = statistics.median(quiet), statistics.median(busy)
            print(f"RSS {before:.0f} MiB, after {after:.0f} MiB; resolve p99 {quiet * 1e3:.2f} ms, "
                  f"with lists {busy * 1e3:.2f} ms")
            self.assertLess(after, before + 64)
            # All share the processors: one in a hundred may wait for a slice of the scheduler.
            self.assertLess(busy, 2 * quiet + self.SLICE)


if __name__ == "__main__":
    cases.main()
