"""Quotas and the limits of connections and open files, against the real server. Quotas do not hold on loopback, so this test runs in
a network of its own, in which a host has an address."""

import os
import socket
import subprocess
import sys
import urllib.request

from harness import cases
from harness.programs import Directory, Program, binary, dw, eventually

HOST = "10.99.0.1"


class Crowd:
    """Connections that say nothing."""

    def __init__(self, at, count):
        host, port = at.rsplit(":", 1)
        self.sockets, self.gone = [], 0
        for _ in range(count):
            try:
                self.sockets.append(socket.create_connection((host, int(port)), timeout=5))
                self.sockets[-1].setblocking(False)
            except ConnectionResetError:
                self.gone += 1

    def reset(self):
        """How many the server has reset."""
        for one in list(self.sockets):
            try:
                one.recv(65536)
            except BlockingIOError:
                pass
            except ConnectionResetError:
                self.gone += 1
                one.close()
                self.sockets.remove(one)
        return self.gone

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.sockets:
            one.close()


def message(result):
    return result.stderr.strip()


def metrics(directory):
    with urllib.request.urlopen(f"http://{directory.http}/metrics", timeout=5) as page:
        return page.read().decode()


class QuotaTest(cases.TestCase):
    def test_P21_a_host_holds_at_most_its_quota_and_loopback_what_it_likes(self):
        with Directory("--insecure", "--quota-registrations", "3", "--quota-sessions", "2", "--quota-watches", "1",
                       "--quota-streams", "3", host="0.0.0.0") as directory:
            def register(number, at):
                return dw("register", "--static", "//d/a", f"amqp://{HOST}:{number}", directory=at)

            port = directory.address.rsplit(":", 1)[1]
            here, loopback = f"{HOST}:{port}", f"127.0.0.1:{port}"
            for one in (1, 2, 3):
                self.assertEqual(register(one, here).code, 0)
            refused = register(4, here)
            self.assertNotEqual(refused.code, 0)
            self.assertIn(f"`{HOST}` holds 3 registrations and may hold 3 (--quota-registrations)", message(refused))
            self.assertEqual(register(3, here).code, 0, "it holds that one already")
            self.assertEqual(register(5, loopback).code, 0, "loopback has no quota")
            directory.restart()
            self.assertNotEqual(register(4, here).code, 0, "a restart forgets no quota")
            self.assertEqual(dw("withdraw", "//d/a", f"amqp://{HOST}:1", directory=here).code, 0)
            self.assertEqual(register(4, here).code, 0, "one has gone")

            with Program("dw", "watch", "//d", "--directory", here) as watch:
                watch.wait_for_line("//d/a")
                second = dw("watch", "//d", "--timeout", "2s", directory=here)
                self.assertIn("1 watches and may hold 1 (--quota-watches)", message(second))
            eventually(lambda: "datawire_watchers 0" in metrics(directory), 10, "the watcher is gone")

    def test_P21_connections_that_use_up_the_files_are_reset_and_the_server_lives_on(self):
        with Program("/usr/bin/prlimit", "--nofile=300:300", binary("datawire-directory"), "--dev", "--listen",
                     "127.0.0.1:0", "--http-listen", "127.0.0.1:0") as server:
            at = server.wait_for_line(r"^ready grpc=(\S+)").group(1)
            with Crowd(at, 600) as crowd:
                eventually(lambda: crowd.reset() >= 300, 20, "those too many are reset")
                answer = dw("register", "--static", "//d/a", "amqp://127.0.0.1:1", directory=at)
                self.assertIn(answer.code, (0, 4), "done or not, but answered at once")
            eventually(lambda: dw("register", "--static", "//d/a", "amqp://127.0.0.1:2", directory=at).code == 0, 20,
                       "it serves again")
            self.assertEqual(server.stop(), 0)

    def test_P21_a_host_has_at_most_64_connections_and_loopback_more(self):
        with Directory("--insecure", host="0.0.0.0") as directory:
            port = directory.address.rsplit(":", 1)[1]
            with Crowd(f"{HOST}:{port}", 70) as crowd, Crowd(f"127.0.0.1:{port}", 70) as local:
                eventually(lambda: crowd.reset() == 6, 10, "six are reset")
                self.assertEqual(local.reset(), 0)
                self.assertIn("datawire_connections_refused_total 6", metrics(directory))
            eventually(lambda: dw("status", directory=f"{HOST}:{port}").code == 0, 10, "those that closed are forgotten")

    def test_too_few_open_files_are_refused_and_few_are_warned_of(self):
        def with_files(count):
            return Program("/usr/bin/prlimit", f"--nofile={count}:{count}", binary("datawire-directory"), "--dev",
                           "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")

        with with_files(100) as too_few:
            self.assertEqual(too_few.wait(), 1)
            self.assertRegex(too_few.output("stderr"), r"^datawire-directory: this process may open 100 files, at least "
                                                       r"256 are needed: raise its hard limit \(LimitNOFILE=")
        with with_files(1000) as few:
            few.wait_for_line("^ready ")
            few.wait_for_line("few open files.*may open 1000 files", stream="stderr")
            self.assertEqual(few.stop(), 0)


def in_own_network():
    """The script again, in a network namespace where `lo` has an address that is not loopback's."""
    if os.environ.get("DATAWIRE_OWN_NETWORK") != "1":
        os.environ["DATAWIRE_OWN_NETWORK"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    for command in ("ip link set lo up", f"ip address add {HOST}/32 dev lo"):
        subprocess.run(command.split(), check=True)


if __name__ == "__main__":
    in_own_network()
    cases.main()
