"""dw and the real server: policies, sessions, drains, history."""

import json
import signal

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

    def one_line(self, result, code, *parts):
        """It ended with `code` and one line on stderr that holds the parts."""
        self.assertEqual(result.code, code, result)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result)
        for part in parts:
            self.assertIn(part, lines[0])

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

                self.assertGreater(min(share()), 0)
                self.dw("policy", "set", at, "ordered")
                self.assertEqual(share(), [400, 0])
                self.dw("policy", "unset", at)
                self.assertGreater(min(share()), 0)
                for one in (first, second):
                    one.kill(signal.SIGINT)
                    self.assertEqual(one.wait(20), 130)


if __name__ == "__main__":
    cases.main()
