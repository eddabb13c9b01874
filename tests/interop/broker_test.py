"""A bridge to and from a broker that we did not write, and dw at its queues."""

import contextlib

from harness import cases
from harness.broker import Broker
from harness.programs import Directory, dw, eventually
from harness.workers import Flow, Intermediary, Worker


class Bridges(cases.TestCase):
    def setUp(self):
        super().setUp()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.directory = self.stack.enter_context(Directory())
        self.broker = self.stack.enter_context(Broker())

    def bridge(self, *args, label):
        return self.stack.enter_context(Intermediary(self.directory, "forward", *args, label=label)).ready()

    def test_messages_go_through_the_broker_and_back_though_the_bridges_are_killed(self):
        there = self.bridge("--serve", "//d/in", self.broker.queue("jobs"), label="there")
        back = self.bridge(self.broker.queue("jobs"), "//d/out", label="back")
        worker = self.stack.enter_context(Worker(self.directory, "//d/out")).ready()
        flow = self.stack.enter_context(Flow(self.directory, "//d/in", 1500, 500))
        for bridge, least in ((there, 300), (back, 600)):
            eventually(lambda least=least: len(set(worker.marked("P"))) > least, 60, "the stream runs")
            bridge.kill9()
            bridge.start()
            bridge.ready()
        self.assertEqual(flow.wait(60), 0, flow.tail())
        eventually(lambda: not set(flow.accepted()) - set(worker.marked("P")), 60, "all has come through")
        self.assertGreater(back.metric("accepted_total"), 0)

    def test_dw_sends_to_a_queue_and_pulls_from_it(self):
        queue = self.broker.queue("by-hand")
        sent = dw("send", queue, "one", "two", directory=self.directory)
        self.assertEqual(sent.code, 0, sent)
        pulled = dw("receive", "--pull", "--count", "2", queue, directory=self.directory)
        self.assertEqual((pulled.code, pulled.stdout), (0, "one\ntwo\n"), pulled)


if __name__ == "__main__":
    cases.main()
