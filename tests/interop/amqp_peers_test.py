"""Peers that we did not write, python-proton and rhea: they send to and ask our services, they receive what we send, and
they misbehave in the ways AMQP allows."""

import contextlib
import functools
import os
import signal
import socket
import threading

from harness import cases, programs
from harness.programs import Directory, Program, dw, eventually
from harness.workers import Flow, Worker, lines

HERE = os.path.dirname(os.path.abspath(__file__))
STOCK = {"python": ["/usr/bin/python3", os.path.join(HERE, "python_peer.py")], "rhea": ["node", os.path.join(HERE, "rhea_peer.js")]}


def run(stock, *args):
    """Runs a stock peer to its end; its lines."""
    with Peer(stock, *args) as peer:
        code = peer.wait(30)
        if code != 0:
            raise programs.ProgramError(f"{peer.label}: exit code {code}\n{peer.tail()}")
        return peer.output().splitlines()


class Peer(Program):
    def __init__(self, stock, *args):
        command = STOCK[stock] + [str(arg) for arg in args]
        program = command[0] if "/" in command[0] else "/usr/bin/env"
        super().__init__(program, *(command[1:] if "/" in command[0] else command), label=f"{stock}-{args[0]}")


class Receiver(Peer):
    """A stock receiver, its messages in `got()`, registered at `address` once it is started."""

    def __init__(self, stock, behaviour, directory, address):
        self.marks = os.path.join(programs.scratch("marks"), "marks")
        super().__init__(stock, "receive", behaviour, self.marks)
        self.directory, self.address, self.url = directory, address, None

    def start(self):
        super().start()
        self.url = f"amqp://127.0.0.1:{self.wait_for_line(r'^listening ([0-9]+)$', 30).group(1)}"
        register(self.directory, self.address, self.url)
        return self

    def got(self):
        """(id, delivery count) of each message that came, in that order."""
        return [(words[0], int(words[1])) for words in lines(self.marks)]

    def ids(self):
        return {words[0] for words in lines(self.marks)}


def register(directory, address, url):
    result = dw("register", "--static", address, url, directory=directory)
    if result.code != 0:
        raise programs.ProgramError(f"dw register: {result}")


def each_stock(test):
    """Runs the test with each stock library, at an address of its own."""

    @functools.wraps(test)
    def tests(self):
        for stock in STOCK:
            with self.subTest(stock=stock):
                test(self, stock, f"//interop/{test.__name__}/{stock}")

    return tests


class Case(cases.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = cls.enterClassContext(Directory())


class StockToOurs(Case):
    @contextlib.contextmanager
    def answerer(self, address):
        with Program("datawire-test-answerer", self.directory.address, address) as program:
            url = program.wait_for_line(r"^listening amqp://(\S+)$").group(1)
            eventually(lambda: dw("resolve", address, directory=self.directory).code == 0, 10, f"{address} is found")
            yield program, url

    @each_stock
    def test_each_outcome_is_told_in_its_own_words(self, stock, address):
        with self.answerer(address) as (_, url):
            self.assertEqual(sorted(run(stock, "send", url, address, "x", "reject", "release", "throw")),
                             ["accepted x", "modified throw", "rejected reject datawire:rejected told to", "released release"])

    @each_stock
    def test_more_messages_than_credit_are_all_taken(self, stock, address):
        with Worker(self.directory, address) as worker:
            worker.ready()
            bodies = [f"m{i}" for i in range(500)]
            told = run(stock, "send", worker.url.removeprefix("amqp://"), address, *bodies)
            self.assertEqual(sorted(told), sorted(f"accepted {body}" for body in bodies))
            self.assertEqual(worker.marked("P"), bodies)

    @each_stock
    def test_a_request_gets_its_reply_with_its_correlation_id_or_message_id(self, stock, address):
        with self.answerer(address) as (_, url):
            words = [f"word{i}" for i in range(150)]
            told = run(stock, "request", url, address, *words)
            self.assertEqual(told, [f"reply WORD{i} {i}" for i in range(150)])

    @each_stock
    def test_an_address_that_is_not_ours_is_refused_with_the_reason(self, stock, address):
        with self.answerer(address) as (_, url):
            self.assertEqual(run(stock, "send", url, "//interop/other", "x"), ["refused amqp:not-found"])
            self.assertEqual(run(stock, "send", url, address, "x"), ["accepted x"])

    @each_stock
    def test_a_service_that_stops_is_not_held_up_by_a_connected_peer(self, stock, address):
        with self.answerer(address) as (service, url), Peer(stock, "send", url, address, "x", "y") as peer:
            peer.wait_for_line("^accepted x$")
            service.stop(4)
            self.assertIn("stopped", service.output())


class OursToStock(Case):
    def send(self, address, *bodies):
        """The outcome of each message, in their order, and dw's result."""
        result = dw("send", address, *bodies, "-o", "jsonl", "--timeout", "10s", directory=self.directory)
        told = [programs.json.loads(line) for line in result.stdout.splitlines()]
        return sorted(told, key=lambda line: line["message"]), result

    @each_stock
    def test_accepted_messages_are_with_the_peer(self, stock, address):
        with Receiver(stock, "accept", self.directory, address) as peer:
            told, result = self.send(address, *(f"m{i}" for i in range(100)))
            self.assertEqual(result.code, 0, result.stderr)
            self.assertEqual({line["peer"] for line in told}, {peer.url})
            self.assertEqual(len(peer.ids()), 100, "each has a message id of its own, filled in by us")

    @each_stock
    def test_a_rejection_is_final_and_tells_the_peers_words(self, stock, address):
        with Receiver(stock, "reject", self.directory, address) as peer:
            told, result = self.send(address, "x")
            self.assertEqual(result.code, 8)
            self.assertEqual({key: told[0][key] for key in ("outcome", "condition", "description", "attempts")},
                             {"outcome": "REJECTED", "condition": "shop:sold-out", "description": "no more of these",
                              "attempts": 1})
            self.assertEqual(len(peer.got()), 1)

    @each_stock
    def test_a_released_message_comes_again_uncounted_and_a_modified_one_counted(self, stock, address):
        for behaviour, count in (("release", 0), ("modify", 1)):
            with Receiver(stock, behaviour, self.directory, f"{address}/{behaviour}") as peer:
                told, result = self.send(peer.address, "x")
                self.assertEqual(result.code, 0, result.stderr)
                self.assertEqual(told[0]["attempts"], 2)
                ids, counts = zip(*peer.got())
                self.assertEqual(len(set(ids)), 1)
                self.assertEqual(counts, (0, count))

    @each_stock
    def test_what_one_peer_gives_back_goes_to_the_other(self, stock, address):
        for behaviour in ("release-all", "undeliverable"):
            address = f"{address}/{behaviour}"
            with Receiver(stock, behaviour, self.directory, address), Receiver(stock, "accept", self.directory, address) as taker:
                attempts = set()
                for _ in range(10):  # the taker's link may be there so much sooner that it gets all
                    told, result = self.send(address, *(f"m{i}" for i in range(40)))
                    self.assertEqual(result.code, 0, result.stderr)
                    self.assertEqual({line["peer"] for line in told}, {taker.url})
                    attempts |= {line["attempts"] for line in told}
                    if 2 in attempts:
                        break
                self.assertIn(2, attempts)

    @each_stock
    def test_a_peer_that_settles_second_is_understood(self, stock, address):
        with Receiver(stock, "second", self.directory, address) as peer:
            told, result = self.send(address, *(f"m{i}" for i in range(50)))  # more than its credit
            self.assertEqual(result.code, 0, result.stderr)
            self.assertEqual({line["attempts"] for line in told}, {1})
            self.assertEqual(len(peer.got()), 50)

    @each_stock
    def test_presettled_messages_arrive(self, stock, address):
        with Receiver(stock, "accept", self.directory, address) as peer:
            result = dw("send", "--presettled", address, "x", "y", directory=self.directory)
            self.assertEqual(result.code, 0, result.stderr)
            eventually(lambda p=peer: len(p.got()) == 2, 10, "both came")


class Checked(Case):
    @each_stock
    def test_a_peer_is_registered_by_an_amqp_check_while_it_runs(self, stock, address):
        checked = f"{address}/checked"
        with Receiver(stock, "accept", self.directory, address) as peer, Program(
                "dw", "--directory", self.directory.address, "register", checked, peer.url, "--check", "amqp",
                "--check-interval", "200ms", "--check-timeout", "200ms", label="dw-register") as held:
            held.wait_for_line("^registered ", 30)
            peer.kill9()
            held.wait_for_line("3 probes in a row; withdrawn until it answers", 30, "stderr")
            eventually(lambda: dw("resolve", checked, directory=self.directory).code == 2, 10, "it is withdrawn")
            held.kill(signal.SIGINT)
            self.assertEqual(held.wait(20), 130)


class Misbehaving(Case):
    COUNT = 300

    @contextlib.contextmanager
    def stream(self, address, *peers):
        """300 messages at 600 a second to the address; afterwards all are accepted, and each is where it was accepted."""
        with Flow(self.directory, address, self.COUNT, rate=600) as flow:
            yield flow
            self.assertEqual(flow.wait(60), 0, flow.tail())
            where = {peer.url: peer.ids() if isinstance(peer, Receiver) else set(peer.marked("P")) for peer in peers}
            accepted = [words for words in flow.outcomes() if words[0] == "accepted"]
            self.assertEqual(len({words[1] for words in accepted}), self.COUNT)
            for words in accepted:
                self.assertIn(words[1], where[words[3]])

    @each_stock
    def test_a_peer_that_closes_with_an_error_loses_nothing(self, stock, address):
        for behaviour in ("close", "detach"):
            address = f"{address}/{behaviour}"
            with Receiver(stock, behaviour, self.directory, address) as bad, Worker(self.directory, address) as good:
                good.ready()
                with self.stream(address, bad, good) as flow:
                    pass
                self.assertGreater(flow.sums()["links_lost"], 0)
                self.assertGreater(flow.sums()["redelivered"], 0)

    @each_stock
    def test_a_peer_that_freezes_mid_stream_loses_nothing(self, stock, address):
        with Receiver(stock, "mute", self.directory, address) as bad, Worker(self.directory, address) as good:
            good.ready()
            with self.stream(address, good) as flow:
                eventually(lambda b=bad: len(b.got()) > 5, 10, "it has taken some")
                bad.sigstop()
            self.assertGreater(flow.sums()["redelivered"], 0)
            bad.sigcont()

    @each_stock
    def test_a_peer_killed_mid_stream_loses_nothing(self, stock, address):
        with Receiver(stock, "accept", self.directory, address) as bad, Worker(self.directory, address) as good:
            good.ready()
            with self.stream(address, bad, good) as flow:
                eventually(lambda b=bad: len(b.got()) > 5, 10, "it has taken some")
                bad.kill9()
            self.assertGreater(flow.sums()["links_lost"], 0)

    def test_sockets_that_refuse_or_say_nothing_or_garbage_are_passed_by(self):
        address = "//interop/sockets"
        with Speaker(b"") as silent, Speaker(b"HTTP/1.1 400 Bad Request\r\n\r\n") as http, \
                Speaker(b"AMQP\x00\x01\x00\x00" + bytes(range(256)) * 8) as garbage, socket.socket() as dead, \
                Worker(self.directory, address) as good:
            dead.bind(("127.0.0.1", 0))  # refuses
            good.ready()
            for port in (silent.port, http.port, garbage.port, dead.getsockname()[1]):
                register(self.directory, address, f"amqp://127.0.0.1:{port}")
            with self.stream(address, good):
                pass
            for speaker in (silent, http, garbage):
                self.assertGreater(speaker.connections, 0)


class Speaker:
    """A server that says the same to whoever connects, and reads nothing."""

    def __init__(self, words):
        self.words, self.connections, self.sockets = words, 0, []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for each in (self.listening, *self.sockets):
            each.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            self.sockets.append(connection)
            with contextlib.suppress(OSError):
                connection.sendall(self.words)


if __name__ == "__main__":
    cases.main()
