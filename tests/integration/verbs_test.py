"""dw and the real server: policies, sessions, drains, history."""

import json
import signal
import time

import grpc

from harness import cases, programs
from harness.api import pb, refused, WithDirectory
from harness.programs import Program, dw, dw_json, eventually

ONE, TWO = "amqp://127.0.0.1:5001", "amqp://127.0.0.1:5002"


class Case(WithDirectory, cases.TestCase):
    """One directory for the class; each test has its own domain."""
    counter = 0

    def setUp(self):
        Case.counter += 1
        self.domain = f"//v{Case.counter}"

    def dw(self, *args, **options):
        return dw(*args, directory=self.directory, **options)

    def json(self, *args, **options):
        return dw_json(*args, directory=self.directory, **options)

    def started(self, *args):
        """A verb that waits."""
        return Program("dw", "--directory", self.directory.address, *args, label=f"dw-{args[0]}")


class Policies(Case):
    def policy_of(self, address):
        return json.loads(self.dw("resolve", address, "-o", "json").stdout)["policy"]

    def test_set_get_and_unset_in_every_format(self):
        at = f"{self.domain}/web"
        self.api.register((at, ONE))
        self.assertRegex(self.dw("policy", "set", at, "ordered").stdout, rf"^policy {at}  ordered  revision \d+:\d+\n$")
        self.assertEqual(self.policy_of(at), "ordered")
        shown = self.json("policy", "get", at)
        self.assertEqual(list(shown), ["address", "policy", "own", "by", "at_wall_ms", "revision"])
        self.assertEqual((shown["address"], shown["policy"], shown["own"]), (at, "ordered", "ordered"))
        self.assertRegex(shown["by"], r"^127\.0\.0\.1:\d+$")
        self.assertEqual([line.split()[:3] for line in self.dw("policy", "get", at).stdout.splitlines()],
                         [["ADDRESS", "POLICY", "OWN"], [at, "ordered", "ordered"]])
        self.assertEqual(self.dw("policy", "get", at, "-o", "short").stdout, "ordered\n")
        self.assertEqual(self.dw("policy", "set", at, "consistent", "-o", "name").stdout, at + "\n")
        self.assertEqual(self.dw("policy", "set", at, "consistent", "-o", "short").stdout, "consistent\n")
        self.assertIn("consistent", self.dw("list", self.domain).stdout)
        gone = self.json("policy", "unset", at)
        self.assertEqual((list(gone), gone["own"]), (["address", "own", "revision"], None))
        self.assertEqual(self.policy_of(at), "balanced")
        shown = self.json("policy", "get", at)
        self.assertEqual((shown["policy"], shown["own"]), ("balanced", None))
        self.one_line(self.dw("policy", "unset", at), 2, at)

    def test_what_is_no_policy_is_1_with_the_value_and_the_rule_and_changes_nothing(self):
        at = f"{self.domain}/web"
        before = self.api.status().revision
        self.one_line(self.dw("policy", "set", at, "random"), 1, "`random`", "balanced, ordered, consistent")
        self.one_line(self.dw("policy", "put", at), 1, "`put`", "set, get, unset")
        self.one_line(self.dw("policy", "set", at), 1, "POLICY")
        self.one_line(self.dw("policy", "get", at, "ordered"), 1, "ADDRESS alone")
        self.one_line(self.dw("policy", "set", "web", "ordered"), 1, "`web`")
        with refused(self, grpc.StatusCode.INVALID_ARGUMENT) as why:
            self.api.set_policy(at, 7)
        self.assertIn("policy 7", why.failure.message)
        self.assertEqual(self.api.status().revision, before)

    def test_a_policy_alone_is_no_endpoint(self):
        at = f"{self.domain}/planned"
        self.api.set_policy(at, pb.POLICY_ORDERED)
        self.one_line(self.dw("resolve", at), 3, "NO_ENDPOINT")
        self.assertIn("policy ordered", self.dw("explain", at).stdout)
        self.dw("policy", "unset", at)
        self.one_line(self.dw("resolve", at), 2, "NOT_FOUND")

    def test_a_subscription_is_pushed_the_policy_also_of_the_subtree_that_answers(self):
        at = f"{self.domain}/a"
        self.api.register((at, ONE), match=pb.MATCH_SUBTREE)
        stream = self.api.subscribe(f"{at}/b")
        stream.receive_until(lambda m: m.answers)
        for where, policy in ((at, pb.POLICY_ORDERED), (f"{at}/b", pb.POLICY_CONSISTENT)):
            self.dw("policy", "set", where, pb.Policy.Name(policy)[7:].lower())
            answer = stream.receive_until(lambda m: m.answers).answers[0]
            self.assertEqual((answer.address, answer.matched, answer.row.policy), (f"{at}/b", at, policy))
        stream.close()

    def test_a_watch_shows_it(self):
        at = f"{self.domain}/a"
        with self.started("watch", self.domain) as watch:
            watch.wait_for_line("SNAPSHOT END")
            self.dw("policy", "set", at, "ordered")
            watch.wait_for_line(rf"^\S+ = {at} policy ordered$")
            self.dw("policy", "unset", at)
            watch.wait_for_line(rf"^\S+ = {at} policy unset$")

    def test_the_client_library_obeys_a_change(self):
        at = f"{self.domain}/feed"
        with self.started("receive", at) as first:
            first.wait_for_line("listening on", stream="stderr")
            eventually(lambda: self.dw("resolve", at).code == 0)
            with self.started("receive", at) as second:
                second.wait_for_line("listening on", stream="stderr")
                eventually(lambda: len(self.dw("resolve", at, "-o", "short").stdout.split()) == 2)

                def share():
                    before = [len(one.output().splitlines()) for one in (first, second)]
                    self.one_line(self.dw("send", at, stdin="".join(f"{n}\n" for n in range(400))), 0, "400 of 400")
                    return [len(one.output().splitlines()) - had for one, had in zip((first, second), before)]

                eventually(lambda: min(share()) > 0, 60, "both get some")
                self.dw("policy", "set", at, "ordered")
                self.assertEqual(share(), [400, 0])
                self.dw("policy", "unset", at)
                eventually(lambda: min(share()) > 0, 60, "both get some")
                for one in (first, second):
                    one.kill(signal.SIGINT)
                    self.assertEqual(one.wait(20), 130)


class Sessions(Case):
    def only(self, address):
        """The id of the one session that holds something at the address."""
        held = [one["id"] for one in self.json("session", "list")
                if any(r["address"] == address for r in self.json("session", "show", one["id"]).get("registered", []))]
        self.assertEqual(len(held), 1)
        return held[0]

    def test_list_and_show_in_every_format(self):
        at = f"{self.domain}/held"
        with self.started("register", at, ONE) as held:
            held.wait_for_line("^registered")
            session_id = self.only(at)
            shown = self.json("session", "show", session_id)
            self.assertEqual((shown["state"], shown["pid"], shown["attached"], shown["ttl_ms"], shown["registrations"]),
                             ("up", held.pid, True, 15000, 1))
            self.assertEqual(shown["registered"], [{"address": at, "url": ONE}])
            self.assertNotIn("secret", self.dw("session", "show", session_id, "-o", "json").stdout)
            self.assertRegex(self.dw("session", "show", session_id).stdout, rf"(?m)^registered +{at} {ONE}$")
            self.assertEqual(self.dw("session", "show", session_id, "-o", "name").stdout, session_id + "\n")
            heading, *rows = [line.split() for line in self.dw("session", "list").stdout.splitlines()]
            self.assertEqual(heading, ["ID", "STATE", "PROGRAM", "HOST", "PID", "REGISTRATIONS", "SEEN"])
            self.assertIn([session_id, "up", "dw", str(held.pid), "1"], [row[:3] + row[4:6] for row in rows])
            self.assertIn("ATTACHED", self.dw("session", "list", "-o", "wide").stdout)
            self.assertIn(session_id, self.dw("session", "list", "-o", "short").stdout.split())
            self.assertEqual([json.loads(line)["id"] for line in self.dw("session", "list", "-o", "jsonl").stdout.splitlines()],
                             [row[0] for row in rows])
            held.kill(signal.SIGINT)
            self.assertEqual(held.wait(20), 130)
        shown = self.json("session", "show", session_id)
        self.assertEqual((shown["state"], shown["reason"]), ("ended", "CLOSED"))

    def test_end_takes_it_away_and_its_holder_opens_a_new_one(self):
        at = f"{self.domain}/held"
        with self.started("register", at, ONE) as held:
            held.wait_for_line("^registered")
            former = self.only(at)
            self.assertRegex(self.dw("session", "end", former).stdout, rf"^ended {former}  revision \d+:\d+\n$")
            shown = self.json("session", "show", former)
            self.assertEqual((shown["state"], shown["reason"]), ("ended", "ENDED"))
            self.assertRegex(shown["by"], r"^127\.0\.0\.1:\d+$")
            self.assertEqual(self.dw("resolve", at, "--wait", "20s").code, 0)
            self.assertNotEqual(self.only(at), former)
            self.one_line(self.dw("session", "end", former), 2, former)
            held.kill(signal.SIGINT)
            self.assertEqual(held.wait(20), 130)

    def test_a_tether_is_told_why(self):
        tether = self.api.tether(host="h", program="p")
        session_id = tether.receive().welcome.session_id
        self.assertEqual(self.dw("session", "end", session_id.hex(), "-o", "name").code, 0)
        ended = tether.receive().ended
        self.assertEqual((ended.reason, ended.refusal.code), ("ended", pb.SESSION_EXPIRED))
        self.assertIn("operator", ended.refusal.message)

    def test_what_is_no_session_is_refused(self):
        self.one_line(self.dw("session", "show", "ab"), 1, "`ab`", "32 digits")
        self.one_line(self.dw("session", "show", "0" * 32), 2, "0" * 32)
        self.one_line(self.dw("session", "stop", "0" * 32), 1, "`stop`", "list, show, end, release-brake")
        self.one_line(self.dw("session", "end"), 1, "takes the ID")
        self.one_line(self.dw("session", "list", "x"), 1, "no argument")
        self.one_line(self.dw("session", "release-brake"), 1, "the brake is off")


class Drains(Case):
    def states(self, address):
        shown = json.loads(self.dw("resolve", address, "-o", "json").stdout)
        return {one["url"]: one["state"] for one in shown["endpoints"]}

    def test_an_address_in_every_format_and_its_undo(self):
        at = f"{self.domain}/web"
        self.api.register((at, ONE))
        self.assertRegex(self.dw("drain", at).stdout, rf"^draining {at}  1  revision \d+:\d+\n$")
        self.assertEqual(self.states(at), {ONE: "draining"})
        self.api.register((at, TWO))
        self.assertEqual(self.states(at), {ONE: "draining", TWO: "up"})
        self.assertIn("kept: draining", self.dw("explain", at).stdout)
        self.assertRegex(self.dw("drain", at, "--undo").stdout, rf"^undone {at}  1  revision ")
        self.assertEqual(self.states(at), {ONE: "up", TWO: "up"})
        shown = self.json("drain", at)
        self.assertEqual(list(shown), ["target", "draining", "registrations", "revision", "acknowledged", "waiting"])
        self.assertEqual((shown["target"], shown["registrations"], shown["acknowledged"], shown["waiting"]), (at, 2, None, []))
        self.assertEqual(self.dw("drain", at, "-o", "name").stdout, at + "\n")

    def test_a_session(self):
        tether = self.api.tether(host="h", program="p")
        session_id = tether.receive().welcome.session_id
        for op, name in enumerate(("a", "b"), 1):
            tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=op, registrations=[
                pb.TetherRequest.Registration(address=f"{self.domain}/{name}", endpoint=pb.EndpointSpec(url=ONE))])))
            tether.receive()
        self.assertEqual(self.json("drain", session_id.hex())["registrations"], 2)
        self.assertEqual([self.states(f"{self.domain}/{name}") for name in "ab"], [{ONE: "draining"}] * 2)
        self.assertEqual(self.json("session", "show", session_id.hex())["state"], "draining")
        self.assertEqual(self.dw("drain", session_id.hex(), "--undo").code, 0)
        self.assertEqual([self.states(f"{self.domain}/{name}") for name in "ab"], [{ONE: "up"}] * 2)
        tether.close()

    def test_acknowledged_returns_when_subscribers_have_and_else_says_who_has_not(self):
        at = f"{self.domain}/web"
        self.api.register((at, ONE))
        self.assertEqual(self.json("drain", at, "--acknowledged")["acknowledged"], True)
        self.dw("drain", at, "--undo")
        stream = self.api.subscribe(at)  # reads and never acknowledges
        stream.receive_until(lambda m: m.answers)
        result = self.dw("drain", at, "--acknowledged", "--timeout", "1s", "-o", "json")
        self.one_line(result, 6, at, "1000 ms", "127.0.0.1:")
        shown = json.loads(result.stdout)
        self.assertEqual((shown["acknowledged"], len(shown["waiting"])), (False, 1))
        self.assertEqual(self.states(at), {ONE: "draining"})
        with self.started("drain", at, "--acknowledged", "--timeout", "60s") as drain:
            mark = stream.receive_until(lambda m: m.HasField("mark") and m.mark.revision.number >= shown["revision"]["number"])
            self.assertTrue(drain.running())
            stream.send(pb.SubscribeRequest(acknowledged=mark.mark.revision))
            self.assertEqual(drain.wait(20), 0)
        stream.close()

    def test_a_sender_acknowledges_and_gives_it_no_more(self):
        at = f"{self.domain}/feed"
        with self.started("receive", at) as first:
            first.wait_for_line("listening on", stream="stderr")
            eventually(lambda: self.dw("resolve", at).code == 0)
            script = "for n in $(seq 2000); do echo $n; sleep 0.005; done | \"$dw\" send $at --timeout 60s"
            with Program("/bin/bash", "-c", script, label="sender",
                         env={"dw": programs.binary("dw"), "DATAWIRE_DIRECTORY": self.directory.address, "at": at}) as sender:
                eventually(lambda: len(first.output().splitlines()) > 10)
                with self.started("receive", at) as second:
                    second.wait_for_line("listening on", stream="stderr")
                    eventually(lambda: len(second.output().splitlines()) > 10, 20)
                    session_id = [one["id"] for one in self.json("session", "list") if one["pid"] == first.pid][0]
                    self.assertEqual(self.json("drain", session_id, "--acknowledged", "--timeout", "20s")["acknowledged"], True)
                    had = len(first.output().splitlines())
                    seen = len(second.output().splitlines())
                    eventually(lambda: len(second.output().splitlines()) > seen + 50, 20)
                    self.assertLessEqual(len(first.output().splitlines()) - had, 1)  # one that was under way
                    self.assertEqual(sender.wait(60), 0)
                    second.kill(signal.SIGINT)
                    self.assertEqual(second.wait(20), 130)
            first.kill(signal.SIGINT)
            self.assertEqual(first.wait(20), 130)

    def test_what_cannot_be_drained_is_refused(self):
        self.one_line(self.dw("drain", f"{self.domain}/none"), 2, f"{self.domain}/none")
        self.one_line(self.dw("drain", "0" * 32), 2, "0" * 32)
        self.one_line(self.dw("drain", "web"), 1, "`web`", "neither an address")
        self.one_line(self.dw("drain", f"{self.domain}/a", "--acknowledged", "--timeout", "11m"), 1, "--timeout", "10m")


class Histories(Case):
    def test_what_happened_when_and_by_whom_in_every_format(self):
        at = f"{self.domain}/web"
        with self.started("register", at, ONE) as held:
            held.wait_for_line("^registered")
            self.dw("drain", at)
            self.dw("policy", "set", at, "ordered")
            held.kill(signal.SIGINT)
            self.assertEqual(held.wait(20), 130)
        shown = self.json("history", at)
        self.assertEqual(list(shown), ["address", "complete_after", "entries"])
        self.assertEqual([(one["what"], one["reason"]) for one in shown["entries"]],
                         [("registered", ""), ("draining", "DRAINED"), ("policy ordered", ""), ("closed", "CLOSED")])
        for one in shown["entries"]:
            self.assertRegex(one["by"], r"^127\.0\.0\.1:\d+$")
            self.assertLess(abs(one["at_wall_ms"] / 1000 - time.time()), 300)
        self.assertEqual([one["endpoint"] and one["endpoint"]["url"] for one in shown["entries"]], [ONE, ONE, None, ONE])
        heading, *rows = [line.split() for line in self.dw("history", at).stdout.splitlines()]
        self.assertEqual(heading, ["TIME", "REVISION", "WHAT", "ENDPOINT", "REASON", "BY"])
        self.assertRegex(rows[0][0], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(rows[1][2:5], ["draining", ONE, "DRAINED"])
        self.assertEqual([json.loads(line) for line in self.dw("history", at, "-o", "jsonl").stdout.splitlines()], shown["entries"])
        self.assertEqual(self.dw("history", at, "-o", "short").stdout.splitlines(), [one["what"] for one in shown["entries"]])
        self.assertIn("INSTANCE", self.dw("history", at, "-o", "wide").stdout)

    def test_an_expiry_and_an_ended_session_are_told(self):
        at = f"{self.domain}/web"
        silent, kept = self.api.tether(ttl_ms=3000), self.api.tether(host="h")
        ids = []
        for tether, url in ((silent, ONE), (kept, TWO)):
            ids.append(tether.receive().welcome.session_id)
            tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=1, registrations=[
                pb.TetherRequest.Registration(address=at, endpoint=pb.EndpointSpec(url=url))])))
            self.assertFalse(tether.receive().done.HasField("refusal"))
        eventually(lambda: len(self.api.history(at).entries) == 3, 20, "the silent one expires")
        self.dw("session", "end", ids[1].hex())
        self.assertEqual([(one["what"], one["endpoint"]["url"]) for one in self.json("history", at)["entries"]],
                         [("registered", ONE), ("registered", TWO), ("expired", ONE), ("ended", TWO)])

    def test_nothing_known_is_2(self):
        self.one_line(self.dw("history", f"{self.domain}/none"), 2, f"{self.domain}/none")
        shown = self.json("history", f"{self.domain}/none", code=2)
        self.assertEqual(shown["entries"], [])
        self.one_line(self.dw("history", "none"), 1, "`none`")


class Brake(Case):
    def test_it_is_shown_and_released(self):
        tethers = [self.api.tether(ttl_ms=3000) for _ in range(12)]
        for tether in tethers:
            self.assertTrue(tether.receive().HasField("welcome"))
        eventually(lambda: self.json("status")["brake_on"], 20, "12 of 12 sessions fall silent")
        # On a busy machine they were opened one after the other, and the first few are within the budget: they have expired.
        listed = self.json("session", "list")
        self.assertEqual({one["state"] for one in listed}, {"suspect"})
        self.assertRegex(self.dw("status").stdout, r"(?m)^brake_on +true$")
        self.assertEqual(self.json("session", "release-brake"), {"sessions_suspect": len(listed)})
        eventually(lambda: self.json("status")["sessions"] == 2, 20, "the budget of 10 ends")


if __name__ == "__main__":
    cases.main()
