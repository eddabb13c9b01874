"""Instances of a service are killed under a stream of messages: nothing that was accepted is lost. And no message
passes the directory: its sockets carry the same bytes whatever is sent. CHAOS_SEED repeats the moments of the kills,
CHAOS_SECONDS makes the stream longer or shorter."""

import contextlib
import os
import random
import re
import subprocess
import time

from harness import cases
from harness.api import Api
from harness.programs import Directory, eventually
from harness.workers import Flow, Worker

SECONDS = int(os.environ.get("CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
RATE, DELAY_MS = 250, 200  # 50 are worked on at a time
KILLS = SECONDS * 27 // 60  # for the full length 25 are wanted
MID_STREAM_SHARE = 0.8


class Kills(cases.TestCase):
    def test_no_accepted_message_is_lost_while_instances_are_killed(self):
        print(f"CHAOS_SEED={SEED}", flush=True)
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(Directory())
            workers = [stack.enter_context(Worker(directory, "//chaos/work", DELAY_MS, label=f"w{i}")) for i in range(3)]
            for worker in workers:
                worker.ready()
            # A little longer than the kills take, so that the last of them meets a stream too.
            flow = stack.enter_context(Flow(directory, "//chaos/work", RATE * (SECONDS + 2), RATE))
            flow.wait_for_line("^sending$")
            eventually(lambda: len(flow.accepted()) > RATE, 20, "the stream runs")
            kills = self.kill_for_a_while(workers, random.Random(SEED))
            self.assertTrue(flow.running() or flow.poll() == 0, flow.tail())
            self.assertEqual(flow.wait(90), 0, flow.tail())
            self.look_at_the_brake(directory)
            self.compare(flow, workers, kills)

    def kill_for_a_while(self, workers, chance):
        """KILLS kills in equal parts of the time, each at a random moment of its part; [unsettled at the kill]."""
        begin, unsettled = time.monotonic(), []
        for number in range(KILLS):
            moment = begin + SECONDS * (number + chance.uniform(0.1, 0.6)) / KILLS
            time.sleep(max(0.0, moment - time.monotonic()))
            worker = chance.choice(workers)
            url = worker.url
            worker.kill9()
            unsettled.append(len(worker.unsettled()))
            worker.start()
            self.assertNotEqual(worker.ready().url, url, "it comes back on a new port")
        return unsettled

    def look_at_the_brake(self, directory):
        """More sessions may fall due than the budget allows; then what is due is shown as suspect, and still listed."""
        with Api(directory) as api:
            status = api.status()
            states = [endpoint.state for endpoint in api.resolve("//chaos/work").answers[0].row.endpoints]
        print(f"brake_on={status.brake_on} endpoints={len(states)}", flush=True)
        self.assertGreaterEqual(states.count(0), 3)

    def compare(self, flow, workers, kills):
        sums, accepted = flow.sums(), flow.accepted()
        processed = set().union(*(worker.marked("P") for worker in workers))
        mid_stream = sum(1 for unsettled in kills if unsettled > 0)
        print(f"{len(accepted)} accepted, {len(kills)} kills, {mid_stream} of them mid-stream with "
              f"{sum(kills)} unsettled, {sums}", flush=True)
        self.assertEqual(len(accepted), RATE * (SECONDS + 2))
        self.assertEqual(len(set(accepted)), len(accepted))
        lost = set(accepted) - processed
        self.assertEqual(lost, set(), f"{len(lost)} accepted messages are in no file (seed {SEED})")
        self.assertGreaterEqual(mid_stream, len(kills) * MID_STREAM_SHARE)
        self.assertGreaterEqual(sums["in_flight_p10"], 32)
        self.assertGreater(sums["redelivered"], 0)


class Bytes(cases.TestCase):
    LOOK_SECONDS = 33.7  # between two marks of the stream and two heartbeats

    def test_the_directory_carries_the_same_bytes_at_1x_and_10x_the_messages(self):
        counts, rates = {}, (30, 300)
        with contextlib.ExitStack() as stack:
            pairs = {rate: stack.enter_context(Directory(label=f"directory-{rate}")) for rate in rates}
            for rate in rates:
                stack.enter_context(Worker(pairs[rate], "//bytes/work", label=f"worker-{rate}")).ready()
            flows = {rate: stack.enter_context(Flow(pairs[rate], "//bytes/work", rate * 40, rate)) for rate in rates}
            begun = {rate: (flows[rate].wait_for_line("^sending$"), time.monotonic())[1] for rate in rates}
            for rate in rates:
                time.sleep(max(0.0, begun[rate] + self.LOOK_SECONDS - time.monotonic()))
                counts[rate] = socket_bytes(pairs[rate])
                sent = len(flows[rate].accepted())
                print(f"{rate}/s: {sent} accepted, (sent, received) by socket {counts[rate]}", flush=True)
                self.assertGreater(sent, rate * self.LOOK_SECONDS * 0.9)
            for flow in flows.values():
                self.assertEqual(flow.wait(60), 0, flow.tail())
        few, many = (sum(map(sum, counts[rate])) for rate in rates)
        self.assertEqual(len(counts[rates[0]]), len(counts[rates[1]]))
        self.assertLessEqual(abs(many - few), 0.05 * few, f"{few} and {many} bytes")


def socket_bytes(directory):
    """[(bytes sent, bytes received)] of the directory's established connections, as the kernel counts them."""
    port = directory.address.rsplit(":", 1)[1]
    text = subprocess.run(["ss", "-tinHO", "state", "established", f"( sport = :{port} )"], check=True, timeout=10,
                          capture_output=True, text=True).stdout
    def count(name, line):
        return int((re.search(rf"\b{name}:(\d+)", line) or [0, 0])[1])
    return sorted((count("bytes_sent", line), count("bytes_received", line)) for line in text.splitlines())


if __name__ == "__main__":
    cases.main()
