"""A cluster for tests: three etcd members, three directory nodes, and a proxy on each way from a node to a member.

    with Cluster() as cluster:
        cluster.nodes[0].address
        cluster.proxies[0][2].blackhole()   # nothing passes between node 0 and member 2
        cluster.heal()
        cluster.wait_ready()
"""

import contextlib
import re
import shutil
import urllib.error
import urllib.request

from harness.chaos_proxy import ChaosProxy
from harness.etcd import QUOTA_BYTES, Etcd, free_port
from harness.programs import Directory, ProgramError, binary, eventually


class Node(Directory):
    """A directory node on an etcd; its ports stay over starts. `once`: flags for the next start only; `program`: what is started."""

    def __init__(self, number, endpoints, *args):
        super().__init__(*args, node_id=f"n{number + 1}")
        self.endpoints, self.once = endpoints, ()
        self.program = "datawire-directory"
        self._ports = free_port(), free_port()

    def command(self):
        once, self.once = self.once, ()
        return [binary(self.program), "--engine", "etcd", "--etcd-endpoints", self.endpoints, "--data", self.data, "--node-id",
                self.node_id, "--listen", f"{self.host}:{self._ports[0]}", "--http-listen", f"127.0.0.1:{self._ports[1]}",
                *once, *self.extra]

    @property
    def address(self):
        return f"{self.host}:{self._ports[0]}"

    @property
    def http(self):
        return f"127.0.0.1:{self._ports[1]}"

    def is_ready(self):
        """Its /readyz says so."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=1) as page:
                return page.status == 200
        except OSError:
            return False

    def why_not(self):
        """What its /readyz says, empty if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=1) as page:
                return page.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()
        except OSError:
            return ""

    def metrics(self):
        """{name, with labels: value}; empty if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=2) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return {}
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line and line[0] != "#"}

    def metric(self, name):
        """The sum of a metric over its labels; 0 if it is not there."""
        return sum(value for key, value in self.metrics().items() if re.match(rf"{name}($|{{)", key))

    def start_again(self, keep_port=True):
        self.start()
        return self.ready()


class Cluster:
    """`members` etcd members and three nodes; `direct`: without proxies."""

    def __init__(self, *args, members=3, direct=False, quota_bytes=QUOTA_BYTES):
        self.etcd = Etcd(members, quota_bytes=quota_bytes)
        self._args, self._direct = args, direct
        self.proxies, self.nodes = [], []  # proxies[node][member]
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        try:
            self._stack.enter_context(self.etcd)
            for number in range(3):
                order = [(number + step) % len(self.etcd.members) for step in range(len(self.etcd.members))]
                mine = {member: self._stack.enter_context(ChaosProxy(self.etcd.members[member].client)) for member in order
                        if not self._direct}
                self.proxies.append([mine[member] for member in sorted(mine)])
                at = [self.etcd.members[member].client if self._direct else mine[member].address for member in order]
                node = Node(number, ",".join(at), *self._args)
                node.once = ("--init",) if number == 0 else ()
                self.nodes.append(self._stack.enter_context(node))
            return self.wait_ready()
        except BaseException:
            self._stack.__exit__(ProgramError, None, None)
            raise

    def __exit__(self, failure, *_):
        if failure is None:
            self.heal()
        return self._stack.__exit__(failure, *_)

    @property
    def addresses(self):
        """HOST:PORT,... of the nodes."""
        return ",".join(node.address for node in self.nodes)

    def wait_ready(self, deadline=60.0):
        def good():
            for node in self.nodes:
                if not node.running():
                    raise ProgramError(f"{node.label} does not run\n{node.tail()}")
            return all(node.is_ready() for node in self.nodes)
        eventually(good, deadline, "all nodes are ready")
        return self

    def heal(self):
        for proxies in self.proxies:
            for proxy in proxies:
                proxy.heal()

    def wipe(self, node):
        """Its disc is lost. It must not run."""
        if node.running():
            raise ProgramError(f"{node.label} still runs")
        shutil.rmtree(node.data, ignore_errors=True)
