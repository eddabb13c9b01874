"""datawire-queue, -topic and -forward as their users see them: what they accept they deliver, whatever is killed.
QUEUE_MESSAGES and QUEUE_KILLS make the long story longer."""

import contextlib
import json
import os
import random
import socket
import threading
import time

from proton import Delivery, Message
from proton.utils import BlockingConnection

from harness import cases, programs
from harness.programs import Directory, Program, dw, eventually
from harness.workers import Flow, Intermediary, Worker

SANITIZED = any(name in os.environ["DATAWIRE_BIN"] for name in ("asan", "tsan"))
MESSAGES = int(os.environ.get("QUEUE_MESSAGES", "3000" if SANITIZED else "10000"))
KILLS = int(os.environ.get("QUEUE_KILLS", "5"))


class Puller(threading.Thread):
    """A python-proton client that pulls. `how(body)` says what it does with each message: accept, reject, release, fail
    (modified), or keep. Bodies in `got`."""

    def __init__(self, url, address, how=lambda body: "accept", credit=10, count=None):
        super().__init__(daemon=True)
        self.url, self.address, self.how, self.credit, self.count = url, address, how, credit, count
        self.got, self.counts, self.error, self._end = [], [], None, threading.Event()

    def run(self):
        try:
            connection = BlockingConnection(self.url, timeout=10, allowed_mechs="ANONYMOUS")
            receiver = connection.create_receiver(self.address, credit=self.credit)
            while not self._end.is_set() and (self.count is None or len(self.got) < self.count):
                try:
                    message = receiver.receive(timeout=0.2)
                except Exception as error:  # noqa: BLE001  its time-outs have no type of their own
                    if "timed out" in str(error):
                        continue
                    raise
                self.got.append(message.body)
                self.counts.append(message.delivery_count)
                how = self.how(message.body)
                if how == "accept":
                    receiver.accept()
                elif how == "reject":
                    receiver.reject()
                elif how == "release":
                    receiver.release(delivered=False)
                elif how == "fail":  # release(delivered=True) does not say that it failed
                    delivery = receiver.fetcher.unsettled.popleft()
                    delivery.local.failed = True
                    delivery.update(Delivery.MODIFIED)
                    delivery.settle()
            connection.close()
        except Exception as error:  # noqa: BLE001  what it was told
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join(15)


class WithDirectory(cases.TestCase):
    def setUp(self):
        super().setUp()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.directory = self.stack.enter_context(Directory())

    def start(self, kind, *args, label=None):
        return self.stack.enter_context(Intermediary(self.directory, kind, *args, label=label)).ready()

    def queue(self, address="//d/queue", *args, label="queue"):
        return self.start("queue", address, "--data", os.path.join(programs.scratch(label), "store"), *args, label=label)

    def send(self, address, *messages, args=(), code=0):
        result = dw("--timeout", "10s", "--wait", "10s", "send", *args, address, *messages, directory=self.directory)
        self.assertEqual(result.code, code, result)
        return result

    def puller(self, where, address, *args, **named):
        return self.stack.enter_context(Puller(where.url, address, *args, **named))


class Queues(WithDirectory):
    def test_what_a_queue_accepted_survives_any_number_of_kills(self):
        chance = random.SystemRandom()
        queue = self.queue("//d/queue", "--depth", 10 * MESSAGES)
        flow = self.stack.enter_context(Flow(self.directory, "//d/queue", MESSAGES, 2500))
        unsettled = 0
        for number in range(1, KILLS + 1):
            least = MESSAGES * number // (KILLS + 1)
            eventually(lambda least=least: len(flow.accepted()) >= least, 120, f"{least} are accepted")
            time.sleep(chance.uniform(0, 0.05))
            queue.kill9()
            queue.start()
            queue.ready()
            unsettled += queue.metric("depth")
        self.assertEqual(flow.wait(180), 0, flow.tail())
        accepted = flow.accepted()
        self.assertEqual(len(accepted), MESSAGES)
        self.assertGreater(unsettled, 0)
        queue.kill9()
        queue.start()
        queue.ready()
        self.assertGreaterEqual(queue.metric("depth"), MESSAGES)
        with Puller(queue.url, "//d/queue", credit=200) as puller:
            eventually(lambda: queue.metric("depth") == 0 and queue.metric("out") == 0, 120, "all is delivered")
        self.assertEqual(set(accepted) - set(puller.got), set())
        print(f"{MESSAGES} accepted, {KILLS + 1} kills, {len(puller.got)} delivered", flush=True)

    def test_consumers_are_killed_and_nothing_is_lost_and_the_depth_tells(self):
        """The story of Barker: one of two workers dies, both, one comes back."""
        queue = self.queue("//barker/queue", "--to", "//barker/work", "--window", 40)
        workers = [self.stack.enter_context(Worker(self.directory, "//barker/work", 20, label=f"w{i}")).ready() for i in range(2)]
        flow = self.stack.enter_context(Flow(self.directory, "//barker/queue", 4000, 500))
        eventually(lambda: len(flow.accepted()) > 500, 60, "the stream runs")
        workers[0].kill9()
        eventually(lambda: len(flow.accepted()) > 1000, 60, "the stream runs on")
        self.assertLess(queue.metric("depth"), 500)
        workers[1].kill9()
        eventually(lambda: queue.metric("depth") > 500, 60, "the depth grows while nobody works")
        workers[0].start()
        workers[0].ready()
        self.assertEqual(flow.wait(60), 0, flow.tail())
        eventually(lambda: queue.metric("depth") == 0, 120, "it drains")
        processed = set(workers[0].marked("P")) | set(workers[1].marked("P"))
        self.assertEqual(set(flow.accepted()) - processed, set())

    def test_consumers_that_pull_compete(self):
        queue = self.queue()
        pullers = [self.puller(queue, "//d/queue", credit=5) for _ in range(3)]
        eventually(lambda: queue.metric("consumers") == 3, 30, "three are there")
        self.send("//d/queue", *map(str, range(300)))
        eventually(lambda: queue.metric("depth") == 0, 30, "all is accepted")
        self.assertEqual(sorted(sum((puller.got for puller in pullers), []), key=int), [str(i) for i in range(300)])
        self.assertTrue(all(len(puller.got) > 30 for puller in pullers), [len(puller.got) for puller in pullers])

    def test_dw_sends_to_it_and_pulls_from_it_and_the_trace_goes_through(self):
        self.queue()
        sent = self.send("//d/queue", "hello", args=("--trace", "-o", "jsonl"))
        trace = json.loads(sent.stdout)["traceparent"]
        self.assertRegex(trace, "^00-[0-9a-f]{32}-[0-9a-f]{16}-01$")
        told = self.send("//d/queue", "again", args=("--trace",))
        self.assertRegex(told.stderr, r"message 1: 00-\S+ ACCEPTED after \S+ ms by amqp://\S+, 1 try")
        pulled = dw("receive", "--pull", "--count", "2", "-o", "jsonl", "//d/queue", directory=self.directory)
        self.assertEqual(pulled.code, 0, pulled)
        got = [json.loads(line) for line in pulled.stdout.splitlines()]
        self.assertEqual([one["body"] for one in got], ["hello", "again"])
        self.assertEqual(got[0]["traceparent"], trace)

    def test_dw_says_why_nothing_can_be_pulled(self):
        worker = self.stack.enter_context(Worker(self.directory, "//d/work")).ready()
        with Program("dw", "--directory", self.directory.address, "receive", "--pull", "//d/work") as program:
            program.wait_for_line(f"{worker.url}: amqp:not-allowed: messages are sent to", 10, "stderr")
            program.kill(2)
            self.assertEqual(program.wait(10), 130)
        self.assertEqual(dw("receive", "--pull", "//d/none", directory=self.directory).code, 2)

    def test_poison_goes_to_the_dead_letters_with_its_reason(self):
        dead = self.queue("//d/dead", label="dead")
        queue = self.queue("//d/queue", "--tries", 3, "--dead-letter", "//d/dead")
        self.send("//d/queue", "poison", "refused", "good")

        puller = self.puller(queue, "//d/queue", {"poison": "fail", "refused": "reject", "good": "accept"}.get)
        eventually(lambda: queue.metric("depth") == 0, 30, "all is settled")
        self.assertEqual(queue.metric("dead_total"), 2)
        self.assertEqual([puller.counts[i] for i, body in enumerate(puller.got) if body == "poison"], [0, 1, 2])
        letters = self.puller(dead, "//d/dead", count=2)
        letters.join(15)
        self.assertEqual(sorted(letters.got), ["poison", "refused"])

    def test_what_outlives_its_time_to_live_is_not_delivered(self):
        dead = self.queue("//d/dead", label="dead")
        queue = self.queue("//d/queue", "--dead-letter", "//d/dead")
        connection = BlockingConnection(queue.url, timeout=10, allowed_mechs="ANONYMOUS")
        sender = connection.create_sender("//d/queue")
        sender.send(Message(body="mortal", ttl=0.1))
        sender.send(Message(body="for ever"))
        connection.close()
        eventually(lambda: queue.metric("dead_total") == 1, 30, "it has expired")
        puller = self.puller(queue, "//d/queue", count=1)
        puller.join(15)
        self.assertEqual(puller.got, ["for ever"])
        eventually(lambda: dead.metric("depth") == 1, 10, "it is among the dead letters")

    def test_a_full_queue_holds_its_sources_up_or_says_no(self):
        queue = self.queue("//d/queue", "--depth", 10)
        result = dw("--timeout", "2s", "send", "//d/queue", *map(str, range(15)), directory=self.directory)
        self.assertEqual(result.code, 8, result)
        self.assertIn("10 of 15 accepted", result.stderr)
        eventually(lambda: (queue.metric("depth"), queue.metric("held")) == (10, 0), 10, "what nobody waits for is let go")
        puller = self.puller(queue, "//d/queue")
        self.send("//d/queue", *map(str, range(20, 40)))
        eventually(lambda: queue.metric("depth") == 0, 30, "there is room again")
        self.assertEqual(set(puller.got), {str(i) for i in (*range(10), *range(20, 40))})
        no = self.queue("//d/no", "--depth", 10, "--when-full", "reject", label="no")
        result = self.send("//d/no", *map(str, range(15)), code=8)
        self.assertIn("the queue is full: 10 messages", result.stderr)
        self.assertEqual((no.metric("depth"), no.metric("refused_total")), (10, 5))

    def test_it_drains_in_bounded_time_and_keeps_what_is_not_delivered(self):
        queue = self.queue()
        self.send("//d/queue", *map(str, range(50)))
        keeper = self.puller(queue, "//d/queue", lambda _: "keep", credit=5)
        eventually(lambda: len(keeper.got) >= 5, 10, "a consumer has some")
        begun = time.monotonic()
        queue.args += ["--stop-timeout", "1s"]
        queue.stop(20)
        queue.start()
        queue.ready()
        self.assertLess(time.monotonic() - begun, 20)
        self.assertEqual(queue.metric("depth"), 50)
        begun = time.monotonic()
        self.assertEqual(queue.stop(10), 0)
        self.assertLess(time.monotonic() - begun, 5)

    def test_what_it_cannot_do_it_says(self):
        queue = self.queue()
        data = queue.args[queue.args.index("--data") + 1]
        foreign = os.path.join(self.scratch(), "foreign")
        os.makedirs(foreign)
        busy = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(busy.close)
        for args, code, words in ((["//d/q"], 1, "--data"), (["//d/q", "--data", data], 4, "lock"),
                                  (["d/q", "--data", foreign], 1, "address"), (["//d/q", "--data", "/proc/x"], 4, "/proc/x"),
                                  (["//d/q", "--data", foreign, "--slow", "1s"], 1, "--slow"),
                                  (["//d/q", "--data", foreign, "--stop-timeout", "soon"], 1, "`soon` is not a whole number with a unit"),
                                  (["//d/q", "--data", foreign, "--listen", f"127.0.0.1:{busy.getsockname()[1]}"], 4, "in use")):
            with Program("datawire-queue", *args, "--directory", self.directory.address) as program:
                self.assertEqual(program.wait(10), code, program.tail())
                self.assertIn(words, program.output("stderr"))
                self.assertEqual(len(program.output("stderr").splitlines()), 1, program.tail())


class Topics(WithDirectory):
    def test_each_subscriber_gets_each_message_and_a_slow_one_is_cut_off(self):
        topic = self.start("topic", "//d/topic", "--slow", "1s")
        fast = [self.puller(topic, "//d/topic") for _ in range(2)]
        slow = self.puller(topic, "//d/topic", lambda _: "keep", credit=5)
        eventually(lambda: topic.metric("subscribers") == 3, 10, "three are there")
        begun = time.monotonic()
        self.send("//d/topic", *map(str, range(500)))
        self.assertLess(time.monotonic() - begun, 10, "held up for little more than the bound")
        for puller in fast:
            self.assertEqual(puller.got, [str(i) for i in range(500)])
        eventually(lambda: slow.error is not None, 10, "the slow one is told")
        self.assertIn("not settled within 1000 ms", str(slow.error))
        self.assertEqual((topic.metric("cut_off_total"), topic.metric("subscribers")), (1, 2))

    def test_it_pushes_to_addresses_and_nobody_is_no_trouble(self):
        topic = self.start("topic", "//d/topic", "--to", "//d/a", "--to", "//d/b", "--slow", "2s")
        lone = self.start("topic", "//d/lone", label="lone")
        self.send("//d/lone", "x")
        self.assertEqual(lone.metric("unheard_total"), 1)
        workers = [self.stack.enter_context(Worker(self.directory, address, label=address[-1])).ready() for address in ("//d/a", "//d/b")]
        flow = self.stack.enter_context(Flow(self.directory, "//d/topic", 300, 300))
        self.assertEqual(flow.wait(30), 0, flow.tail())
        for worker in workers:
            self.assertEqual(set(worker.marked("A")), set(flow.accepted()))
        self.assertEqual(topic.metric("published_total"), 300)
        self.assertEqual(topic.stop(10), 0)


class Forwards(WithDirectory):
    def test_a_bridge_carries_all_over_though_it_is_killed(self):
        queue = self.queue("//d/from")
        bridge = self.start("forward", "//d/from", "//d/to")
        worker = self.stack.enter_context(Worker(self.directory, "//d/to")).ready()
        flow = self.stack.enter_context(Flow(self.directory, "//d/from", 2000, 1000))
        for least in (500, 1000):
            eventually(lambda least=least: len(set(worker.marked("P"))) > least, 60, "the stream runs")
            bridge.kill9()
            bridge.start()
            bridge.ready()
        self.assertEqual(flow.wait(60), 0, flow.tail())
        eventually(lambda: queue.metric("depth") == 0, 60, "all is carried over")
        self.assertEqual(set(flow.accepted()) - set(worker.marked("P")), set())
        self.assertEqual(bridge.stop(15), 0)

    def test_it_may_serve_its_beginning(self):
        bridge = self.start("forward", "--serve", "//d/from", "//d/to")
        worker = self.stack.enter_context(Worker(self.directory, "//d/to")).ready()
        self.send("//d/from", "a", "b")
        self.assertEqual(len(worker.marked("A")), 2)
        self.assertEqual(bridge.metric("accepted_total"), 2)
        self.assertEqual(bridge.stop(15), 0)


if __name__ == "__main__":
    cases.main()
