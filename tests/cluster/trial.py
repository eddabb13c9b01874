"""A cluster under load, and all that its clients are told, for the comparison at the end."""

import contextlib
import os
import subprocess
import threading
import time

from harness import programs
from harness.api import Api, pb
from harness.cluster import Cluster
from harness.programs import Program, eventually
from harness.witness import Acknowledged, Watcher

TTL_MS = 3000
EACH, SHARED, PAUSE_MS = 4, 3, 40  # threads of the load: static, as many with sessions, on shared addresses
QUIET = 200  # acknowledged after a fault, before the next one


class Pulse(threading.Thread):
    """How many operations were acknowledged, looked at all the time: how long nobody was answered."""

    def __init__(self, acknowledged):
        super().__init__(daemon=True)
        self.acknowledged, self._end, self._lock = acknowledged, threading.Event(), threading.Lock()
        self._last, self._gap = time.monotonic(), 0.0

    def run(self):
        count = 0
        while not self._end.wait(0.02):
            now = self.acknowledged.read().count
            with self._lock:
                moment = time.monotonic()
                if now != count:
                    count, self._last = now, moment
                self._gap = max(self._gap, moment - self._last)

    def longest(self):
        """Seconds without any acknowledgement, the longest such span since the last call."""
        with self._lock:
            gap, self._gap = self._gap, 0.0
        return gap

    def stop(self):
        self._end.set()
        self.join(10)


class Trial:
    """Use it in a `with` block; Check() at the end compares."""

    def __init__(self, test, seed):
        self.test, self.seed = test, seed
        self.history = os.path.join(programs.scratch("history"), "history")
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        try:
            self.cluster = self._stack.enter_context(Cluster())
            self.etcd, self.nodes, self.proxies = self.cluster.etcd, self.cluster.nodes, self.cluster.proxies
            addresses = [node.address for node in self.nodes]
            self.watchers = []
            for number in range(3):
                watcher = Watcher(*addresses[number:], *addresses[:number], silence=4.0)
                self.watchers.append(watcher.begin())
                self._stack.callback(watcher.end)
            self.load = self._stack.enter_context(Program(
                "datawire-test-load", "--directory", self.cluster.addresses, "--each", EACH, "--seed", self.seed, "--shared",
                SHARED, "--history", self.history, "--pause-ms", PAUSE_MS, "--ttl-ms", TTL_MS))
            self.acknowledged = Acknowledged(self.load.path())
            self.pulse = Pulse(self.acknowledged)
            self.pulse.start()
            self._stack.callback(self.pulse.stop)
            self.settle()
            return self
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, None)
            raise

    def __exit__(self, failure, *rest):
        return self._stack.__exit__(failure, *rest)

    # ---- while it runs

    def settle(self, deadline=60.0):
        """All members and nodes are well, and the load goes on, those with sessions too."""
        self.cluster.heal()
        self.etcd.wait_healthy(deadline)
        self.cluster.wait_ready(deadline)
        self.progress(QUIET, deadline)
        self.look()

    def progress(self, more, deadline=60.0):
        count, sessions = self.acknowledged.count + more, self.acknowledged.sessions + more // 10
        eventually(lambda: self.acknowledged.count >= count and self.acknowledged.sessions >= sessions, deadline,
                   f"{more} more are acknowledged, through tethers too")

    def look(self):
        """What must hold at every moment."""
        self.test.assertTrue(self.load.running(), self.load.tail())
        self.test.assertEqual(self.acknowledged.errors, [])
        for watcher in self.watchers:
            self.test.assertEqual(watcher.wrong, [])
        for node in self.nodes:
            self.test.assertEqual(node.metric("datawire_sessions_expired_total"), 0, f"{node.label}: nobody is to expire")

    # ---- at the end

    def finish(self):
        """Ends the load and compares what it and the watchers were told with what each node holds."""
        test, acknowledged = self.test, self.acknowledged
        self.load.kill(15)
        eventually(lambda: acknowledged.done, 60, "the load comes to an end")
        self.look()
        last = max(acknowledged.events.values())
        held = [self.listed(node) for node in self.nodes]
        for node, listed in zip(self.nodes, held):
            lost = {address: url for address, (_, url) in acknowledged.present.items() if url not in listed.get(address, [])}
            test.assertEqual(lost, {}, f"{node.label}: {len(lost)} of {len(acknowledged.present)} acknowledged registrations lost")
            load = {address for address in listed if address.startswith("//load/")}
            test.assertEqual(load - set(acknowledged.present), set(), f"{node.label}: more than was acknowledged")
        test.assertEqual(held[0], held[1], "two nodes, two answers")
        test.assertEqual(held[0], held[2], "two nodes, two answers")
        with Api(self.nodes[0]) as api:
            compared = api.compare()
        test.assertEqual((len(compared.replicas), len({replica.hash for replica in compared.replicas})), (3, 1), compared)
        for watcher in self.watchers:
            eventually(lambda watcher=watcher: watcher.at >= last, 60, f"a watcher reaches {last}")
            self.check_watcher(watcher)
        # One after the other watched the same: what all of them saw is equal.
        begun = max(watcher.begun_at for watcher in self.watchers)
        end = min(watcher.at for watcher in self.watchers)
        seen = [sorted(event for event in watcher.events if begun < event[2] <= end) for watcher in self.watchers]
        test.assertEqual(seen[0], seen[1])
        test.assertEqual(seen[0], seen[2])
        self.check_history(self.watchers[0])
        for watcher in self.watchers:
            watcher.end()

    def listed(self, node):
        """{address: [url]} of a node, its pages of one revision."""
        found, token, revisions = {}, "", set()
        with Api(node) as api:
            while True:
                page = api.list(prefix="", page_token=token)
                revisions.add(page.revision.number)
                for item in page.items:
                    urls = sorted(endpoint.url for endpoint in item.row.endpoints
                                  if endpoint.state == pb.ENDPOINT_STATE_UP)
                    if urls:
                        found[item.address] = urls
                token = page.next_page_token
                if not token:
                    self.test.assertEqual(len(revisions), 1)
                    return found

    def check_watcher(self, watcher):
        test, seen = self.test, {}
        test.assertEqual(watcher.wrong, [])
        for what, address, at in watcher.events:
            if not address.startswith("//load/"):
                continue
            test.assertNotIn((address, what), seen, "seen twice")
            seen[address, what] = at
        wrong = {key: (at, seen.get(key)) for key, at in self.acknowledged.events.items() if seen.get(key) != at}
        test.assertEqual(wrong, {}, "(acknowledged at, watched at)")
        test.assertEqual(len(set(watcher.revisions)), len(watcher.revisions))

    def check_history(self, watcher):
        """What all clients and a watcher saw could have been: tests/harness/history_checker.h."""
        begun, end = (f"{epoch}:{number}" for epoch, number in (watcher.begun_at, watcher.at))
        ours = [line for line in watcher.told if line.split(" ")[2].startswith(("//load/", "//shared/"))]
        with open(self.history, "a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in ours) + f"watched {begun} {end}\n")
        checked = subprocess.run([programs.binary("datawire-test-history"), self.history], capture_output=True, text=True,
                                 timeout=300, check=False)
        print(checked.stdout, flush=True)
        self.test.assertEqual(checked.returncode, 0, checked.stdout)
