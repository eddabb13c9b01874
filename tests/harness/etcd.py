"""etcd for tests: one member or three, real processes on loopback, and what can befall them. Standard library and Debian's
packages etcd-server, etcd-client (snapshots) and strace (slow discs).

    with Etcd(3) as etcd:
        etcd.put("key", "value")
        old = etcd.leader()
        old.kill9()
        eventually(lambda: etcd.leader() not in (None, old), 10, "another leads")
        old.start()
        etcd.wait_healthy()
"""

import base64
import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

from harness import programs
from harness.programs import Program, ProgramError, eventually

FLAGS = ("--pre-vote", "--snapshot-count=5000", "--auto-compaction-retention=0",
         "--experimental-watch-progress-notify-interval=1s")
QUOTA_BYTES = 8589934592
# Below the kernel's own ports, so that no outgoing connection takes one while a member is down.
_PORTS = range(20000, 32000)
_ports = random.SystemRandom()
_given = set()


class EtcdError(AssertionError):
    """etcd refused; `text` is what it said, empty if it did not answer."""

    def __init__(self, where, text):
        super().__init__(f"{where}: {text or 'no answer'}")
        self.text = text


def free_port():
    """A port nobody listens on, never given twice."""
    while True:
        port = _ports.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def _text(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def prefix_end(key):
    """The first key after all that begin with `key`."""
    return key[:-1] + bytes([key[-1] + 1])


class Member(Program):
    """One etcd process. Kill, freeze and start it as any Program; data and ports stay."""

    def __init__(self, name, cluster):
        super().__init__("/usr/bin/etcd", label=name)
        self.name, self._cluster = name, cluster
        self.client, self.peer = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.data = os.path.join(programs.scratch(f"data-{name}"), "data")
        self.state = "new"  # or "existing": it joins a cluster that runs

    def command(self):
        return ["/usr/bin/etcd", "--name", self.name, "--data-dir", self.data,
                "--listen-client-urls", f"http://{self.client}", "--advertise-client-urls", f"http://{self.client}",
                "--listen-peer-urls", f"http://{self.peer}", "--initial-advertise-peer-urls", f"http://{self.peer}",
                "--initial-cluster", ",".join(f"{one.name}=http://{one.peer}" for one in self._cluster.members),
                "--initial-cluster-token", self._cluster.token, "--initial-cluster-state", self.state,
                "--heartbeat-interval=100", "--election-timeout=1000", "--logger=zap", "--log-level=warn",
                f"--quota-backend-bytes={self._cluster.quota_bytes}", *FLAGS, *self._cluster.extra]

    def call(self, path, deadline=3.0, **request):
        """One call of etcd's JSON gateway: call("kv/range", key=...). Bytes are base64 in it."""
        http = urllib.request.Request(f"http://{self.client}/v3/{path}", json.dumps(request).encode(),
                                      {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(http, timeout=deadline) as page:
                return json.load(page)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", "replace")
            with contextlib.suppress(ValueError):
                text = json.loads(text).get("message", text)
            raise EtcdError(f"{self.name} {path}", text) from None
        except (OSError, ValueError):
            raise EtcdError(f"{self.name} {path}", "") from None

    def status(self, deadline=1.0):
        """Of this member alone: revision, term, leader (a member id; 0: none), id, db_bytes, in_use_bytes. Raises EtcdError."""
        said = self.call("maintenance/status", deadline)
        return {"revision": int(said["header"].get("revision", 0)), "term": int(said["header"]["raft_term"]),
                "id": int(said["header"]["member_id"]), "leader": int(said.get("leader", 0)),
                "db_bytes": int(said.get("dbSize", 0)), "in_use_bytes": int(said.get("dbSizeInUse", 0))}

    def leads(self):
        try:
            status = self.status()
        except EtcdError:
            return False
        return status["leader"] == status["id"]

    def healthy(self):
        """It takes part in a quorum and nothing is alarmed."""
        try:
            with urllib.request.urlopen(f"http://{self.client}/health", timeout=2) as page:
                return json.load(page).get("health") == "true"
        except (OSError, ValueError):
            return False

    def metric(self, name):
        """The sum of a metric's values over its labels."""
        with urllib.request.urlopen(f"http://{self.client}/metrics", timeout=3) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[ {{]", line))

    def defragment(self):
        self.call("maintenance/defragment", 30)

    def wipe(self):
        """Its disc is lost. It must not run."""
        if self.running():
            raise ProgramError(f"{self.name} still runs")
        shutil.rmtree(self.data, ignore_errors=True)

    def end(self):
        self.sigcont()
        super().end()


class SlowDisc(Program):
    """While its `with` block lasts, each fdatasync of a program takes so much longer. `delayed()` counts them."""

    def __init__(self, program, seconds):
        self._log = os.path.join(programs.scratch("strace"), "log")
        super().__init__("/usr/bin/strace", "-f", "-q", "-p", program.pid, "-o", self._log, "-e", "trace=fdatasync", "-e",
                         f"inject=fdatasync:delay_enter={int(seconds * 1e6)}", label=f"slow-{program.label}")
        self._traced = program

    def start(self):
        super().start()
        eventually(self._attached, 10, f"strace is attached to {self._traced.label}")
        return self

    def _attached(self):
        if not self.running():
            raise ProgramError(f"strace ended\n{self.tail()}")
        with open(f"/proc/{self._traced.pid}/status", encoding="utf-8") as file:
            return re.search(r"^TracerPid:\s*(\d+)", file.read(), re.M).group(1) != "0"

    def delayed(self):
        try:
            with open(self._log, "rb") as file:
                return file.read().count(b"(DELAYED)")
        except FileNotFoundError:
            return 0

    def __exit__(self, *failure):
        self.kill(2)  # it lets go of the program
        with contextlib.suppress(ProgramError):
            self.wait(10)
        super().__exit__(*failure)


class Etcd:
    """A cluster of `count` members with the flags that Datawire asks for."""

    def __init__(self, count=3, *extra, quota_bytes=QUOTA_BYTES):
        self.quota_bytes, self.extra = quota_bytes, extra
        self.token = f"test-{os.getpid()}-{_ports.randrange(1 << 30)}"
        self.members = []
        self.members += [Member(f"etcd{number}", self) for number in range(1, count + 1)]

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, failure, *_):
        self.end()
        if failure is None:
            for member in self.members:
                member.check()

    def start(self):
        for member in self.members:
            if not member.running():
                member.start()
        return self.wait_healthy()

    def end(self):
        for member in self.members:
            member.end()

    def kill9(self):
        for member in self.members:
            member.kill9()

    @property
    def endpoints(self):
        """HOST:PORT,... for --etcd-endpoints."""
        return ",".join(member.client for member in self.members)

    def wait_healthy(self, deadline=30.0):
        """All members serve and agree about who leads."""
        def good():
            for member in self.members:
                if not member.running():
                    raise ProgramError(f"{member.name} does not run\n{member.tail()}")
            return all(member.healthy() for member in self.members) and \
                len({member.status()["leader"] for member in self.members}) == 1
        eventually(good, deadline, "all etcd members are healthy")
        return self

    def leader(self):
        """The member that leads, as a majority of those that answer in time says; None: nobody does."""
        votes, ids = [], {}
        for member in self.members:
            try:
                status = member.status()
            except EtcdError:
                continue
            ids[status["id"]] = member
            if status["leader"]:
                votes.append((status["term"], status["leader"]))
        return ids.get(max(votes)[1]) if len(votes) * 2 > len(self.members) else None

    def wait_leader(self, deadline=15.0, other_than=None):
        return eventually(lambda: (lambda one: one if one is not other_than else None)(self.leader()), deadline,
                          "an etcd member leads" + (f", not {other_than.name}" if other_than else ""))

    def followers(self):
        leader = self.wait_leader()
        return [member for member in self.members if member is not leader]

    def call(self, path, deadline=5.0, **request):
        """At the first member that answers; an answer may be EtcdError with a text."""
        end, last = time.monotonic() + deadline, None
        while time.monotonic() < end:
            for member in self.members:
                if not member.running():
                    continue
                try:
                    return member.call(path, 1.5, **request)
                except EtcdError as error:
                    last = error
                    if error.text and not re.search("timed out|leader|unhealthy cluster", error.text):
                        raise
            time.sleep(programs.POLL_SECONDS)
        raise last or EtcdError(path, "")

    # ---- keys

    def put(self, key, value):
        return int(self.call("kv/put", key=_text(key), value=_text(value))["header"]["revision"])

    def get(self, prefix):
        """{key: (value, mod revision)} of all keys that begin so, linearizable."""
        key = prefix.encode() if isinstance(prefix, str) else prefix
        said = self.call("kv/range", key=_text(key), range_end=_text(prefix_end(key)))
        return {base64.b64decode(one["key"]): (base64.b64decode(one.get("value", "")), int(one["mod_revision"]))
                for one in said.get("kvs", [])}

    def count(self, prefix):
        key = prefix.encode()
        return int(self.call("kv/range", key=_text(key), range_end=_text(prefix_end(key)), count_only=True).get("count", 0))

    def revision(self):
        """The cluster's, linearizable."""
        return int(self.call("kv/range", key=_text(b"\0"), count_only=True)["header"]["revision"])

    def compact(self, revision, physical=True):
        self.call("kv/compaction", 10, revision=str(revision), physical=physical)

    # ---- space

    def alarms(self):
        return [one["alarm"] for one in self.call("maintenance/alarm", action="GET").get("alarms", [])]

    def raise_no_space(self):
        """As if the first member had found its quota reached: all of them refuse what needs space."""
        self.call("maintenance/alarm", action="ACTIVATE", memberID=str(self.members[0].status()["id"]), alarm="NOSPACE")

    def disarm(self):
        for alarm in self.call("maintenance/alarm", action="GET").get("alarms", []):
            self.call("maintenance/alarm", action="DEACTIVATE", memberID=alarm["memberID"], alarm=alarm["alarm"])

    def free_space(self):
        """What an operator does when the quota is reached: compact, defragment each member, disarm."""
        with contextlib.suppress(EtcdError):  # compacted already
            self.compact(self.revision())
        for member in self.members:
            member.defragment()
        self.disarm()

    # ---- members

    def move_leader(self, to):
        self.wait_leader().call("maintenance/transfer-leadership", targetID=str(to.status()["id"]))

    def rebuild(self, member):
        """What an operator does when a member's disc is lost: take it out, put a new one in under its name and ports."""
        if member.running():
            member.kill9()
        for known in self.call("cluster/member/list")["members"]:
            if f"http://{member.peer}" in known["peerURLs"]:
                self.call("cluster/member/remove", 15, ID=known["ID"])
        member.wipe()
        self.call("cluster/member/add", 15, peerURLs=[f"http://{member.peer}"])
        member.state = "existing"
        member.start()
        return self.wait_healthy(60)

    # ---- backups

    def _etcdctl(self, *args):
        done = subprocess.run(["/usr/bin/etcdctl", *args], env=programs.environment({"ETCDCTL_API": "3"}), timeout=60,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EtcdError(f"etcdctl {' '.join(args)}", done.stderr.strip())

    def save_snapshot(self, path):
        self._etcdctl("--endpoints", self.members[0].client, "snapshot", "save", path)

    def restore_snapshot(self, path):
        """All members lose what they have and start from the file, as a new cluster."""
        self.kill9()
        self.token += "-restored"
        initial = ",".join(f"{one.name}=http://{one.peer}" for one in self.members)
        for member in self.members:
            member.wipe()
            member.state = "new"
            self._etcdctl("snapshot", "restore", path, "--name", member.name, "--data-dir", member.data, "--initial-cluster",
                          initial, "--initial-cluster-token", self.token, "--initial-advertise-peer-urls", f"http://{member.peer}")
        return self.start()
