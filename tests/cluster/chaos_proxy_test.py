"""The chaos proxy makes the faults that it says, and loses no byte of a connection that lives."""

import hashlib
import os
import socket
import threading
import time

from harness import cases
from harness.chaos_proxy import ChaosProxy
from harness.etcd import free_port
from harness.programs import eventually


class Echo(threading.Thread):
    """A server that sends back what comes; `ends`: how its connections ended."""

    def __init__(self):
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.ends = []

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join(10)

    def run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
                self.ends.append("closed")
            except OSError as error:
                self.ends.append(type(error).__name__)


def receive(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            break
        data += part
    return data


class ChaosProxyTest(cases.TestCase):
    def setUp(self):
        self.echo = Echo()
        self.echo.__enter__()
        self.addCleanup(self.echo.__exit__)
        self.proxy = ChaosProxy(self.echo.address)
        self.proxy.__enter__()
        self.addCleanup(self.proxy.__exit__)

    def connect(self):
        host, port = self.proxy.address.split(":")
        connection = socket.create_connection((host, int(port)), timeout=10)
        self.addCleanup(connection.close)
        return connection

    def seconds(self, connection):
        """Of a byte there and back."""
        begun = time.monotonic()
        connection.sendall(b"x")
        self.assertEqual(receive(connection, 1), b"x")
        return time.monotonic() - begun

    def silent(self, connection):
        connection.settimeout(0.3)
        with self.assertRaises(socket.timeout):
            connection.recv(1)
        connection.settimeout(10)

    def test_everything_passes_unchanged_and_ends_are_passed_on(self):
        data = os.urandom(8 << 20)
        connection = self.connect()

        def send():
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        got = receive(connection, len(data) + 1)
        self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(data).digest())
        eventually(lambda: self.echo.ends == ["closed"] and self.proxy.connections == 0, 5)
        self.assertEqual(self.proxy.passed, (len(data), len(data)))

    def test_a_delay_is_that_long_each_way_and_ends(self):
        connection = self.connect()
        self.proxy.delay(0.2)
        self.assertGreaterEqual(self.seconds(connection), 0.4)
        self.proxy.delay(0.2, down=False)
        self.assertGreaterEqual(self.seconds(connection), 0.2)
        self.proxy.heal()
        eventually(lambda: self.seconds(connection) < 0.2, 5)

    def test_a_black_hole_is_silent_and_gives_back_what_it_held(self):
        connection = self.connect()
        self.seconds(connection)
        for up, down in ((True, True), (True, False), (False, True)):
            before = self.proxy.held
            self.proxy.blackhole(up, down)
            connection.sendall(b"held")
            self.silent(connection)
            self.assertEqual(self.proxy.held - before, 4, (up, down))
            self.proxy.heal()
            self.assertEqual(receive(connection, 4), b"held")

    def test_a_new_connection_into_a_black_hole_gets_no_answer_until_healed(self):
        self.proxy.blackhole()
        connection = self.connect()
        connection.sendall(b"a")
        self.silent(connection)
        self.proxy.heal()
        self.assertEqual(receive(connection, 1), b"a")

    def test_a_reset_reaches_both_ends_and_new_connections_pass(self):
        connections = [self.connect() for _ in range(3)]
        for connection in connections:
            self.seconds(connection)
        self.assertEqual(self.proxy.reset(), 3)
        for connection in connections:
            with self.assertRaises(ConnectionResetError):
                connection.recv(1)
        eventually(lambda: self.echo.ends == ["ConnectionResetError"] * 3, 5)
        self.seconds(self.connect())

    def test_who_is_refused_is_reset_at_once_until_healed(self):
        self.proxy.refuse()
        with self.assertRaises(ConnectionError):
            self.connect().recv(1)
        self.assertEqual(self.proxy.refused, 1)
        self.proxy.heal()
        self.seconds(self.connect())

    def test_a_target_that_is_not_there_is_a_reset(self):
        with ChaosProxy(f"127.0.0.1:{free_port()}") as proxy:
            host, port = proxy.address.split(":")
            with self.assertRaises(ConnectionError):  # the reset may come before connect() returns
                with socket.create_connection((host, int(port)), timeout=10) as connection:
                    connection.recv(1)
            eventually(lambda: proxy.connections == 0, 5)


if __name__ == "__main__":
    cases.main()
