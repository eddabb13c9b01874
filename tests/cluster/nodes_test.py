"""What nodes ask each other: a drain that waits for the subscribers of all, `dw status --cluster`, sessions of other nodes."""

import os
import re
import shutil
import urllib.request

from harness import cases, certificates, programs
from harness.api import Api, pb
from harness.cluster import Cluster
from harness.programs import Directory, Program, dw, dw_json, eventually

AT, ONE = "//demo/a", "amqp://127.0.0.1:5001"


def seen_everywhere(address, cluster):
    eventually(lambda: all(dw("resolve", address, directory=node).code in (0, 3) for node in cluster.nodes), 10)


class Nodes(cases.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(direct=True)
        cls.cluster.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None)

    def test_a_drain_waits_for_a_subscriber_of_another_node(self):
        one, two, _ = self.cluster.nodes
        with Api(one) as first, Api(two) as second:
            first.register((AT, ONE))
            seen_everywhere(AT, self.cluster)
            self.assertTrue(dw_json("drain", AT, "--acknowledged", directory=one)["acknowledged"])
            self.assertEqual(dw("drain", AT, "--undo", directory=one).code, 0)
            stream = second.subscribe(AT)  # reads and never acknowledges
            stream.receive_until(lambda m: m.answers)
            result = dw("drain", AT, "--acknowledged", "--timeout", "1s", directory=one)
            self.one_line(result, 6, AT, "127.0.0.1:", "at node n2")
            with Program("dw", "--directory", one.address, "drain", AT, "--acknowledged", "--timeout", "60s", label="drain") as drain:
                revision = dw_json("status", directory=one)["revision"]["number"]
                mark = stream.receive_until(lambda m: m.HasField("mark") and m.mark.revision.number >= revision)
                self.assertTrue(drain.running())
                stream.send(pb.SubscribeRequest(acknowledged=mark.mark.revision))
                self.assertEqual(drain.wait(20), 0)
            stream.close()
            first.withdraw((AT, ONE))

    def test_a_session_of_another_node_is_drained_until_the_subscribers_of_a_third_know(self):
        one, two, three = self.cluster.nodes
        at = "//demo/held"
        with Api(two) as second, Api(three) as third:
            tether = second.tether(program="p")
            session_id = tether.receive().welcome.session_id
            tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=1, registrations=[
                pb.TetherRequest.Registration(address=at, endpoint=pb.EndpointSpec(url=ONE))])))
            self.assertFalse(tether.receive().done.HasField("refusal"))
            seen_everywhere(at, self.cluster)
            stream = third.subscribe(at)
            stream.receive_until(lambda m: m.answers)
            self.one_line(dw("drain", session_id.hex(), "--acknowledged", "--timeout", "1s", directory=one), 6, "at node n3")
            stream.close()
            self.assertTrue(dw_json("drain", session_id.hex(), "--acknowledged", directory=one)["acknowledged"])
            tether.close()

    def test_more_registrations_than_a_transaction_of_etcd_takes_are_drained(self):
        one, two, three = self.cluster.nodes
        with Api(one) as api:
            pairs = [(AT, f"amqp://127.0.0.1:{port}") for port in range(6001, 6301)]
            for start in range(0, len(pairs), 50):
                api.register(*pairs[start:start + 50])
            # At another node, which may be behind.
            self.assertEqual(dw_json("drain", AT, "--acknowledged", directory=two)["registrations"], 300)
            eventually(lambda: dw("resolve", AT, directory=three).code == 3, 5)
            for start in range(0, len(pairs), 50):
                api.withdraw(*pairs[start:start + 50])

    def test_P16_replicas_are_compared_and_who_does_not_say_is_named(self):
        one, _, three = self.cluster.nodes
        with Api(one) as api:
            api.register((AT, ONE))
            compared = dw_json("cluster", "compare", directory=one)
            self.assertTrue(compared["equal"])
            self.assertEqual(list(compared["replicas"]), ["n1", "n2", "n3"])
            self.assertEqual(len(set(compared["replicas"].values())), 1)
            api.withdraw((AT, ONE))
            after = dw_json("cluster", "compare", directory=one)
            self.assertNotEqual(after["replicas"]["n1"], compared["replicas"]["n1"])
            three.sigstop()
            try:
                self.one_line(dw("cluster", "compare", "--timeout", "2s", directory=one), 4, "not compared in time: n3")
            finally:
                three.sigcont()
        with Directory() as alone:
            self.one_line(dw("cluster", "compare", directory=alone), 4, "nothing to compare with")
            self.one_line(dw("cluster", "forget", "n1", directory=alone), 4, "none to forget")
        for words in (("cluster", "forget"), ("cluster", "compare", "n1"), ("cluster", "forgot")):
            self.one_line(dw(*words, directory=one), 1, words[1])

    def test_sessions_are_shown_with_their_node_and_nothing_is_made_up(self):
        one, two, _ = self.cluster.nodes
        with Api(two) as api:
            tether = api.tether(program="p")
            session_id = tether.receive().welcome.session_id.hex()

            def shown(node):
                return [session for session in dw_json("session", "list", directory=node) if session["id"] == session_id]
            eventually(lambda: shown(one), 5)
            there, elsewhere = shown(two)[0], shown(one)[0]
            self.assertEqual((there["node"], there["attached"]), ("n2", True))
            self.assertIsInstance(there["seen_ms"], int)
            self.assertEqual([elsewhere[key] for key in ("node", "attached", "seen_ms", "remaining_ms")], ["n2", None, None, None])
            row = next(line for line in dw("session", "list", "-o", "wide", directory=one).stdout.splitlines() if session_id in line)
            self.assertNotIn(" 0 ms", row)
            self.assertIn(" n2 ", row)
            tether.close()

    def test_the_engines_figures_are_those_of_the_table(self):
        with open(os.path.join(os.environ["DATAWIRE_SOURCE"], "directory/ops/METRICS.md"), encoding="utf-8") as file:
            table = dict(re.findall(r"^\| `(datawire_etcd_\w+)` \| (\w+) \|", file.read(), re.MULTILINE))
        with urllib.request.urlopen(f"http://{self.cluster.nodes[0].http}/metrics", timeout=5) as page:
            shown = re.findall(r"^# TYPE (\w+) (\w+)$", page.read().decode(), re.MULTILINE)
        self.assertEqual({name: kind for name, kind in shown if name.startswith("datawire_etcd_")}, table)
        self.assertGreater(self.cluster.nodes[0].metric("datawire_etcd_transactions_total"), 0)
        self.assertTrue(all(name.startswith("datawire_") for name, _ in shown))


class Broken(cases.TestCase):
    def test_a_node_catches_up_with_what_it_missed_and_lists_where_that_is_too_much_for_one_response(self):
        with Cluster(direct=True) as cluster:
            one, two, away = cluster.nodes
            self.assertEqual(two.metric("datawire_etcd_listings_total"), 1)
            # With all labels that an endpoint may have: 45 MB.
            large = {f"{number:060}": "x" * 128 for number in range(16)}
            for labels, at_once, listings in (({}, 50, 0), (large, 20, 1)):
                away.stop(30)
                with Api(one) as api:
                    for start in range(0, 15_000, at_once):
                        api.register(*((f"//demo/{n}", ONE) for n in range(start, start + at_once)), labels=labels)
                away.start_again()
                eventually(away.is_ready, 60, "the node has caught up")
                self.assertEqual(away.metric("datawire_registrations"), 15_000)
                self.assertEqual(away.metric("datawire_etcd_listings_total"), listings)
            self.assertTrue(dw_json("cluster", "compare", "--timeout", "30s", directory=one)["equal"])

    def test_a_frozen_node_is_named_and_a_dead_one_is_not_waited_for_and_is_forgotten_once_it_lives_no_more(self):
        with Cluster(direct=True) as cluster:
            one, two, three = cluster.nodes
            with Api(one) as api:
                api.register((AT, ONE))
                self.assertTrue(dw_json("drain", AT, "--acknowledged", directory=two)["acknowledged"])  # they are connected now
                self.assertEqual(dw("drain", AT, "--undo", directory=two).code, 0)
                self.one_line(dw("cluster", "forget", "n3", directory=one), 1, "n3", "lives")
                with Api(three) as last:
                    held = last.tether(program="p", ttl_ms=60_000).receive().welcome
                three.sigstop()
                self.one_line(dw("drain", AT, "--acknowledged", "--timeout", "1s", directory=one), 6, AT, "node n3")
                with Program("dw", "--directory", two.address, "drain", AT, "--undo", "--acknowledged", "--timeout", "60s",
                             label="drain") as drain:
                    eventually(lambda: dw("resolve", AT, directory=one).code == 0, 10, "it is undone and waits for n3")
                    self.assertEqual(two.stop(), 0, "whatever it waits for")
                    self.assertEqual(drain.wait(10), 4)
                two.start_again()
                self.assertEqual(dw("drain", AT, directory=one).code, 0)
                three.kill9()
                self.assertEqual(dw("drain", AT, "--undo", "--acknowledged", "--timeout", "40s", directory=one, timeout=60).code, 0)
                api.withdraw((AT, ONE))
            # It is shown until somebody says that it stopped for good.
            self.one_line(dw("status", "--cluster", directory=one), 4, "node n3", "no lease")
            self.one_line(dw("cluster", "forget", "n4", directory=one), 2, "n4", "none of this cluster")
            forgotten = dw_json("cluster", "forget", "n3", directory=one)
            self.assertEqual(dw_json("cluster", "forget", "n3", directory=two), forgotten, "again changes nothing, on any node")
            self.assertEqual(dw("status", "--cluster", directory=one).code, 0)
            self.assertEqual([node["id"] for node in dw_json("status", "--cluster", directory=one)["nodes"]], ["n1", "n2"])
            entry = dw_json("audit", "tail", "-n", "1", directory=one)[0]
            self.assertEqual([entry[key] for key in ("verb", "node", "by", "revision")],
                             ["forget-node", "n3", entry["peer"], forgotten["revision"]])
            self.assertIn("127.0.0.1:", entry["peer"])
            with Api(one) as api:  # its sessions wait for who holds them, as ever
                resumed = api.tether(session_id=held.session_id, secret=held.secret, attach_number=2).receive()
                self.assertTrue(resumed.HasField("welcome") and resumed.welcome.resumed, resumed)
            three.start_again()
            eventually(lambda: [node["state"] for node in dw_json("status", "--cluster", code=None, directory=one)["nodes"]] ==
                       ["healthy"] * 3, 20, "it came back and is listed again")
            eventually(lambda: dw("cluster", "compare", directory=one).code == 0, 20, "all hold the same")

    def test_status_shows_every_node_and_etcd_member_and_what_is_wrong(self):
        with Cluster(direct=True) as cluster:
            one, _, three = cluster.nodes
            # Roles are taken one after the other as nodes join.
            eventually(lambda: {role for node in dw_json("status", "--cluster", code=None, directory=one)["nodes"]
                                for role in node["roles"]} == {"reaper", "compactor"}, 20)
            shown = dw_json("status", "--cluster", directory=one)
            self.assertEqual([(node["id"], node["address"], node["state"]) for node in shown["nodes"]],
                             [(node.node_id, node.address, "healthy") for node in cluster.nodes])
            self.assertEqual([member["state"] for member in shown["etcd"]], ["healthy"] * 3)
            self.assertEqual(sum(member["leader"] for member in shown["etcd"]), 1)
            for node in shown["nodes"]:
                self.assertLess(node["lag"], 1000)
                self.assertLess(node["age_ms"], 5000)
                self.assertFalse(node["quarantined"])
            text = dw("status", "--cluster", "-o", "wide", directory=one).stdout
            self.assertRegex(text, r"(?m)^NODE +ADDRESS +STATE +REVISION +LAG +AGE +SESSIONS +ROLES +VERSION")
            self.assertRegex(text, r"(?m)^ETCD +STATE +LEADER +VERSION")
            self.assertEqual(dw("status", "--cluster", "-o", "name", directory=one).stdout, "n1\nn2\nn3\n")
            self.assertEqual(len(dw("status", "--cluster", "-o", "jsonl", directory=one).stdout.splitlines()), 6)
            self.assertNotIn("fail ", dw("doctor", directory=one).stdout)

            three.sigstop()
            self.one_line(dw("status", "--cluster", directory=one), 4, "node n3 is unreachable")
            frozen = dw_json("status", "--cluster", code=4, directory=one)["nodes"][2]
            self.assertEqual((frozen["state"], frozen["address"], frozen["lag"]), ("unreachable", three.address, None))
            self.assertRegex(dw("doctor", directory=one).stdout, r"(?m)^fail +node +n3 ")
            three.sigcont()
            member = next(one for one in cluster.etcd.members if not one.leads())
            member.kill9()
            try:
                eventually(lambda: [node["state"] for node in dw_json("status", "--cluster", code=None, directory=one)["nodes"]] ==
                           ["healthy"] * 3, 20)
                self.one_line(dw("status", "--cluster", directory=one), 4, f"etcd {member.client}")
                etcd = dw_json("status", "--cluster", code=4, directory=one)["etcd"]
                self.assertEqual([at["endpoint"] for at in etcd if at["state"] == "unreachable"], [member.client])
            finally:
                member.start()
                cluster.etcd.wait_healthy()


class Certificates(cases.TestCase):
    """Nodes with certificates ask each other with them."""

    def setUp(self):
        self.ca = certificates.Authority(programs.scratch("ca"))
        self.next = certificates.Authority(programs.scratch("next-ca"), "next")
        folder = programs.scratch("node-files")
        self.files = certificates.Files(*(os.path.join(folder, "node." + kind) for kind in certificates.Files._fields))
        self.renew(self.ca)

    def renew(self, ca):
        """What all nodes show and trust is of this CA."""
        for source, target in zip(ca.issue("node"), self.files):
            shutil.copy(source, target + ".new")
            os.replace(target + ".new", target)
        self.me = ca.issue("operator")

    def dw(self, *args, directory):
        return dw(*args, *certificates.flags(self.me), directory=directory)

    def test_nodes_ask_each_other_with_certificates_and_take_renewed_ones_without_a_restart(self):
        with Cluster(*certificates.flags(self.files), direct=True) as cluster:
            one, two, _ = cluster.nodes
            status = self.dw("status", "--cluster", directory=one)
            self.assertEqual(status.code, 0, status.stdout + status.stderr)
            with Api(one, self.me) as first, Api(two, self.me) as second:
                first.register((AT, ONE))
                eventually(lambda: self.dw("resolve", AT, directory=two).code == 0, 10)
                self.assertEqual(self.dw("drain", AT, "--acknowledged", directory=one).code, 0)
                self.assertEqual(self.dw("drain", AT, "--undo", directory=one).code, 0)
                stream = second.subscribe(AT)  # reads and never acknowledges
                stream.receive_until(lambda m: m.answers)
                self.one_line(self.dw("drain", AT, "--acknowledged", "--timeout", "1s", directory=one), 6, "at node n2")
                stream.close()
            self.renew(self.next)
            two.stop()  # the connection to it is made anew, and it trusts the next CA only
            two.start_again()
            eventually(lambda: self.dw("status", "--cluster", directory=one).code == 0, 30, "nodes ask with renewed certificates")


if __name__ == "__main__":
    cases.main()
