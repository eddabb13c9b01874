"""The directory is away for four times the sessions' TTL, dead or frozen: nobody expires for it."""

import contextlib
import time
import urllib.request

from harness import cases
from harness.programs import Directory, eventually
from harness.sampling import Sampler
from harness.workers import Worker

SERVICES = 3


def metric(directory, name):
    with urllib.request.urlopen(f"http://{directory.http}/metrics", timeout=5) as response:
        for line in response.read().decode().splitlines():
            if line.split(" ")[0] == name:
                return float(line.split(" ")[1])
    raise AssertionError(f"no metric {name}")


class Case(cases.TestCase):
    def outage(self, ttl_ms, away, look):
        """Two directories go away for `away` s, one by kill -9, one by SIGSTOP; each look for `look` s after."""
        with contextlib.ExitStack() as stack:
            killed, frozen = (stack.enter_context(Directory(label=label)) for label in ("killed", "frozen"))
            workers = {directory: [stack.enter_context(Worker(directory, f"//outage/s{i}", ttl_ms=ttl_ms, label=f"s{i}"))
                                   for i in range(SERVICES)] for directory in (killed, frozen)}
            for some in workers.values():
                for worker in some:
                    worker.ready()
            frozen.sigstop()
            killed.kill9()
            time.sleep(away)
            frozen.sigcont()
            killed.start_again()
            self.all_up_in_every_look(workers, look)
            # Up because their sessions are held again, not only for the grace of the return.
            eventually(lambda: metric(killed, "datawire_sessions_resumed_total") == SERVICES, 20, "all resumed")
            for directory in workers:
                self.assertEqual(metric(directory, "datawire_sessions_expired_total"), 0)
                self.assertEqual(metric(directory, "datawire_sessions"), SERVICES)
                self.assertEqual(metric(directory, "datawire_brake_on"), 0)

    def all_up_in_every_look(self, workers, look):
        addresses = [f"//outage/s{i}" for i in range(SERVICES)]
        with contextlib.ExitStack() as stack:
            looks = {directory: stack.enter_context(Sampler(directory, addresses)) for directory in workers}
            time.sleep(look)
        for directory, watched in looks.items():
            expected = {f"//outage/s{i}": {worker.url: "up"} for i, worker in enumerate(workers[directory])}
            self.assertGreater(len(watched.samples), look * 2)
            for moment, shown in watched.samples:
                self.assertEqual(shown, expected, f"{directory.label}, {moment - watched.begun:.1f} s after the return")


class Short(Case):
    def test_nobody_expires_in_an_outage_of_more_than_three_ttls_of_3_s(self):
        self.outage(3000, 10, 8)


class Outage(Case):
    def test_nobody_expires_in_an_outage_of_60_s_at_ttl_15_s(self):
        self.outage(15000, 60, 12)


class Long(Case):
    def test_nobody_expires_after_the_grace_of_the_return_either(self):
        self.outage(15000, 60, 90)


if __name__ == "__main__":
    cases.main()
