"""deploy/cluster: three machines with one command, faults with another, and nothing left behind. As root the machines have
networks of their own; without root (`loopback`) all is on 127.0.0.1."""

import contextlib
import glob
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import unittest

from harness import cases
from harness.programs import Program, dw, dw_json, eventually

COMMAND = os.path.join(os.environ["DATAWIRE_SOURCE"], "deploy/cluster")
BUILD = os.path.dirname(os.environ["DATAWIRE_BIN"].rstrip("/"))


class Command:
    """A cluster in a folder of its own, as a user (none: as this one); it is taken down at the end, whatever happened."""

    def __init__(self, test, user=()):
        self._test, self._user = test, list(user)
        base = tempfile.mkdtemp(prefix="datawire-cluster-test-")  # where any user may go
        os.chmod(base, 0o777)
        self.folder = os.path.join(base, "state")
        test.addCleanup(shutil.rmtree, base)
        test.addCleanup(self._end)

    def run(self, *words):
        with Program("/usr/bin/env", *self._user, COMMAND, "--dir", self.folder, *words, label="cluster") as program:
            code = program.wait(90)
            return code, program.output(), program.output("stderr")

    def good(self, *words):
        code, out, err = self.run(*words)
        self._test.assertEqual((code, err), (0, ""), out)
        return out

    def refused(self, *words):
        code, _, err = self.run(*words)
        self._test.assertEqual((code, err.count("\n"), err[:9]), (1, 1, "cluster: "), err)
        return err

    def environment(self):
        """What `env` tells a shell."""
        return dict(line.removeprefix("export ").split("=", 1) for line in self.good("env").splitlines())

    def _end(self):
        if os.path.exists(self.folder):
            self.run("down")


def said(host, port, context=None):
    """What a server answers to a GET of /health; with a context: by TLS."""
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=10) as plain, \
            context.wrap_socket(plain, server_hostname=host) if context else plain as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        while part := connection.recv(4096):
            answer += part
    return answer


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Machines(cases.TestCase):
    def test_a_machine_that_is_cut_off_or_killed_is_not_missed_and_comes_back(self):
        cluster, other = Command(self), Command(self)
        links = set(os.listdir("/sys/class/net"))
        first = cluster.good("up", "--build", BUILD).splitlines()[0]
        self.assertIn("each in a network of its own", first)
        other.good("up", "--build", BUILD)  # two side by side
        directory = cluster.environment()["DATAWIRE_DIRECTORY"]
        self.assertNotEqual(directory, other.environment()["DATAWIRE_DIRECTORY"])
        other.good("down")

        def register(port):
            done = dw("--timeout", "10s", "register", "--static", "//d/a", f"amqp://127.0.0.1:{port}", directory=directory)
            self.assertEqual(done.code, 0, done)

        def shown(at):
            return dw("resolve", "//d/a", "-o", "short", directory=at).stdout.split()

        register(1)
        self.assertEqual(cluster.run("status")[0], 0)
        cluster.good("partition", "1")
        register(2)
        code, out, _ = cluster.run("status")
        self.assertEqual((code, out.count("cut off")), (1, 1), out)
        cluster.good("heal")
        one = directory.split(",")[0]
        eventually(lambda: len(shown(one)) == 2, 30, "it learns what it missed")
        cluster.good("kill", "2")
        register(3)
        self.assertIn("started", cluster.good("start", "2"))
        self.assertIn("runs already", cluster.good("start", "directory", "2"))
        cluster.good("pause", "directory", "3")
        self.assertIn("paused", cluster.run("status")[1])
        cluster.good("resume", "3")
        cluster.good("stop", "etcd", "3")
        cluster.good("up")  # what does not run is started, the rest is left alone
        eventually(lambda: cluster.run("status")[0] == 0, 30, "all of it serves")
        for at in directory.split(","):
            eventually(lambda at=at: len(shown(at)) == 3, 10, f"{at} knows all")
        self.assertIn("ready grpc=", cluster.good("logs", "2"))
        cluster.good("down")
        self.assertFalse(glob.glob(os.path.dirname(cluster.folder) + "/*"))
        self.assertEqual(set(os.listdir("/sys/class/net")), links)

    def test_with_tls_all_of_it_works_the_same_and_nobody_without_a_certificate_is_let_in(self):
        cluster = Command(self)
        cluster.good("up", "--tls", "--build", BUILD)
        user = cluster.environment()
        self.assertEqual(set(user), {"DATAWIRE_DIRECTORY", "DATAWIRE_TLS_CERT", "DATAWIRE_TLS_KEY", "DATAWIRE_TLS_CA"})
        directory = user.pop("DATAWIRE_DIRECTORY")

        def register(port, **how):
            return dw("--timeout", "10s", "register", "--static", "//d/a", f"amqp://127.0.0.1:{port}", directory=directory, **how)

        self.assertEqual(register(1, env=user).code, 0)
        self.assertEqual(dw_json("history", "//d/a", directory=directory, env=user)["entries"][0]["by"],
                         "spiffe://datawire-cluster/user")
        self.one_line(register(2), 4)
        one = directory.split(":")[0]
        trusts = ssl.create_default_context(cafile=user["DATAWIRE_TLS_CA"])
        for port in (2379, 2380):  # etcd: no plaintext, and nothing for who shows no certificate
            self.assertNotIn(b" 200 ", said(one, port), port)
            self.assertEqual(said(one, port, trusts), b"", port)
        trusts.load_cert_chain(user["DATAWIRE_TLS_CERT"], user["DATAWIRE_TLS_KEY"])
        self.assertIn(b" 200 ", said(one, 2379, trusts), "as it does for who shows one")
        cluster.good("partition", "1")
        self.assertEqual(register(3, env=user).code, 0)
        cluster.good("heal")
        cluster.good("kill", "2")
        self.assertEqual(register(4, env=user).code, 0)
        cluster.good("start", "2")
        cluster.good("stop", "etcd", "3")
        cluster.good("up")  # it stays what it is
        eventually(lambda: cluster.run("status")[0] == 0, 30, "all of it serves")
        for at in directory.split(","):
            eventually(lambda at=at: len(dw("resolve", "//d/a", "-o", "short", directory=at, env=user).stdout.split()) == 3, 10,
                       f"{at} knows all")
        eventually(lambda: dw("status", "--cluster", directory=directory, env=user).code == 0, 10, "all are well, as dw sees it, too")
        cluster.good("down")
        self.assertFalse(glob.glob(os.path.dirname(cluster.folder) + "/*"))


class Loopback(cases.TestCase):
    def test_without_root_it_is_on_loopback_and_says_what_it_cannot(self):
        user = ()
        if os.geteuid() == 0:
            user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
            probe = subprocess.run([*user, os.environ["DATAWIRE_BIN"] + "/dw", "version"], capture_output=True, check=False)
            if probe.returncode != 0:
                self.skipTest("another user cannot run what was built")
        cluster = Command(self, user)
        self.assertIn("all on loopback", cluster.good("up", "--build", BUILD))
        directory = cluster.environment()["DATAWIRE_DIRECTORY"]
        self.assertIn("made without --tls", cluster.refused("up", "--tls"))
        self.assertEqual(dw("register", "--static", "//d/a", "amqp://127.0.0.1:1", directory=directory).code, 0)
        self.assertIn("needs root", cluster.refused("partition", "1"))
        self.assertIn("say 1, 2 or 3", cluster.refused("kill", "4"))
        cluster.good("kill", "etcd", "1")
        cluster.good("down", "--keep")
        cluster.good("up")
        self.assertEqual(dw("resolve", "//d/a", "-o", "short", directory=directory).stdout, "amqp://127.0.0.1:1\n")
        cluster.good("down")

    def test_what_is_wrong_is_one_line(self):
        cluster = Command(self)
        self.assertIn("there is no cluster in", cluster.refused("kill", "1"))
        self.assertIn("unknown command 'upp'", cluster.refused("upp"))
        self.assertIn("--keep goes with down only", cluster.refused("up", "--keep"))
        self.assertIn("no datawire-directory in", cluster.refused("up", "--build", "/nonexistent"))


if __name__ == "__main__":
    cases.main()
