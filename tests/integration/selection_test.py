"""Whom a sender picks, seen with real processes: near ones first, and not those that refuse."""

import contextlib
import re

from harness import cases
from harness.chaos_proxy import ChaosProxy
from harness.programs import Directory, dw, eventually
from harness.workers import Flow, Worker


class Selection(cases.TestCase):
    def test_messages_stay_in_the_zone_and_leave_it_when_nobody_is_there(self):
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(Directory())
            near = [stack.enter_context(Worker(directory, "//near/work", zone="a", label=f"near{i}")) for i in range(2)]
            far = stack.enter_context(Worker(directory, "//near/work", zone="b", label="far"))
            for worker in (*near, far):
                worker.ready()
            flow = stack.enter_context(Flow(directory, "//near/work", 1500, 200, zone="a"))
            eventually(lambda: len(flow.accepted()) >= 500, 30, "the stream runs")
            before = flow.peers()
            for worker in near:
                worker.kill9()
            killed = len(flow.outcomes())
            self.assertEqual(flow.wait(60), 0, flow.tail())
            after = flow.peers(killed)
        print(f"before {dict(before)}, after {dict(after)}", flush=True)
        self.assertEqual(set(before), {worker.url for worker in near})
        self.assertGreater(min(before.values()), 0.3 * sum(before.values()))
        self.assertGreater(after[far.url], 0.9 * sum(after.values()))

    def test_an_endpoint_that_refuses_is_ejected_and_comes_back_after_its_time(self):
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(Directory())
            workers = [stack.enter_context(Worker(directory, "//eject/work", zone=zone, label=f"worker-{zone}"))
                       for zone in ("a", "b")]
            behind = stack.enter_context(Worker(directory, "//eject/behind", label="behind")).ready()
            proxy = stack.enter_context(ChaosProxy(behind.url.removeprefix("amqp://")))
            url = f"amqp://{proxy.address}///eject/behind"
            for worker in workers:
                worker.ready()
            self.assertEqual(dw("register", "--static", "//eject/work", url, directory=directory).code, 0)
            flow = stack.enter_context(Flow(directory, "//eject/work", 2400, 200, ejection_ms=4000))
            eventually(lambda: flow.peers()[url] > 50, 20, "it gets messages")
            proxy.refuse()
            proxy.reset()
            ejected = flow.wait_for_line(r"^ejected (\S+) left out for (\d+) ms: (.*)$", 20)
            self.assertEqual((ejected.group(1), ejected.group(2)), (url, "4000"))
            proxy.heal()
            out = len(flow.outcomes())
            eventually(lambda: len(flow.outcomes()) > out + 200, 20, "the stream goes on")  # a second of the four
            meanwhile = flow.peers(out)
            eventually(lambda: flow.peers(out)[url] > 50, 20, "it is back")
            self.assertEqual(flow.wait(60), 0, flow.tail())
            sums = flow.sums()
        print(f"while it is out {dict(meanwhile)}, in all {dict(flow.peers())}, {sums}", flush=True)
        self.assertEqual(meanwhile[url], 0)
        self.assertEqual(set(meanwhile), {worker.url for worker in workers})
        self.assertEqual(sums["ejections"], len(re.findall("^ejected ", flow.output(), re.MULTILINE)))
        self.assertEqual(sums["accepted"], 2400)


if __name__ == "__main__":
    cases.main()
