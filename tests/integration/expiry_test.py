"""How an endpoint leaves an address when its process dies, freezes or ends, at default settings."""

import contextlib
import time

from harness import cases
from harness.programs import Directory, eventually
from harness.sampling import Sampler
from harness.workers import Worker

EARLIEST, LATEST = 9.0, 20.0  # seconds from the death to the loss of `up`
KEPT_SECONDS = 300.0  # how long the last endpoint of an address stays suspect


class Expiry(cases.TestCase):
    def test_a_dead_endpoint_leaves_in_9_to_20_s_the_last_one_turns_suspect_sigterm_goes_at_once(self):
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(Directory())
            pairs = {name: [stack.enter_context(Worker(directory, f"//expiry/{name}", label=f"{name}{i}")) for i in range(count)]
                     for name, count in (("killed", 2), ("last", 1), ("frozen", 2), ("ended", 2))}
            for pair in pairs.values():
                for worker in pair:
                    worker.ready()
            watched = stack.enter_context(Sampler(directory, [f"//expiry/{name}" for name in pairs]))
            for name, pair in pairs.items():
                eventually(lambda n=name, p=pair: watched.last(f"//expiry/{n}") == {w.url: "up" for w in p}, 10, f"{name} up")

            moment = time.monotonic()
            pairs["killed"][0].kill9()
            pairs["last"][0].kill9()
            pairs["frozen"][0].sigstop()
            self.assertLess(time.monotonic() - moment, 1.0)
            self.ends_within_a_second(watched, pairs["ended"])
            self.leaves(watched, moment, "killed", pairs["killed"], None)
            self.leaves(watched, moment, "frozen", pairs["frozen"], None)
            self.leaves(watched, moment, "last", pairs["last"], "suspect")

            pairs["frozen"][0].sigcont()
            woken = time.monotonic()
            eventually(lambda: watched.last("//expiry/frozen") == {w.url: "up" for w in pairs["frozen"]}, 5,
                       "it registers again by itself after SIGCONT")
            self.assertLessEqual(watched.first("//expiry/frozen", pairs["frozen"][0].url, "up", woken), 2.5)
            self.assertEqual(watched.last("//expiry/last"), {pairs["last"][0].url: "suspect"})
            self.assertTrue(all(shown is not None for _, shown in watched.samples))

    def ends_within_a_second(self, watched, pair):
        moment = time.monotonic()
        pair[0].kill(15)
        eventually(lambda: pair[0].url not in watched.last("//expiry/ended"), 5, "it goes on SIGTERM")
        left = [moment_of for moment_of, shown in watched.samples
                if moment_of > moment and shown["//expiry/ended"].get(pair[0].url) == "up"]
        self.assertLess(max(left, default=moment) - moment, 1.0)
        self.assertEqual(pair[0].wait(10), 0)
        self.assertEqual(watched.last("//expiry/ended"), {pair[1].url: "up"})

    def leaves(self, watched, moment, name, pair, then):
        """pair[0] was up until EARLIEST, and is `then` (None: not listed) from LATEST at most; pair[1:] stays up."""
        address = f"//expiry/{name}"
        left = moment + LATEST + 2 - time.monotonic()
        eventually(lambda: watched.last(address).get(pair[0].url) == then, left, f"{address} without the dead one")
        after = watched.first(address, pair[0].url, then, moment)
        print(f"{name}: no longer up after {after:.1f} s", flush=True)
        self.assertTrue(EARLIEST <= after <= LATEST, f"{address}: after {after:.1f} s")
        for moment_of, shown in watched.samples:
            for other in pair[1:]:
                self.assertEqual(shown[address].get(other.url), "up", f"{moment_of - moment:.1f} s after")


class LastEndpoint(cases.TestCase):
    """Long: the real five minutes. In simulated time a unit test has them."""

    def test_the_last_endpoint_stays_suspect_for_five_minutes_then_goes(self):
        with Directory() as directory, Worker(directory, "//expiry/last") as worker:
            worker.ready()
            with Sampler(directory, ["//expiry/last"], 0.5) as watched:
                eventually(lambda: watched.last("//expiry/last") == {worker.url: "up"}, 10, "up")
                moment = time.monotonic()
                worker.kill9()
                eventually(lambda: watched.last("//expiry/last") == {}, LATEST + KEPT_SECONDS + 20, "it goes")
                suspect = watched.first("//expiry/last", worker.url, "suspect", moment)
                gone = watched.first("//expiry/last", worker.url, None, moment)
                self.assertTrue(KEPT_SECONDS - 5 <= gone - suspect <= KEPT_SECONDS + 15, f"{gone - suspect:.0f} s")


if __name__ == "__main__":
    cases.main()
