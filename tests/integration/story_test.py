"""The story as a newcomer sees it: deploy/quickstart, any order of starting, servers that do not answer."""

import contextlib
import itertools
import os
import re
import signal
import socket
import time

from harness import cases, programs
from harness.programs import Directory, Program, dw, dw_json, eventually
from harness.workers import Flow, Worker

QUICKSTART = os.path.join(os.environ["DATAWIRE_SOURCE"], "deploy", "quickstart")
BUILD = os.path.dirname(os.environ["DATAWIRE_BIN"].rstrip("/"))


class Quickstart(cases.TestCase):
    def quickstart(self, *args):
        return Program(QUICKSTART, "--no-build", "--build-dir", BUILD, *args, env={"TMPDIR": self.scratch("tmp")},
                       label="quickstart")

    def test_it_kills_an_instance_mid_stream_and_loses_nothing(self):
        with self.quickstart() as program:
            self.assertEqual(program.wait(90), 0, program.tail(80))
            text = program.output()
        print(text, flush=True)
        self.assertRegex(text, r"kill -9 .*")
        unsettled = int(re.search(r"(\d+) bytes? .* unread", text).group(1))
        self.assertGreater(unsettled, 0)
        sent, processed, lost = map(int, re.search(r"sent (\d+), processed (\d+), lost (\d+)", text).groups())
        self.assertEqual((processed, lost), (sent, 0))
        self.assertGreater(sent, 0)

    def test_with_presettled_sending_it_reports_the_loss(self):
        with self.quickstart("--presettled") as program:
            self.assertEqual(program.wait(90), 1, program.tail(80))
            text = program.output() + program.output("stderr")
        print(text, flush=True)
        sent, processed, lost = map(int, re.search(r"sent (\d+), processed (\d+), lost (\d+)", text).groups())
        self.assertGreater(lost, 0)
        self.assertEqual(sent, processed + lost)

    def test_interrupted_it_leaves_nothing_behind(self):
        folder = self.scratch("tmp")
        with Program(QUICKSTART, "--no-build", "--build-dir", BUILD, env={"TMPDIR": folder}) as program:
            program.wait_for_line("sending", 60)
            program.kill(signal.SIGINT)
            self.assertEqual(program.wait(15), 130, program.tail())
            eventually(lambda: not programs.leftovers(), 5, "all it started has ended")
        self.assertEqual(os.listdir(folder), [])

    def test_a_wrong_option_is_refused_in_one_line(self):
        for args, shown in ((("--colour",), "--colour"), (("--build-dir",), "--build-dir"),
                            (("--no-build", "--build-dir", "/nonexistent"), "/nonexistent")):
            with Program(QUICKSTART, *args) as program:
                self.assertEqual(program.wait(10), 1)
                self.assertEqual(len(program.output("stderr").splitlines()), 1, program.tail())
                self.assertIn(shown, program.output("stderr"))


class StartOrder(cases.TestCase):
    def test_any_order_of_directory_service_and_sender_works(self):
        for order in itertools.permutations(("directory", "service", "sender")):
            with self.subTest(order=order), contextlib.ExitStack() as stack:
                with Directory() as directory:  # its address is known before it is started for the test
                    pass
                service, sender = Worker(directory, "//order/work"), Flow(directory, "//order/work", 20)
                start = {"directory": directory.start_again, "service": service.start, "sender": sender.start}
                for program in (directory, service, sender):
                    stack.callback(program.end)
                for what in order:
                    start[what]()
                    time.sleep(0.4)  # long enough to try, and to fail at first
                self.assertEqual(sender.wait(30), 0, sender.tail())
                self.assertEqual(len(set(service.marked("P"))), 20)
                for program in (service, sender):
                    program.check()


class DeadServers(cases.TestCase):
    def test_a_dead_or_silent_server_before_a_live_one_is_passed_by(self):
        with socket.socket() as dead, socket.socket() as silent, Directory() as live:
            dead.bind(("127.0.0.1", 0))  # refuses
            silent.bind(("127.0.0.1", 0))
            silent.listen()  # takes connections and says nothing
            for first in (dead, silent):
                servers = f"127.0.0.1:{first.getsockname()[1]},{live.address}"
                with Worker(servers, "//servers/work") as worker:
                    worker.ready()
                    self.assertEqual(dw_json("resolve", "//servers/work", directory=servers)["endpoints"][0]["url"], worker.url)
                    with Flow(servers, "//servers/work", 20) as flow:
                        self.assertEqual(flow.wait(30), 0, flow.tail())
                    self.assertEqual(worker.stop(), 0)
                eventually(lambda at=live: dw("resolve", "//servers/work", directory=at).code == 2, 5, "gone")


if __name__ == "__main__":
    cases.main()
