"""Pipelines of real processes, counted message by message: stages are killed and frozen, sinks stop, services restart, and
all start in any order. PIPELINE_SECONDS makes them longer, PIPELINE_ORDERS says how many orders, PIPELINE_SEED repeats."""

import contextlib
import itertools
import json
import os
import random
import threading
import time

from harness import cases, programs
from harness.programs import Directory, Program, dw, eventually, free_port
from harness.workers import Flow, Intermediary, Worker

SECONDS = int(os.environ.get("PIPELINE_SECONDS", "15"))
ORDERS = int(os.environ.get("PIPELINE_ORDERS", "24"))
SEED = int(os.environ.get("PIPELINE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
MEMORY_MOST = 64 << 20
SANITIZED = any(name in os.environ["DATAWIRE_BIN"] for name in ("asan", "tsan"))


def memory(program):
    with open(f"/proc/{program.pid}/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class WithDirectory(cases.TestCase):
    def setUp(self):
        super().setUp()
        print(f"PIPELINE_SEED={SEED}", flush=True)
        self.chance = random.Random(SEED)
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.directory = self.stack.enter_context(Directory())

    def worker(self, address, delay_ms=0, label="worker"):
        return self.stack.enter_context(Worker(self.directory, address, delay_ms, label=label)).ready()

    def stage(self, address, following, label):
        program = self.stack.enter_context(Program("datawire-example-upper", address, following, label=label,
                                                   env={"DATAWIRE_DIRECTORY": self.directory.address}))
        program.wait_for_line("^serving ", 10, "stderr")
        return program

    def flow(self, address, count, rate, **named):
        return self.stack.enter_context(Flow(self.directory, address, count, rate, **named))

    def processed(self, workers):
        return set().union(*(worker.marked("P") for worker in workers))


class Pipelines(WithDirectory):
    def test_three_stages_lose_nothing_while_one_is_killed_or_frozen_each_second(self):
        stages = [self.stage(f"//p/{here}", f"//p/{there}", f"{here}{i}") for here, there in ("ab", "bc") for i in range(2)]
        workers = [self.worker("//p/c", 150, label=f"c{i}") for i in range(2)]  # so each stage has some 15 that are not settled
        flow = self.flow("//p/a", 200 * SECONDS, 200)
        eventually(lambda: len(flow.accepted()) > 100, 30, "the stream runs")
        begun, kills, frozen = time.monotonic(), 0, []
        for number in range(SECONDS):
            eventually(lambda number=number: time.monotonic() >= begun + number + 0.9, 10)
            for program in [program for program, until in frozen if until <= number]:
                program.sigcont()
            frozen = [(program, until) for program, until in frozen if until > number]
            chosen = self.chance.choice([program for program in stages + workers if program not in dict(frozen)])
            if self.chance.random() < 0.3 and not frozen:
                chosen.sigstop()
                frozen.append((chosen, number + 4))
            else:
                chosen.kill9()
                chosen.start()
                kills += 1
        for program, _ in frozen:
            program.sigcont()
        self.assertEqual(flow.wait(120), 0, flow.tail())
        accepted = flow.accepted()
        self.assertEqual(len(accepted), 200 * SECONDS)
        self.assertEqual(set(accepted) - self.processed(workers), set())
        print(f"{len(accepted)} accepted, {kills} kills, {flow.sums()}", flush=True)

    def test_a_slow_sink_stops_the_source_and_nobodys_memory_grows(self):
        worker = self.worker("//p/b", 1000)  # 100 on a link at a time: 100 a second
        stage = self.stage("//p/a", "//p/b", "stage")
        flow = self.flow("//p/a", 1000 * SECONDS, 1000, size=64 << 10, seconds=SECONDS)
        flow.wait_for_line("^sending$")
        programs_ = (worker, stage, flow)
        begin, most = [memory(program) for program in programs_], [0, 0, 0]
        while flow.running():
            for i, program in enumerate(programs_):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    most[i] = max(most[i], memory(program))
            time.sleep(0.05)
        sums = flow.sums()
        self.assertEqual(sums["accepted"], sums["sent"])
        self.assertLess(sums["sent"], 300 * SECONDS, "the source was held up")
        self.assertGreater(sums["sent"], 30 * SECONDS, "and went on")
        grown = [(after - before) >> 20 for before, after in zip(begin, most)]
        print(f"{sums['sent']} of {1000 * SECONDS} offered went through; MiB grown: {grown}", flush=True)
        if not SANITIZED:
            self.assertLess(max(grown) << 20, MEMORY_MOST, grown)

    def test_one_slow_consumer_of_three_does_not_slow_the_others(self):
        workers = [self.worker("//p/x", delay, label=f"x{delay}") for delay in (0, 1, 2000)]
        count, rate = (1500, 300) if SANITIZED else (8000, 1600)
        flow = self.flow("//p/x", count, rate)
        begun = time.monotonic()
        self.assertEqual(flow.wait(60), 0, flow.tail())
        took = time.monotonic() - begun
        shares = [len(set(worker.marked("A"))) for worker in workers]
        print(f"{count} in {took:.1f} s, {shares}", flush=True)
        self.assertLess(took, count / rate + 2 + 5, "the slow one holds what it has for 2 s, no more")
        self.assertGreater(min(shares[:2]), count * 0.3)

    def test_a_rolling_restart_costs_no_message_and_no_request(self):
        workers = [self.worker("//p/x", 20, label=f"x{i}") for i in range(3)]
        uppers = [self.stack.enter_context(Program("datawire-example-upper", "//p/ask", label=f"u{i}",
                                                   env={"DATAWIRE_DIRECTORY": self.directory.address})) for i in range(2)]
        for upper in uppers:
            upper.wait_for_line("^serving ", 10, "stderr")
        flow, end, asked = self.flow("//p/x", 250 * 8, 250), threading.Event(), []

        def ask():
            while not end.is_set():
                asked.append(dw("--wait", "5s", "request", "//p/ask", "hello", directory=self.directory))
        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        for worker in workers:
            seen = len(flow.accepted())
            eventually(lambda seen=seen: len(flow.accepted()) > seen + 100, 30, "the stream runs")
            self.assertEqual(worker.stop(15), 0)
            worker.start()
            worker.ready()
        for upper in uppers:
            seen = len(asked)
            eventually(lambda seen=seen: len(asked) > seen + 5, 60, "requests are answered")
            self.assertEqual(upper.stop(15), 0)
            upper.start()
            upper.wait_for_line("^serving ", 10, "stderr")
        seen = len(asked)
        eventually(lambda: len(asked) > seen + 5, 60, "requests are answered")
        end.set()
        asker.join(30)
        self.assertEqual(flow.wait(60), 0, flow.tail())
        self.assertEqual([words for words in flow.outcomes() if words[0] != "accepted"], [])
        self.assertEqual(set(flow.accepted()) - self.processed(workers), set())
        self.assertEqual([result for result in asked if result.code != 0 or result.stdout != "HELLO\n"], [])
        print(f"{len(asked)} requests, {flow.sums()}", flush=True)


class Orders(cases.TestCase):
    def test_directory_queue_service_and_client_start_in_any_order(self):
        print(f"PIPELINE_SEED={SEED}", flush=True)
        orders = list(itertools.permutations(("directory", "queue", "service", "client")))
        for order in random.Random(SEED).sample(orders, min(ORDERS, len(orders))):
            with self.subTest(order=order), contextlib.ExitStack() as stack:
                begun = time.monotonic()
                self.start(stack, order)
                print(f"{' '.join(order)}: {time.monotonic() - begun:.1f} s", flush=True)

    def start(self, stack, order):
        port = free_port()
        at = f"127.0.0.1:{port}"
        made = {"directory": Directory(port=port), "queue": Intermediary(at, "queue", "//o/queue", "--data", os.path.join(
            programs.scratch("queue"), "store"), "--to", "//o/work"), "service": Worker(at, "//o/work"),
            "client": Flow(at, "//o/queue", 50, 200)}
        says = {"queue": "^ready ", "service": "^listening ", "client": "^sending$"}
        for name in order:
            program = stack.enter_context(made[name])
            if name in says:
                program.wait_for_line(says[name], 10)
        self.assertEqual(made["client"].wait(60), 0, made["client"].tail())
        eventually(lambda: set(made["service"].marked("A")) == set(made["client"].accepted()), 60, "all is worked on")


class Networks(cases.TestCase):
    def test_two_clients_of_one_process_live_in_two_networks(self):
        with Directory(label="one") as one, Directory(label="two") as two:
            with Program("datawire-test-networks", "--one", one.address, "--two", two.address) as program:
                program.wait_for_line("^two$", 30)
                self.assertEqual(program.output(), "one\ntwo\n")
                listed = [json.loads(dw("resolve", "//d/x", "-o", "json", directory=at).stdout)["endpoints"] for at in (one, two)]
                self.assertEqual([len(endpoints) for endpoints in listed], [1, 1])
                self.assertNotEqual(listed[0][0]["url"], listed[1][0]["url"])
                program.stop(15)


if __name__ == "__main__":
    cases.main()
