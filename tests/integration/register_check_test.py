"""dw register --check: what probes of real ports do to a registration, and what they do not hold up."""

import http.server
import os
import signal
import socket
import threading

from harness import cases
from harness.api import WithDirectory
from harness.programs import Program, dw, dw_json, eventually, scratch

QUICK = ("--check-interval", "200ms", "--check-timeout", "200ms")
ENDLESS = ("--check-interval", "1h", "--check-timeout", "1h")


class Web:
    """An HTTP server that answers with the statuses of `plan`, then with `status`; 0: not at all."""

    def __init__(self, status=200, plan=()):
        self.status, self.plan, self.served, self.paths = status, list(plan), 0, set()
        self.over = threading.Event()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                web.paths.add(self.path)
                status = web.plan.pop(0) if web.plan else web.status
                web.served += 1
                if status == 0:
                    web.over.wait(60)
                    return
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class RegisterCheck(WithDirectory, cases.TestCase):
    counter = 0

    def setUp(self):
        RegisterCheck.counter += 1
        self.at = f"//c{RegisterCheck.counter}/checked"

    def register(self, url, *args):
        return Program("dw", "--directory", self.directory.address, "register", self.at, url, *args, label="dw-register")

    def resolves(self):
        return dw("resolve", self.at, directory=self.directory).code == 0

    def sessions(self, held):
        return {s["id"]: s for s in dw_json("session", "list", directory=self.directory)
                if s["state"] != "ended" and s["pid"] == held.pid}

    def interrupted(self, held):
        held.kill(signal.SIGINT)
        self.assertEqual(held.wait(20), 130)

    def test_only_thresholds_of_failures_and_successes_in_a_row_change_anything(self):
        with Web(plan=[500, 302, 500, 200, 500, 500, 204]) as web, self.register(
                "amqp://127.0.0.1:7", "--check", f"http=:{web.port}/healthz?x=1", *QUICK) as held:
            held.wait_for_line("GET /healthz.* answered `500`; registered once it answers", 30, "stderr")
            held.wait_for_line("^registered ", 30)
            eventually(lambda: web.served >= 9, 30, "the plan is over")
            self.assertTrue(self.resolves())
            self.assertNotIn("withdrawn", held.output("stderr"))
            self.assertEqual(len(held.output().splitlines()), 1)
            self.assertEqual(web.paths, {"/healthz?x=1"})
            sessions = self.sessions(held)
            self.assertEqual([s["registrations"] for s in sessions.values()], [1])

            web.status = 500
            held.wait_for_line("answered `500`, 3 probes in a row; withdrawn until it answers", 30, "stderr")
            eventually(lambda: not self.resolves(), 20, "it is withdrawn")
            self.assertEqual({i: s["registrations"] for i, s in self.sessions(held).items()}, dict.fromkeys(sessions, 0))

            web.status, web.plan = 200, [200, 500, 200, 500, 200, 200]
            held.wait_for_line("2 probes in a row answered; registered again", 30, "stderr")
            self.assertEqual(web.plan, [])
            eventually(self.resolves, 20, "it is registered again")
            self.assertEqual(self.sessions(held).keys(), sessions.keys())
            self.interrupted(held)
        self.assertFalse(self.resolves())

    def test_a_probe_that_hangs_has_failed_at_its_timeout_and_the_session_lives(self):
        with Web() as web, self.register(f"amqp://127.0.0.1:{web.port}", "--check", "http=/", "--check-down", "2", *QUICK) as held:
            held.wait_for_line("^registered ", 30)
            sessions = self.sessions(held)
            web.status = 0
            held.wait_for_line("no answer within 200 ms, 2 probes in a row; withdrawn until it answers", 30, "stderr")
            eventually(lambda: not self.resolves(), 20, "it is withdrawn")
            served = web.served
            eventually(lambda: web.served >= served + 3, 30, "further probes are made")
            self.assertEqual(self.sessions(held).keys(), sessions.keys())
            web.status = 200
            held.wait_for_line("registered again", 30, "stderr")
            self.interrupted(held)

    def test_a_hung_probe_holds_up_neither_an_interrupt_nor_the_command_s_end(self):
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen(16)
            mute.settimeout(30)
            url = f"amqp://127.0.0.1:{mute.getsockname()[1]}"
            for kind in ("amqp", "http=/"):
                with self.subTest(kind=kind), self.register(url, "--check", kind, *QUICK) as held:
                    held.wait_for_line("registered once it answers", 30, "stderr")
                    self.assertFalse(self.resolves())
                    self.interrupted(held)
                mute.setblocking(False)
                try:
                    while True:
                        mute.accept()[0].close()
                except BlockingIOError:
                    mute.settimeout(30)
                with self.subTest(kind=kind), self.register(url, "--check", kind, *ENDLESS) as held:
                    with mute.accept()[0]:  # the probe is under way, and stays so
                        self.interrupted(held)
                fifo = os.path.join(scratch("go"), "fifo")
                os.mkfifo(fifo)
                with self.subTest(kind=kind), self.register(url, "--check", kind, *ENDLESS, "--", "/bin/sh", "-c",
                                                            f"read go < {fifo}; exit 7") as held:
                    with mute.accept()[0]:
                        with open(fifo, "w", encoding="utf-8"):
                            pass  # the command ends while the probe is under way
                        self.assertEqual(held.wait(20), 7)

    def test_amqp_is_healthy_while_opens_and_closes_are_answered(self):
        with Program("dw", "--directory", self.directory.address, "receive", "//peer/of-check", label="peer") as peer:
            url = peer.wait_for_line(r"listening on (\S+)", 30, "stderr").group(1)
            with self.register(url, "--check", "amqp", *QUICK) as held:
                held.wait_for_line("^registered ", 30)
                self.assertTrue(self.resolves())
                peer.kill9()
                held.wait_for_line("refused, 3 probes in a row; withdrawn until it answers", 30, "stderr")
                eventually(lambda: not self.resolves(), 20, "it is withdrawn")
                self.interrupted(held)
        with Web() as web, self.register(f"amqp://127.0.0.1:{web.port}", "--check", "amqp", *QUICK) as held:
            held.wait_for_line("registered once it answers", 30, "stderr")  # it speaks, but no AMQP
            self.assertFalse(self.resolves())
            self.interrupted(held)

    def test_what_makes_no_sense_is_refused_with_the_value_and_the_rule(self):
        for args, *shown in (
                (("--check", "udp"), "`udp`", "tcp, amqp, http="), (("--check", "http=healthz"), "`http=healthz`", "start"),
                (("--check", "http=:0/x"), "`http=:0/x`", "65535"), (("--check", "tcp", "--static"), "--static"),
                (("--check-down", "2"), "--check-down", "--check"), (("--check-interval", "2s"), "--check-interval", "missing"),
                (("--check", "tcp", "--check-down", "0"), "--check-down", "`0`"),
                (("--check", "tcp", "--check-up", "0"), "--check-up", "`0`"),
                (("--check", "tcp", "--check-timeout", "0s"), "`0s`", "100ms"),
                (("--check", "tcp", "--check-timeout", "3s"), "3000ms", "--check-interval 2000ms")):
            with self.subTest(args=args):
                self.one_line(dw("register", self.at, "amqp://127.0.0.1:1", *args, directory="127.0.0.1:1"), 1, *shown)
        self.one_line(dw("register", self.at, "amqps://127.0.0.1", "--check", "amqp", directory="127.0.0.1:1"), 1, "TLS",
                      "amqps://127.0.0.1:5671")


if __name__ == "__main__":
    cases.main()
