"""The directory is killed with -9 under load, again and again: what it acknowledged is all there afterwards.

The acknowledged set is kept by the process that makes the load, in a file of lines. CRASH_SEED repeats a run's
moments, CRASH_ROUNDS makes it longer or shorter.
"""

import bisect
import os
import random
import subprocess
import time

from harness import cases, programs
from harness.api import Api, pb
from harness.programs import Directory, Program, eventually
from harness.witness import Acknowledged, Watcher

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "20"))
SEED = int(os.environ.get("CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
BETWEEN_KILLS = 500  # acknowledged, at least
EACH = 8  # operations in flight, static and session: 16 together
SHARED = 4  # more, on the same few addresses


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
