"""Stories of a cluster, one each: how it begins, grows, is restored; what it does without a quorum, without space, and when a node dies
with sessions on it."""

import base64
import contextlib
import itertools
import os
import shutil
import subprocess
import time

import grpc

from harness import cases
from harness.api import Api, Failed, pb, refused
from harness.cluster import Cluster, Node
from harness.etcd import Etcd
from harness.programs import Directory, Program, dw, dw_json, eventually
from harness.sampling import Sampler, states
from harness.workers import Worker
from trial import Trial


def exit_line(test, node):
    """The one line of a node that refused to start."""
    node.start()
    try:
        test.assertEqual(node.wait(20), 1, node.tail())
    finally:
        node.end()
    return [line for line in node.output("stderr").splitlines() if line.startswith("datawire-directory: ")][-1]


def register(at, address, port=1, timeout="10s"):
    return dw("--timeout", timeout, "register", "--static", address, f"amqp://127.0.0.1:{port}", directory=at)


class Beginning(cases.TestCase):
    def test_only_init_makes_a_directory_and_only_in_an_etcd_of_its_own(self):
        with Etcd(1) as etcd:
            node = Node(0, etcd.endpoints)
            self.assertIn("--init", exit_line(self, node))
            etcd.put("foreign", "key")
            node.once = ("--init",)
            self.assertIn("foreign", exit_line(self, node))
            self.assertEqual(etcd.count("datawire/"), 0, "nothing was written beside it")
        with Etcd(1) as etcd:
            first, second = Node(0, etcd.endpoints), Node(1, etcd.endpoints)
            first.once = ("--init",)
            with first:
                second.once = ("--init",)
                self.assertIn("already", exit_line(self, second))
                with second:
                    self.assertEqual(register(first, "//d/a").code, 0)
                    eventually(lambda: dw("resolve", "//d/a", directory=second).code == 0, 10, "the second has it")

    def test_an_embedded_directory_becomes_a_cluster_with_all_it_had(self):
        exported = os.path.join(self.scratch(), "export")
        with Directory() as embedded:
            for number in range(300):
                self.assertEqual(register(embedded, f"//d/{number}").code, 0)
            with open(exported, "w", encoding="utf-8") as file:
                file.write(dw("export", directory=embedded).stdout)
            before = dw_json("status", directory=embedded)
        with Etcd(3) as etcd:
            first, second = Node(0, etcd.endpoints), Node(1, etcd.endpoints)
            first.once = ("--import", exported)
            with first, second:
                with Api(first) as one, Api(second) as two:
                    self.assertEqual(one.status().source.cluster_id, two.status().source.cluster_id)
                    self.assertIn(one.status().source.cluster_id, str(before))
                    self.assertEqual(one.status().source.epoch, 2)
                    for api in (one, two):
                        answers = api.resolve(*[f"//d/{number}" for number in range(300)]).answers
                        self.assertTrue(all(states(answer) == {"amqp://127.0.0.1:1": "up"} for answer in answers))
                self.assertEqual(register(second, "//d/new").code, 0)


class Restored(cases.TestCase):
    def test_a_node_that_finds_etcd_gone_back_ends_and_names_raise_epoch(self):
        with Etcd(1) as etcd:
            node = Node(0, etcd.endpoints)
            node.once = ("--init",)
            with node:
                saved = os.path.join(self.scratch(), "saved")
                etcd.save_snapshot(saved)
                for number in range(20):
                    self.assertEqual(register(node, f"//d/{number}").code, 0)
                etcd.restore_snapshot(saved)
                self.assertEqual(node.wait(20), 1)
                self.assertIn("--raise-epoch", node.output("stderr").splitlines()[-1])
                node.once = ("--raise-epoch",)
                node.start_again()
                with Api(node) as api:
                    self.assertEqual(api.status().source.epoch, 2)
                    self.assertEqual(len(api.list(prefix="//d").items), 0)


class Versions(cases.TestCase):
    """What a newer version may leave in etcd, as an older one meets it."""

    def setUp(self):
        self.etcd = Etcd(1)
        self.etcd.__enter__()
        self.addCleanup(self.etcd.__exit__, None)
        self.nodes = Node(0, self.etcd.endpoints), Node(1, self.etcd.endpoints)
        self.nodes[0].once = ("--init",)
        for node in self.nodes:
            node.__enter__()
            self.addCleanup(node.end)
        self.assertEqual(register(self.nodes[0], "//d/a").code, 0)

    def equal(self):
        return dw("cluster", "compare", directory=self.nodes[0]).code == 0

    def test_kinds_of_keys_that_a_node_does_not_know_change_nothing_there(self):
        self.etcd.put(b"datawire/r/d\0a", "not what a row is")  # what only views have, at the row of //d/a
        self.etcd.put("datawire/z/new", "of a later version")
        self.assertEqual(register(self.nodes[0], "//d/b").code, 0)  # after these, on both
        for node in self.nodes:
            eventually(lambda at=node: states_at(at, "//d/b"), 10)
            self.assertEqual(states_at(node, "//d/a"), {"amqp://127.0.0.1:1": "up"})
        self.nodes[1].stop()
        self.nodes[1].start_again()
        self.assertEqual(states_at(self.nodes[1], "//d/a"), {"amqp://127.0.0.1:1": "up"})
        eventually(self.equal, 20)

    def test_a_raised_format_ends_nodes_that_do_not_know_it_before_they_read_on(self):
        (authority, _), = self.etcd.get("datawire/m/epoch").values()
        self.etcd.put("datawire/m/epoch", authority + b"\x20\x02")  # Authority.format, the later one counts
        self.etcd.put("datawire/d/of a kind that is read otherwise", "")
        for node in self.nodes:
            self.assertEqual(node.wait(20), 1, node.tail())
            self.assertIn("format 2, this program knows formats up to 1", node.output("stderr").splitlines()[-1])
            self.assertIn("format 2", exit_line(self, node))
        # What was there before it still is, as new nodes find once it is as it was.
        self.etcd.call("kv/deleterange", key=base64.b64encode(b"datawire/d/of a kind that is read otherwise").decode())
        self.etcd.put("datawire/m/epoch", authority)
        for node in self.nodes:
            shutil.rmtree(node.data)
            node.start_again()
            self.assertEqual(states_at(node, "//d/a"), {"amqp://127.0.0.1:1": "up"})
        eventually(self.equal, 20)

    def test_fields_that_a_node_does_not_know_outlive_what_it_does_with_the_record(self):
        later = b"\xfa\x7f\x05later"  # field 2047, as a later version may have it

        def record():
            (key, (value, _)), = self.etcd.get("datawire/d/d\0").items()
            return key, value
        key, value = record()
        self.etcd.put(key, value + later)
        eventually(self.equal, 20)
        self.assertEqual(dw("drain", "//d/a", directory=self.nodes[0]).code, 0)
        self.assertEqual(states_at(self.nodes[0], "//d/a"), {"amqp://127.0.0.1:1": "draining"})
        self.assertNotEqual(record()[1], value + later, "it was written")
        self.assertIn(later, record()[1])
        eventually(self.equal, 20)


class Upgrade(cases.TestCase):
    def test_a_rolling_restart_to_another_version_and_back_under_load_loses_nothing_and_expires_nobody(self):
        with Trial(self, 1) as trial:
            for program in ("datawire-test-later-directory", "datawire-directory"):
                for number, node in enumerate(trial.nodes, 1):
                    node.stop(30)
                    node.program = program
                    node.start_again()
                    trial.settle()
                    versions = {n["id"]: n["version"] for n in dw_json("status", "--cluster", directory=node)["nodes"]}
                    self.assertEqual(len(set(versions.values())), 1 if number == 3 else 2, versions)
                    if number == 1:
                        self.assertIn("99.0.0", dw("doctor", directory=node).stdout)
            trial.finish()


class WithoutQuorum(cases.TestCase):
    def test_P6_P16_a_minority_acknowledges_nothing_says_stale_and_expires_nobody(self):
        with Cluster(direct=True) as cluster:
            self.assertEqual(register(cluster.nodes[0], "//d/a").code, 0)
            node = cluster.nodes[2]
            with Api(node) as api:
                tether = api.tether(ttl_ms=3000)
                self.assertTrue(tether.receive().HasField("welcome"))
                spec = pb.TetherRequest.Registration(address="//d/held", endpoint=pb.EndpointSpec(url="amqp://127.0.0.1:9"))
                tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=1, registrations=[spec])))
                self.assertFalse(tether.receive_until(lambda message: message.HasField("done")).done.HasField("refusal"))
                for member in cluster.etcd.members[:2]:
                    member.kill9()
                begun = time.monotonic()
                with self.assertRaises(Failed) as failed:
                    api.resolve("//d/a", consistency=pb.CONSISTENCY_LINEARIZABLE)
                self.assertLess(time.monotonic() - begun, 5)
                self.assertNotEqual(failed.exception.code, grpc.StatusCode.OK)
                said = register(node, "//d/b", timeout="3s")
                self.assertNotEqual(said.code, 0, said)
                eventually(lambda: dw_json("resolve", "//d/a", directory=node)["stale"], 15, "answers say stale")
                self.assertEqual(dw("resolve", "//d/a", directory=node).code, 0, "and are given")
                # The process is silent for much more than its TTL: no fault of its own, as far as the directory knows.
                eventually(lambda: time.monotonic() - begun > 12, 20)
                self.assertEqual(states(api.resolve("//d/held").answers[0]), {"amqp://127.0.0.1:9": "up"})
                for member in cluster.etcd.members[:2]:
                    member.start()
                cluster.etcd.wait_healthy()
                cluster.wait_ready()
                back = time.monotonic()  # from here on it has the grace of 60 s
                eventually(lambda: time.monotonic() - back > 8, 20)
                self.assertEqual(states(api.resolve("//d/held").answers[0]), {"amqp://127.0.0.1:9": "up"})
                for one in cluster.nodes:
                    self.assertEqual(one.metric("datawire_sessions_expired_total"), 0)
            eventually(lambda: len({dw("list", "//d", "-o", "json", directory=one).stdout for one in cluster.nodes}) == 1, 10,
                       "all nodes show the same")


class Behind(cases.TestCase):
    """A node that is a little behind the others says so, or waits; it never decides by what it does not know yet."""

    def setUp(self):
        cluster = Cluster()
        cluster.__enter__()
        self.addCleanup(cluster.__exit__, None, None, None)
        self.one, self.other = (Api(node) for node in cluster.nodes[:2])
        self.addCleanup(self.one.__exit__)
        self.addCleanup(self.other.__exit__)
        for proxy in cluster.proxies[1]:
            proxy.delay(0.15)

    def register(self):
        """At a node that is ahead; the revision."""
        return self.one.register(("//d/a", "amqp://127.0.0.1:1")).revision

    def test_P5_it_shows_what_another_acknowledged_to_who_asks_for_it(self):
        at = self.register()
        self.assertEqual(states(self.other.resolve("//d/a", min_revision=at).answers[0]), {"amqp://127.0.0.1:1": "up"})

    def test_P6_it_shows_what_another_acknowledged_to_who_wants_the_latest(self):
        self.register()
        answer = self.other.resolve("//d/a", consistency=pb.CONSISTENCY_LINEARIZABLE).answers[0]
        self.assertEqual(states(answer), {"amqp://127.0.0.1:1": "up"})

    def test_it_replaces_what_another_acknowledged(self):
        self.register()
        self.other.register(("//d/a", "amqp://127.0.0.1:1"), weight=7)
        endpoints = self.other.resolve("//d/a").answers[0].row.endpoints
        self.assertEqual([endpoint.weight for endpoint in endpoints], [7])

    def test_it_withdraws_what_another_acknowledged(self):
        self.register()
        self.assertEqual(self.other.withdraw(("//d/a", "amqp://127.0.0.1:1")).withdrawn, 1)

    def test_it_drains_what_another_acknowledged(self):
        self.register()
        self.assertEqual(self.other.drain(address="//d/a").drained, 1)

    def test_it_ends_a_session_that_another_opened(self):
        session_id = self.one.tether(ttl_ms=3000).receive().welcome.session_id
        self.other.end_session(session_id)
        self.assertTrue(self.other.sessions(id=session_id).sessions[0].ended)

    def test_a_session_that_moves_to_it_at_once_is_resumed(self):
        welcome = self.one.tether(ttl_ms=3000).receive().welcome
        taken = self.other.tether(session_id=welcome.session_id, secret=welcome.secret, attach_number=2)
        answer = taken.receive()
        self.assertTrue(answer.HasField("welcome") and answer.welcome.resumed, answer)


class Dying(cases.TestCase):
    def test_P9_P10_a_process_stays_up_when_its_node_dies_and_goes_when_it_dies_with_it(self):
        with Cluster(direct=True) as cluster:
            first, *rest = cluster.nodes
            with Worker(cluster.addresses, "//d/work", ttl_ms=3000, label="lives") as lives, \
                    Worker(first, "//d/work", ttl_ms=3000, label="dies") as dies:
                both = {lives.ready().url, dies.ready().url}
                with Sampler(rest[0], ["//d/work"]) as sampler:
                    eventually(lambda: set(sampler.last("//d/work")) == both, 10, "both are seen")
                    at = time.monotonic()
                    first.kill9()
                    dies.kill9()
                    eventually(lambda: set(sampler.last("//d/work")) == {lives.url}, 75, "the dead one goes, the live one stays")
                    took = time.monotonic() - at
                    self.assertGreater(took, 10, "not before its node is known to be dead")
                    gone = [shown for _, shown in sampler.samples if shown and shown["//d/work"].get(lives.url) != "up"]
                    self.assertEqual(gone, [], "the live one was up all the time")
                print(f"the dead one was gone after {took:.1f} s", flush=True)
                first.start_again()
                eventually(lambda: states_at(first, "//d/work") == {lives.url: "up"}, 10, "and on the node that died, too")


class Quickstart(cases.TestCase):
    """The story of deploy/quickstart on a cluster, whose every node and every etcd member is killed once, two at a time."""

    COUNT, RATE, KILL_AFTER = 1200, 200, 200  # messages, of each round

    def test_P15_with_a_node_and_an_etcd_member_killed_no_send_fails_and_no_registration_is_lost(self):
        with Cluster(direct=True) as cluster, contextlib.ExitStack() as stack:
            directory = {"DATAWIRE_DIRECTORY": cluster.addresses}
            processed = os.path.join(self.scratch(), "processed")

            def serve(program, *args):
                service = stack.enter_context(Program("datawire-example-" + program, *args, env=directory))
                return service.wait_for_line(r" at (amqp://\S+)$", 20, "stderr").group(1)
            up = {"//demo/printer": {serve("printer", "//demo/printer", processed)},
                  "//demo/upper": {serve("upper", "//demo/upper", "//demo/printer") for _ in range(2)}}
            for number in range(3):
                with self.subTest(number=number), Sampler(cluster.nodes[(number + 1) % 3], up) as sampler:
                    self.round(cluster, number, directory, processed, up, sampler)
            for number, node in itertools.product(range(3), cluster.nodes):
                eventually(lambda at=node, of=f"//demo/kept/{number}": states_at(at, of) == {"amqp://127.0.0.1:1": "up"}, 10)

    def round(self, cluster, number, directory, processed, up, sampler):
        node, member = cluster.nodes[number], cluster.etcd.members[(number + 2) % 3]
        eventually(lambda: all(sampler.last(address) == dict.fromkeys(urls, "up") for address, urls in up.items()), 20)
        with open(processed, "w", encoding="utf-8"):  # ids begin anew with each sender
            since, accepted = time.monotonic(), os.path.join(self.scratch(), "accepted")
        with Program("datawire-example-sender", "//demo/upper", self.COUNT, self.RATE, accepted, env=directory) as sender:
            eventually(lambda: len(ids(accepted)) >= self.KILL_AFTER, 30, "the stream flows")
            led = member.leads()
            node.kill9()
            member.kill9()
            self.assertTrue(sender.running())
            self.assertEqual(register(cluster.addresses, f"//demo/kept/{number}").code, 0)
            with Program("dw", "send", "//demo/upper", "late", "--timeout", "10s", env=directory) as late:  # it knows of no fault
                self.assertEqual(late.wait(20), 0, late.tail())
            self.assertEqual(sender.wait(60), 0, sender.tail())
        self.assertEqual(len(ids(accepted)), self.COUNT)
        self.assertLessEqual(ids(accepted), ids(processed))
        lost = [(moment, shown) for moment, shown in sampler.samples if moment > since and (
            shown is None or any(shown[address] != dict.fromkeys(urls, "up") for address, urls in up.items()))]
        self.assertEqual(lost[:3], [], f"{len(lost)} of {len(sampler.samples)} looks")
        member.start()
        node.start_again()
        cluster.wait_ready()
        cluster.etcd.wait_healthy()
        print(f"killed: {node.node_id} and {member.name}{', which led' if led else ''}; {len(sampler.samples)} looks", flush=True)


def ids(path):
    """Of messages, one a line."""
    if not os.path.exists(path):
        return set()
    with open(path, encoding="utf-8") as file:
        return set(file.read().split())


def states_at(node, address):
    with Api(node) as api:
        return states(api.resolve(address).answers[0])


class NoSpace(cases.TestCase):
    def test_P20_a_quota_that_is_reached_stops_registrations_only_until_there_is_space(self):
        with Cluster(direct=True, members=1, quota_bytes=24 << 20) as cluster:
            node, pairs = cluster.nodes[0], [(f"//fill/{one}", "amqp://127.0.0.1:1") for one in range(15)]
            with Api(node) as api:
                done = 0
                with refused(self, grpc.StatusCode.RESOURCE_EXHAUSTED) as full:
                    for done in range(20_000):  # the same ones, over and over: what fills etcd is their past
                        api.register(*pairs, labels={f"label{number}": f"{done}-{'x' * 100}" for number in range(15)})
                self.assertIn("space", full.failure.message)
                self.assertEqual(cluster.etcd.alarms(), ["NOSPACE"])
                self.assertEqual(states_at(cluster.nodes[1], "//fill/0"), {"amqp://127.0.0.1:1": "up"})
                api.withdraw(*pairs)
                eventually(lambda: states_at(cluster.nodes[1], "//fill/0") == {}, 10, "a withdrawal went through")
                self.assertEqual(cluster.etcd.alarms(), ["NOSPACE"], "in spite of it")
                self.one_line(dw("status", "--cluster", directory=node), 4, "quota is reached", "dw doctor")
                found = [one for one in dw_json("doctor", code=4, directory=node) if one["check"] == "etcd" and one["result"] == "fail"]
                self.assertEqual(len(found), 1, found)
                done = subprocess.run(found[0]["remedy"], shell=True, capture_output=True, text=True, timeout=120, check=False)
                self.assertEqual(done.returncode, 0, done)
                eventually(lambda: register(node, "//d/a").code == 0, 20, "writable again, without a restart")
                self.assertEqual(cluster.etcd.alarms(), [])
            print(f"{done} times 15 registrations fitted", flush=True)


if __name__ == "__main__":
    cases.main()
