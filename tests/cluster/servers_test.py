"""P15: an application that resolves 2,000 times a second sees no failed resolve while the server it is on is lost."""

import contextlib
import json
import time

from harness import cases
from harness.api import Api
from harness.chaos_proxy import ChaosProxy
from harness.cluster import Cluster
from harness.programs import Program, dw, eventually

RATE, ADDRESSES = 2000, [f"//load/a{i}" for i in range(50)]
COLD = [f"//load/cold/a{i}" for i in range(150)]  # below a subtree: each is a look-up of its own


class Resolves(Program):
    def __init__(self, servers):
        super().__init__("datawire-test-resolves", "--directory", ",".join(servers), "--addresses", ",".join(ADDRESSES),
                         "--rate", RATE, "--cold", ",".join(COLD), label="resolves")

    def servers(self):
        """Those its stream was on, in order."""
        return [line.split()[1] for line in self.output().splitlines() if line.startswith("on ")]

    def sums(self):
        return json.loads(self.output().splitlines()[-1].removeprefix("sums "))


class Servers(cases.TestCase):
    def lost(self, fault, servers, lose, heal, moves_within):
        """`lose` is called with the number of the server in use; the process moves on and no look-up fails."""
        with Resolves(servers) as process:
            eventually(process.servers, 20, "its stream is on a server")
            process.wait_for_line("^warm$", 20)
            number = servers.index(process.servers()[0])
            lose(number)
            try:
                eventually(lambda: len(process.servers()) > 1, moves_within, "it is on another server")
                time.sleep(2)  # at which nothing may fail either
                self.assertNotEqual(process.servers()[1], servers[number])
            finally:
                heal(number)
            self.assertEqual(process.stop(), 0)
            sums = process.sums()
            print(f"{fault}: {sums}")
            self.assertEqual(sums["failed"], 0, process.tail())
            self.assertGreater(sums["cold"], 0)
            # What is held is answered from there: nobody waited for a server.
            self.assertLess(sums["slowest_ms"], 1000)

    def test_p15_no_resolve_fails_while_a_server_is_killed_frozen_or_blackholed(self):
        with Cluster(direct=True) as cluster:
            nodes = cluster.nodes
            with Api(nodes[0]) as api:
                api.register(*((at, f"amqp://127.0.0.1:{5001 + i}") for i, at in enumerate(ADDRESSES)))
            self.assertEqual(dw("register", "--static", "--subtree", "//load/cold", "amqp://127.0.0.1:6001",
                                directory=nodes[0]).code, 0)
            eventually(lambda: all(dw("resolve", COLD[0], directory=node).code == 0 for node in nodes), 10)
            direct = [node.address for node in nodes]
            self.lost("killed", direct, lambda i: nodes[i].kill9(), lambda i: nodes[i].start_again(), 10)
            cluster.wait_ready()
            self.lost("frozen", direct, lambda i: nodes[i].sigstop(), lambda i: nodes[i].sigcont(), 25)
            cluster.wait_ready()
            with contextlib.ExitStack() as stack:
                proxies = [stack.enter_context(ChaosProxy(at)) for at in direct]
                self.lost("blackholed", [proxy.address for proxy in proxies], lambda i: proxies[i].blackhole(),
                          lambda i: proxies[i].heal(), 25)


if __name__ == "__main__":
    cases.main()
