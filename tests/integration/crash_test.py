"""The directory is killed with -9 under load, again and again: what it acknowledged is all there afterwards.

The acknowledged set is kept by the process that makes the load, in a file of lines. CRASH_SEED repeats a run's
moments, CRASH_ROUNDS makes it longer or shorter.
"""

import bisect
import os
import random
import subprocess
import threading
import time

from harness import cases, programs
from harness.api import Api, Failed, pb
from harness.programs import Directory, Program, eventually

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "20"))
SEED = int(os.environ.get("CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
BETWEEN_KILLS = 500  # acknowledged, at least
EACH = 8  # operations in flight, static and session: 16 together
SHARED = 4  # more, on the same few addresses


def revision(text):
    epoch, number = text.split(":")
    return int(epoch), int(number)


class Acknowledged:
    """What the load says, read as it comes."""

    def __init__(self, path):
        self.present, self.gone = {}, set()  # acknowledged: address -> (kind, url), withdrawn addresses
        self.events = {}  # (address, "+" or "-") -> revision
        self.count, self.sessions, self.done, self.errors = 0, 0, False, []
        self._path, self._position = path, 0

    def read(self):
        with open(self._path, "rb") as file:
            file.seek(self._position)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return self
        self._position += len(whole) + 1
        for line in whole.decode().split("\n"):
            self._take(line.split(" "))
        return self

    def _take(self, words):
        what = words[0]
        if what == "+":
            _, kind, at, address, url = words
            self.present[address] = (kind, url)
            self.events[address, "+"] = revision(at)
        elif what == "?":
            del self.present[words[2]]
        elif what == "-":
            _, kind, at, address = words
            self.gone.add(address)
            self.events[address, "-"] = revision(at)
        elif what == "=":
            self.done = True
        else:
            self.errors.append(" ".join(words))
        if what in "+-":
            self.count += 1
            self.sessions += kind == "session"


class Watcher(threading.Thread):
    """A watcher of everything that resumes where it was when its stream is lost. No snapshot after the first."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.events, self.revisions, self.wrong, self.losses = [], [], [], 0
        self.told = []  # the same as lines of a history
        self.begun_at = self.at = (0, 0)
        self._address, self._stopping, self._api = address, False, None
        self._begun = threading.Event()

    def begin(self):
        self.start()
        assert self._begun.wait(10), "the watcher got no snapshot"
        return self

    def end(self):
        self._stopping = True
        self._api.channel.close()
        self.join(10)

    def run(self):
        part, told = [], []
        while not self._stopping:
            after = {"after": pb.Revision(epoch=self.at[0], number=self.at[1])} if self.at[1] else {}
            with Api(self._address) as self._api:
                part.clear()  # what came of a revision that was cut comes again
                told.clear()
                try:
                    stream = self._api.watch(**after)
                    while not self._stopping:
                        self._take(stream.receive(60), part, told)
                except (Failed, ValueError, AttributeError):
                    self.losses += 1
                    time.sleep(0.05)

    def _take(self, message, part, told):
        at, kind = (message.revision.epoch, message.revision.number), message.kind
        if kind == pb.WatchResponse.KIND_SNAPSHOT_END:
            self.begun_at = self.at = at
            self._begun.set()
        elif kind in (pb.WatchResponse.KIND_CHANGES, pb.WatchResponse.KIND_CHANGES_PART):
            part.extend(("-" if event.kind == pb.Event.KIND_GONE else "+", event.address, at)
                        for event in message.events)
            told.extend(f"event {at[0]}:{at[1]} {event.address} "
                        + ("-" if event.kind == pb.Event.KIND_GONE else event.endpoint.labels["value"])
                        for event in message.events)
            if kind == pb.WatchResponse.KIND_CHANGES:
                if at <= self.at:
                    self.wrong.append(f"revision {at} after {self.at}")
                self.events += part
                self.told += told
                self.revisions.append(at)
                part.clear()
                told.clear()
                self.at = at
        elif kind == pb.WatchResponse.KIND_PROGRESS:
            if at < self.at:
                self.wrong.append(f"progress to {at} after {self.at}")
            self.at = max(self.at, at)
        elif kind == pb.WatchResponse.KIND_RESYNC:
            self.wrong.append(f"RESYNC after {self.at}")
        elif self._begun.is_set():
            self.wrong.append(f"a snapshot after {self.at}")


class CrashTest(cases.TestCase):
    def listed(self, api, prefix):
        """{address: [url]} of all pages; they are of one revision."""
        found, token, revisions = {}, "", set()
        while True:
            page = api.list(prefix=prefix, page_token=token)
            revisions.add(page.revision.number)
            for item in page.items:
                found[item.address] = [endpoint.url for endpoint in item.row.endpoints
                                       if endpoint.state == pb.ENDPOINT_STATE_UP]
            token = page.next_page_token
            if not token:
                self.assertEqual(len(revisions), 1)
                return found

    def check(self, api, known, gone, resolve_most=None):
        """All of `known` is listed and resolves, nothing of `gone` does."""
        listed = self.listed(api, "//load")
        lost = {address: listed.get(address) for address, (_, url) in known.items() if url not in listed.get(address, [])}
        self.assertEqual(lost, {}, f"{len(lost)} of {len(known)} acknowledged registrations are not listed (seed {SEED})")
        back = [address for address in gone if listed.get(address)]
        self.assertEqual(back, [], f"withdrawn, acknowledged, and listed (seed {SEED})")
        wanted = sorted(known) if resolve_most is None else random.sample(sorted(known), min(resolve_most, len(known)))
        for first in range(0, len(wanted), 1000):
            some = wanted[first:first + 1000]
            for address, answer in zip(some, api.resolve(*some, timeout=60).answers):
                self.assertEqual(answer.row.status, pb.ANSWER_STATUS_FOUND, f"{address} (seed {SEED})")
                self.assertIn(known[address][1], [endpoint.url for endpoint in answer.row.endpoints
                                                  if endpoint.state == pb.ENDPOINT_STATE_UP])

    def kill_and_check(self, directory, load, acknowledged, chance):
        """One round: enough acknowledged, a random moment, kill -9, restart, look."""
        target, sessions = acknowledged.read().count + BETWEEN_KILLS, acknowledged.sessions + BETWEEN_KILLS // 10
        eventually(lambda: acknowledged.read().count >= target and acknowledged.sessions >= sessions, 60,
                   f"{BETWEEN_KILLS} acknowledged, tethers among them, after a restart")
        time.sleep(chance.uniform(0, 0.3))
        directory.kill9()
        acknowledged.read()
        known, gone = dict(acknowledged.present), set(acknowledged.gone)
        directory.start_again()
        self.assertTrue(load.running(), load.tail())
        with Api(directory) as api:
            self.check(api, {a: v for a, v in known.items() if a in acknowledged.read().present}, gone, 1000)

    def check_watcher(self, watcher, acknowledged, last):
        eventually(lambda: watcher.at >= last, 60, f"the watcher reaches {last}")
        self.assertEqual(watcher.wrong, [])
        self.assertGreaterEqual(watcher.losses, ROUNDS)
        seen = {}
        for what, address, at in watcher.events:
            if address.startswith("//shared/"):
                continue
            self.assertNotIn((address, what), seen, "seen twice")
            seen[address, what] = at
        for key, at in acknowledged.events.items():
            self.assertEqual(seen.get(key), at, f"{key} was acknowledged at {at}")
        self.assertEqual(len(set(watcher.revisions)), len(watcher.revisions))
        for at in acknowledged.events.values():
            place = bisect.bisect_left(watcher.revisions, at)
            self.assertEqual(watcher.revisions[place], at)

    def check_history(self, path, watcher):
        """What all clients and the watcher saw could have been: tests/harness/history_checker.h."""
        begun, end = (f"{epoch}:{number}" for epoch, number in (watcher.begun_at, watcher.at))
        with open(path, "a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in watcher.told) + f"watched {begun} {end}\n")
        checked = subprocess.run([programs.binary("datawire-test-history"), path], capture_output=True, text=True,
                                 timeout=300, check=False)
        print(checked.stdout, flush=True)
        self.assertEqual(checked.returncode, 0, checked.stdout)

    def test_what_was_acknowledged_survives_kill_9_under_load_and_watchers_resume(self):
        print(f"CRASH_SEED={SEED}", flush=True)
        chance = random.Random(SEED)
        with Directory() as directory:
            self.assertNotIn(programs.filesystem(directory.data), ("tmpfs", "ramfs"), "durability is tested on a disc")
            watcher = Watcher(directory.address).begin()
            history = os.path.join(self.scratch("history"), "history")
            with Program("datawire-test-load", "--directory", directory.address, "--each", EACH, "--seed", SEED,
                         "--shared", SHARED, "--history", history) as load:
                acknowledged = Acknowledged(load.path())
                for _ in range(ROUNDS):
                    self.kill_and_check(directory, load, acknowledged, chance)
                load.kill(15)
                eventually(lambda: acknowledged.read().done, 60, "the load comes to an end")
                self.assertEqual(acknowledged.errors, [])
                with Api(directory) as api:
                    self.check(api, acknowledged.present, acknowledged.gone)
                    self.assertEqual(set(self.listed(api, "//load")) - set(acknowledged.present), set())
                self.check_watcher(watcher, acknowledged, max(acknowledged.events.values()))
                print(f"{ROUNDS} kills, {acknowledged.count} acknowledged, {acknowledged.sessions} of them through tethers, "
                      f"{len(watcher.revisions)} revisions watched", flush=True)
            watcher.end()
            self.check_history(history, watcher)


if __name__ == "__main__":
    cases.main()
