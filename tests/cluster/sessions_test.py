"""Sessions between the nodes of a cluster: resumed on any, ended by any, of a dead node by the reaper, and by nothing that etcd
does to itself. CLUSTER_SESSIONS=100000 CLUSTER_TTL=60s is what soak has over a stall of etcd's leader."""

import contextlib
import os
import threading
import time

from harness import cases
from harness.cluster import Cluster
from harness.etcd import EtcdError, SlowDisc
from harness.programs import Program, dw, dw_json, eventually

SESSIONS = int(os.environ.get("CLUSTER_SESSIONS", "1000"))
TTL = os.environ.get("CLUSTER_TTL", "5s")
STALL = 12  # seconds: longer than an etcd lease of a node, and than TTL
WATCHED = 90


def held(address, url, *nodes, ttl="15s"):
    """`dw register` at these nodes."""
    return Program("dw", "--directory", ",".join(node.address for node in nodes), "register", address, url, "--ttl", ttl,
                   label=f"register-{url.rsplit(':', 1)[1]}")


def split(cluster, holder):
    """The node at which its session was opened, and the others."""
    name = holder.wait_for_line("session opened at node (n[0-9])", 20, "stderr").group(1)
    holder.wait_for_line("^registered", 20)
    one = next(node for node in cluster.nodes if node.node_id == name)
    return [one] + [node for node in cluster.nodes if node is not one]


def states(node, address):
    """{url: state} of an answer."""
    answer = dw_json("resolve", address, directory=node, code=None)
    return {one["url"]: one["state"] for one in answer["endpoints"]}


class Leases:
    """Leases of etcd, renewed through one member: what a session would be without a directory."""

    def __init__(self, etcd, count, seconds):
        self._etcd, self._member, self._every = etcd, etcd.members[0], seconds / 3
        self._ids = [etcd.call("lease/grant", TTL=seconds)["ID"] for _ in range(count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def renew_through(self, member):
        self._member = member

    def _renew(self):
        while not self._stop.wait(self._every):
            for lease in self._ids:
                with contextlib.suppress(EtcdError):
                    self._member.call("lease/keepalive", ID=lease)

    def lost(self):
        """How many are no more."""
        return sum(int(self._etcd.call("lease/timetolive", ID=lease).get("TTL", -1)) <= 0 for lease in self._ids)


class Sessions(cases.TestCase):
    def test_a_registration_is_seen_on_every_node_and_a_withdrawal_too(self):
        with Cluster() as cluster:
            one, two, three = cluster.nodes
            with held("//demo/a", "amqp://127.0.0.1:5001", one) as holder:
                holder.wait_for_line("^registered", 20)
                for node in (two, three):
                    eventually(lambda: states(node, "//demo/a") == {"amqp://127.0.0.1:5001": "up"}, 5)
                self.assertEqual(dw("withdraw", "//demo/a", directory=three).code, 2, "of a session: not an operator's")
                holder.kill(2)
                self.assertEqual(holder.wait(10), 130)
            for node in (one, two, three):
                eventually(lambda: states(node, "//demo/a") == {}, 5)

    def test_P15_a_killed_node_loses_no_session_it_goes_on_at_another(self):
        with Cluster() as cluster:
            with held("//demo/a", "amqp://127.0.0.1:5001", *cluster.nodes) as holder:
                one, two, three = split(cluster, holder)
                before = dw_json("session", "list", directory=two)
                one.kill9()
                holder.wait_for_line("session resumed at node", 20, "stderr")
                after = dw_json("session", "list", directory=three)
                self.assertEqual([session["id"] for session in before], [session["id"] for session in after])
                one.start_again()
                # Its time there is counted on; nobody ends it for the dead node.
                deadline = time.monotonic() + 50
                while time.monotonic() < deadline:
                    self.assertEqual(states(three, "//demo/a"), {"amqp://127.0.0.1:5001": "up"})
                    time.sleep(1)

    def test_P9_a_process_that_died_with_its_node_is_gone_after_the_reapers_time(self):
        with Cluster() as cluster:
            one, two, three = cluster.nodes
            with held("//demo/a", "amqp://127.0.0.1:5001", one, ttl="3s") as holder, \
                    held("//demo/a", "amqp://127.0.0.1:5002", two) as other:
                holder.wait_for_line("^registered", 20)
                other.wait_for_line("^registered", 20)
                began = time.monotonic()
                holder.kill9()
                one.kill9()
                eventually(lambda: states(three, "//demo/a") == {"amqp://127.0.0.1:5002": "up"}, 75)
                self.assertGreater(time.monotonic() - began, 25, "an orphan has 30 s")
                one.start_again()

    def test_any_node_ends_and_drains_the_sessions_of_another(self):
        with Cluster() as cluster:
            one, two, three = cluster.nodes
            with held("//demo/a", "amqp://127.0.0.1:5001", one) as holder:
                holder.wait_for_line("^registered", 20)
                session = eventually(lambda: dw_json("session", "list", directory=three), 5)[0]["id"]
                self.assertEqual(dw("drain", session, directory=two).code, 0)
                eventually(lambda: states(one, "//demo/a") == {"amqp://127.0.0.1:5001": "draining"}, 5)
                self.assertEqual(dw("drain", session, "--undo", directory=three).code, 0)
                eventually(lambda: states(one, "//demo/a") == {"amqp://127.0.0.1:5001": "up"}, 5)
                self.assertEqual(dw("session", "end", session, directory=two).code, 0)
                holder.wait_for_line("session opened", 20, "stderr")  # its holder opens a new one
                eventually(lambda: [s["id"] for s in dw_json("session", "list", directory=three)] not in ([], [session]), 10)

    def test_P13_an_older_attach_is_refused_whatever_node_it_reaches(self):
        with Cluster() as cluster:
            with held("//demo/a", "amqp://127.0.0.1:5001", *cluster.nodes) as holder:
                one, two, _ = split(cluster, holder)
                # Frozen together with the node it is at: it wakes up when another holds its session.
                first = dw_json("session", "list", directory=two)[0]
                self.assertEqual(first["pid"], holder.pid)
                one.sigstop()
                holder.wait_for_line("session resumed at node", 30, "stderr")
                one.sigcont()
                eventually(lambda: one.is_ready(), 20)
                eventually(lambda: states(one, "//demo/a") == {"amqp://127.0.0.1:5001": "up"}, 10)
                self.assertEqual(states(two, "//demo/a"), {"amqp://127.0.0.1:5001": "up"})


def freeze(_, leader):
    leader.sigstop()
    time.sleep(STALL)
    leader.sigcont()


def stall_disc(cluster, leader):
    with SlowDisc(leader, STALL) as slow:
        dw("register", "--static", "//demo/synced", "amqp://127.0.0.1:1", directory=cluster.addresses)
        time.sleep(STALL)
        eventually(slow.delayed, 10, "a sync of the leader took that long")


class Stalls(cases.TestCase):
    def test_P10_a_frozen_leader_takes_the_nodes_leases_and_no_session(self):
        self.stalls(freeze)

    def test_P10_a_leader_with_a_stalled_disc_takes_the_nodes_leases_and_no_session(self):
        self.stalls(stall_disc)

    def stalls(self, stall):
        with Cluster() as cluster:
            three = cluster.nodes[2]
            control = Leases(cluster.etcd, 20, 5)
            fill = Program("dw", "--directory", cluster.addresses, "bench", "fill", "--endpoints", SESSIONS, "--sessions", SESSIONS,
                           "--ttl", TTL, "--hold", label="fill")

            def lost():
                return sum(node.metric("datawire_etcd_leases_lost_total") for node in cluster.nodes)
            with fill, control:
                eventually(lambda: three.metric("datawire_sessions") == SESSIONS, 600, "all sessions are open")
                self.assertEqual(control.lost(), 0)
                # A leader that wakes up revokes what it holds for expired, unless it hears first that it leads no more. A stall
                # without a lost lease was not the fault this is about: it does not count.
                for _ in range(5):
                    leader = cluster.etcd.wait_leader()
                    control.renew_through(next(member for member in cluster.etcd.members if member is not leader))
                    stall(cluster, leader)
                    eventually(lambda: all(node.is_ready() for node in cluster.nodes), 30)
                    eventually(lambda: leader.status()["leader"] == cluster.etcd.wait_leader().status()["id"], 10)
                    with contextlib.suppress(AssertionError):
                        eventually(lambda: control.lost() and lost(), 5)
                        break
                deadline = time.monotonic() + WATCHED
                while time.monotonic() < deadline:
                    self.assertEqual((three.metric("datawire_sessions"), three.metric("datawire_sessions_suspect")), (SESSIONS, 0))
                    time.sleep(1)
                self.assertTrue(fill.running(), fill.tail())
                self.assertEqual(sum(node.metric("datawire_sessions_expired_total") for node in cluster.nodes), 0)
                self.assertGreater(control.lost(), 0, "the control: leases that were renewed through a healthy follower")
                self.assertGreater(lost(), 0, "leases of nodes")


if __name__ == "__main__":
    cases.main()
