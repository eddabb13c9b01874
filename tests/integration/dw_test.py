"""dw: each verb against a real directory. What is printed where, and every exit code."""

import concurrent.futures
import json
import os
import re
import shlex
import signal
import socket
import time

import grpc

from harness import cases, programs
from harness.api import Api, pb, WithDirectory
from harness.programs import Directory, Program, dw, dw_json, eventually

VERBS = ("resolve", "list", "tree", "watch", "register", "withdraw", "send", "receive", "request", "explain", "status",
         "policy", "session", "drain", "history", "export", "import", "snapshot", "doctor", "bench", "cache", "completion",
         "version")
ASKING = (["resolve", "//a/b"], ["list"], ["tree"], ["watch"], ["register", "//a/b", "amqp://127.0.0.1:1"],
          ["register", "--static", "//a/b", "amqp://127.0.0.1:1"], ["withdraw", "//a/b"], ["send", "//a/b", "x"],
          ["receive", "//a/b"], ["request", "//a/b", "x"], ["explain", "//a/b"], ["status"], ["policy", "get", "//a/b"],
          ["policy", "set", "//a/b", "ordered"], ["session", "list"], ["session", "end", "0" * 32], ["session", "release-brake"],
          ["drain", "//a/b"], ["history", "//a/b"], ["export"], ["import", "/nonexistent"], ["snapshot", "save", "/tmp/none/none"],
          ["bench", "fill"])
NOWHERE = "127.0.0.1:1"
# DESIGN.md, "The tools": the documented shape.
DOCUMENTED = """{"address": "//demo/upper", "status": "FOUND", "matched": "//demo/upper", "policy": "balanced",
 "revision": {"epoch": 1, "number": 42}, "modified": {"epoch": 1, "number": 40},
 "age_ms": 3, "stale": false, "ttl_ms": 30000, "source": "directory",
 "endpoints": [{"url": "amqp://127.0.0.1:45211", "state": "up", "priority": 0, "weight": 100, "region": "", "zone": "",
                "labels": {}, "static": false}]}"""


class Session(Program):
    """A verb that waits: receive, register, watch, send."""

    def __init__(self, directory, *args, label=None):
        at = directory if isinstance(directory, str) else directory.address
        super().__init__("dw", "--directory", at, *args, label=label or f"dw-{args[0]}")

    def interrupted(self, how):
        self.kill(how)
        return self.wait(20)


class Case(WithDirectory, cases.TestCase):
    """One directory for the class; each test has its own domain."""
    counter = 0

    def setUp(self):
        Case.counter += 1
        self.domain = f"//t{Case.counter}"

    def dw(self, *args, **options):
        return dw(*args, directory=self.directory, **options)

    def shell(self, script, code=0, deadline=60):
        """A bash script with $dw, $directory and $domain; (stdout, stderr)."""
        with Program("/bin/bash", "-c", script, label="script", cwd=self.scratch(),
                     env={"dw": programs.binary("dw"), "DATAWIRE_DIRECTORY": self.directory.address,
                          "domain": self.domain}) as program:
            self.assertEqual(program.wait(deadline), code, program.tail())
            return program.output("stdout"), program.output("stderr")

    def receiver(self, *args, name="feed"):
        return Session(self.directory, "receive", f"{self.domain}/{name}", *args)

    def url_of(self, receiver):
        return receiver.wait_for_line(r"listening on (\S+)", 30, "stderr").group(1)


class Answers(Case):
    def test_json_of_an_answer_is_the_documented_object_key_by_key(self):
        documented = json.loads(DOCUMENTED)
        self.api.register((f"{self.domain}/upper", "amqp://127.0.0.1:45211"))
        answer = json.loads(self.dw("resolve", f"{self.domain}/upper", "-o", "json").stdout)

        def compare(shown, model, at):
            self.assertEqual(type(shown), type(model), at)
            if isinstance(model, dict):
                self.assertEqual(list(shown), list(model), at)
                for key in model:
                    compare(shown[key], model[key], f"{at}.{key}")
            elif isinstance(model, list):
                for one in shown:
                    compare(one, model[0], f"{at}[]")

        compare(answer, documented, "answer")
        self.assertEqual(answer["endpoints"], [{**documented["endpoints"][0], "static": True}])
        same = ("status", "policy", "stale", "ttl_ms", "source")
        self.assertEqual([answer[key] for key in same], [documented[key] for key in same])
        self.assertEqual((answer["address"], answer["matched"]), (f"{self.domain}/upper",) * 2)

    def test_several_addresses_are_an_array_in_their_order_and_jsonl_a_line_each(self):
        self.api.register((f"{self.domain}/b", "amqp://127.0.0.1:1"), (f"{self.domain}/a", "amqp://127.0.0.1:2"))
        wanted = [f"{self.domain}/b", f"{self.domain}/a"]
        array = dw_json("resolve", *wanted, directory=self.directory)
        self.assertEqual([one["address"] for one in array], wanted)
        lines = self.dw("resolve", *wanted, "-o", "jsonl").stdout.splitlines()
        self.assertEqual([json.loads(line)["address"] for line in lines], wanted)

    def test_an_unknown_address_is_2_with_one_line_and_a_negative_in_json(self):
        for form in ("table", "wide", "short", "name", "json", "jsonl"):
            result = self.dw("resolve", f"{self.domain}/none", "-o", form)
            self.one_line(result, 2, f"{self.domain}/none", "NOT_FOUND")
        self.assertEqual(self.dw("resolve", f"{self.domain}/none", "-o", "short").stdout, "")
        negative = dw_json("resolve", f"{self.domain}/none", directory=self.directory, code=2)
        self.assertEqual(list(negative), list(json.loads(DOCUMENTED)))
        self.assertEqual((negative["status"], negative["matched"], negative["endpoints"]), ("NOT_FOUND", None, []))

    def test_formats_of_resolve(self):
        at = f"{self.domain}/x"
        self.api.register((at, "amqp://127.0.0.1:1/q"), priority=3, weight=7, region="eu", zone="eu-1", labels={"k": "v"})
        table = self.dw("resolve", at).stdout.splitlines()
        self.assertRegex(table[0], rf"^{at}  FOUND  balanced  revision \d+:\d+  age \d+ ms$")
        self.assertEqual([line.split() for line in table[1:]],
                         [["ENDPOINT", "STATE", "PRIORITY", "WEIGHT"], ["amqp://127.0.0.1:1/q", "up", "3", "7"]])
        self.assertEqual(self.dw("resolve", at, "-o", "wide").stdout.splitlines()[2].split(),
                         ["amqp://127.0.0.1:1/q", "up", "3", "7", "eu", "eu-1", "yes", "k=v"])
        self.assertEqual(self.dw("resolve", at, "-o", "short").stdout, "amqp://127.0.0.1:1/q\n")
        self.assertEqual(self.dw("resolve", at, "-o", "name").stdout, at + "\n")

    def test_only_draining_is_3_for_resolve_and_send(self):
        at = f"{self.domain}/leaving"
        tether = self.api.tether(host="h", program="p")
        tether.receive()
        tether.send(pb.TetherRequest(register=pb.TetherRequest.Register(op_id=1, registrations=[
            pb.TetherRequest.Registration(address=at, endpoint=pb.EndpointSpec(url="amqp://127.0.0.1:9"))])))
        tether.receive()
        tether.send(pb.TetherRequest(drain=pb.TetherRequest.Drain(op_id=2)))
        tether.receive()
        result = self.dw("resolve", at, "-o", "json")
        self.one_line(result, 3, "NO_ENDPOINT")
        self.assertEqual([one["state"] for one in json.loads(result.stdout)["endpoints"]], ["draining"])
        self.one_line(self.dw("send", at, "x"), 3, "NO_ENDPOINT")
        tether.close()

    def test_wait_ends_as_soon_as_the_address_is_there(self):
        with Session(self.directory, "resolve", f"{self.domain}/late", "--wait", "60s", "-o", "short") as waiting:
            self.api.register((f"{self.domain}/late", "amqp://127.0.0.1:1"))
            self.assertEqual(waiting.wait(30), 0)
            self.assertEqual(waiting.output(), "amqp://127.0.0.1:1\n")

    def test_global_flags_go_before_or_after_the_verb(self):
        for args in (["-o", "json", "status"], ["status", "-o", "json"], ["status", "-ojson"], ["status", "--output=json"]):
            self.assertEqual(json.loads(self.dw(*args).stdout)["node"], "n1", args)
        result = dw("status", "--timeout", "5s", "--wait", "0s", "-o", "name", "--directory", self.directory.address)
        self.assertEqual((result.code, result.stdout), (0, "n1\n"))

    def test_list_and_tree_in_every_format(self):
        self.api.register((f"{self.domain}/a/b", "amqp://127.0.0.1:1"), (f"{self.domain}/c", "amqp://127.0.0.1:2"))
        lines = self.dw("list", self.domain).stdout.splitlines()
        self.assertEqual([re.split(r"\s{2,}", line) for line in lines],
                         [["ADDRESS", "STATUS", "ENDPOINTS", "POLICY"],
                          [f"{self.domain}/a/b", "FOUND", "1 up of 1", "balanced"],
                          [f"{self.domain}/c", "FOUND", "1 up of 1", "balanced"]])
        self.assertIn("SUBTREE", self.dw("list", self.domain, "-o", "wide").stdout)
        self.assertEqual(self.dw("tree", self.domain).stdout.splitlines(),
                         [self.domain, "  /a", "    /b  FOUND  1 up of 1", "  /c  FOUND  1 up of 1"])
        self.assertIn("\n        amqp://127.0.0.1:1 up\n", self.dw("tree", self.domain, "-o", "wide").stdout)
        for verb in ("list", "tree"):
            self.assertEqual(self.dw(verb, self.domain, "-o", "short").stdout, "amqp://127.0.0.1:1\namqp://127.0.0.1:2\n")
            self.assertEqual(self.dw(verb, self.domain, "-o", "name").stdout, f"{self.domain}/a/b\n{self.domain}/c\n")
            array = dw_json(verb, self.domain, directory=self.directory)
            self.assertEqual([(one["address"], one["total"], one["endpoints"][0]["state"]) for one in array],
                             [(f"{self.domain}/a/b", 1, "up"), (f"{self.domain}/c", 1, "up")])
            self.assertEqual([json.loads(line) for line in self.dw(verb, self.domain, "-o", "jsonl").stdout.splitlines()], array)
            self.assertEqual(self.dw(verb, f"{self.domain}/nothing", "-o", "json").stdout, "[]\n")

    def test_thousands_of_addresses_are_all_listed_over_pages(self):
        names = [f"{self.domain}/n/{i:04d}" for i in range(2500)]
        for i in range(0, len(names), 50):
            self.api.register(*[(name, "amqp://127.0.0.1:1") for name in names[i:i + 50]])
        self.assertEqual(self.dw("list", self.domain, "-o", "name").stdout.splitlines(), names)
        self.assertEqual(len(self.dw("tree", self.domain).stdout.splitlines()), len(names) + 2)

    def test_explain_names_candidates_and_steps(self):
        self.api.register((f"{self.domain}/sub", "amqp://127.0.0.1:1"), match=pb.MATCH_SUBTREE)
        shown = dw_json("explain", f"{self.domain}/sub/deep", directory=self.directory)
        self.assertEqual(shown["answer"]["matched"], f"{self.domain}/sub")
        self.assertEqual([(one["at"], one["kept"], one["endpoint"]["url"]) for one in shown["candidates"]],
                         [(f"{self.domain}/sub", True, "amqp://127.0.0.1:1")])
        self.assertTrue(shown["steps"])
        text = self.dw("explain", f"{self.domain}/sub/deep").stdout
        for part in ("matched", "from node n1", "CANDIDATE", "static"):
            self.assertIn(part, text)
        self.one_line(self.dw("explain", f"{self.domain}/other"), 2, "NOT_FOUND")

    def test_status_and_version(self):
        status = dw_json("status", directory=self.directory)
        self.assertEqual((status["node"], status["engine"], status["healthy"]), ("n1", "embedded", True))
        self.assertEqual(list(status["revision"]), ["epoch", "number"])
        self.assertRegex(self.dw("status").stdout, r"(?m)^node +n1$")
        alone = dw_json("status", "--cluster", directory=self.directory)
        self.assertEqual([(node["id"], node["state"], node["lag"]) for node in alone["nodes"]], [("n1", "healthy", 0)])
        self.assertEqual(alone["etcd"], [])
        for form in ("json", "jsonl"):
            self.assertEqual(list(json.loads(dw("version", "-o", form, directory=NOWHERE).stdout)), ["version"])
        self.assertRegex(dw("version", env={"DATAWIRE_DIRECTORY": "garbage"}).stdout, r"^dw \d+\.\d+\.\d+\n$")


class Registrations(Case):
    def test_register_static_and_withdraw_in_every_format(self):
        at, url = f"{self.domain}/s", "amqp://127.0.0.1:5672"
        shown = dw_json("register", "--static", at, "amqp://127.0.0.1", directory=self.directory)
        self.assertEqual((list(shown), shown["url"], shown["static"]), (["address", "url", "static", "revision"], url, True))
        gone = dw_json("withdraw", at, url, directory=self.directory)
        self.assertEqual((list(gone), gone["withdrawn"]), (["address", "url", "withdrawn", "revision"], 1))
        self.assertEqual(self.dw("resolve", at).code, 2)
        for form, registered, withdrawn in (("table", f"registered {at} {url}\n", f"withdrawn {at} {url}  1  revision "),
                                            ("short", url + "\n", url + "\n"), ("name", at + "\n", at + "\n")):
            self.assertEqual(self.dw("register", "--static", at, url, "-o", form).stdout, registered)
            self.assertTrue(self.dw("withdraw", at, url, "-o", form).stdout.startswith(withdrawn), form)

    def test_flags_of_register_arrive(self):
        at = f"{self.domain}/flags"
        self.assertEqual(self.dw("register", "--static", "--subtree", at, "amqp://127.0.0.1:1", "--priority", "2", "--weight", "0",
                                 "--region", "eu", "--zone", "z", "--label", "a=b", "--label", "c=").code, 0)
        answer = dw_json("resolve", at + "/below", directory=self.directory)
        self.assertEqual(answer["endpoints"], [{"url": "amqp://127.0.0.1:1", "state": "up", "priority": 2, "weight": 0,
                                                "region": "eu", "zone": "z", "labels": {"a": "b", "c": ""}, "static": True}])

    def test_withdrawing_what_is_not_there_is_2_and_changes_nothing(self):
        self.api.register((f"{self.domain}/s", "amqp://127.0.0.1:1"))
        before = self.api.status().revision
        result = self.dw("withdraw", f"{self.domain}/none", "-o", "json")
        self.one_line(result, 2, f"{self.domain}/none")
        self.assertEqual(json.loads(result.stdout)["withdrawn"], 0)
        self.one_line(self.dw("withdraw", f"{self.domain}/s", "amqp://127.0.0.1:2"), 2, "amqp://127.0.0.1:2")
        self.assertEqual(self.api.status().revision, before)

    def test_a_session_holds_its_registration_until_interrupted(self):
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with Session(self.directory, "register", f"{self.domain}/held", "amqp://127.0.0.1:7") as held:
                held.wait_for_line(f"^registered {self.domain}/held amqp://127.0.0.1:7$", 30)
                self.assertFalse(dw_json("resolve", f"{self.domain}/held", directory=self.directory)["endpoints"][0]["static"])
                # Somebody else's plain withdraw does not reach it, and says what would.
                self.one_line(self.dw("withdraw", f"{self.domain}/held"), 2, "--sessions")
                self.assertEqual(self.dw("resolve", f"{self.domain}/held").code, 0)
                self.assertEqual(held.interrupted(how), 130)
            self.assertEqual(self.dw("resolve", f"{self.domain}/held").code, 2)  # at once, not after a TTL

    def test_withdraw_sessions_takes_a_session_s_registration(self):
        with Session(self.directory, "register", f"{self.domain}/held", "amqp://127.0.0.1:7") as held:
            held.wait_for_line("^registered ", 30)
            self.assertEqual(dw_json("withdraw", f"{self.domain}/held", "--sessions", directory=self.directory)["withdrawn"], 1)
            self.assertEqual(self.dw("resolve", f"{self.domain}/held").code, 2)
            self.assertEqual(held.interrupted(signal.SIGINT), 130)

    def test_a_registration_outlives_the_reader_of_its_output(self):
        self.shell('"$dw" register $domain/kept amqp://127.0.0.1:7 > >(head -c 0) & holder=$!\n'
                   '"$dw" resolve $domain/kept --wait 30s -o name; sleep 0.5; "$dw" resolve $domain/kept -o name || exit 9\n'
                   'kill $holder; wait $holder; [ $? = 130 ]')

    def test_register_lives_as_long_as_its_command(self):
        with Session(self.directory, "register", f"{self.domain}/web", "amqp://127.0.0.1:7", "--", "/bin/sh", "-c",
                     f"'{programs.binary('dw')}' --directory {self.directory.address} resolve {self.domain}/web --wait 30s -o name;"
                     " exit 7") as program:
            self.assertEqual(program.wait(40), 7)
            self.assertEqual(program.output(), f"{self.domain}/web\n")  # stdout is the command's
        self.assertEqual(self.dw("resolve", f"{self.domain}/web").code, 2)
        self.one_line(self.dw("register", f"{self.domain}/web", "amqp://127.0.0.1:7", "--", "/nonexistent"), 1, "/nonexistent")
        with Session(self.directory, "register", f"{self.domain}/web", "amqp://127.0.0.1:7", "--", "sleep", "1000") as program:
            program.wait_for_line("registered", 30, "stderr")
            self.assertEqual(program.interrupted(signal.SIGTERM), 130)  # and the command with it: nothing is left running

    def test_check_tcp_registers_only_while_the_port_answers(self):
        with socket.socket() as port:
            port.bind(("127.0.0.1", 0))
            at, url = f"{self.domain}/checked", f"amqp://127.0.0.1:{port.getsockname()[1]}"
            with Session(self.directory, "register", at, url, "--check", "tcp") as held:
                held.wait_for_line("registered once it answers", 30, "stderr")
                self.assertEqual(self.dw("resolve", at).code, 2)
                port.listen(16)
                held.wait_for_line("^registered", 30)
                self.assertEqual(self.dw("resolve", at).code, 0)
                port.close()
                held.wait_for_line("withdrawn until it answers", 30, "stderr")
                eventually(lambda: self.dw("resolve", at).code == 2, 10, "it is withdrawn")
                self.assertEqual(held.interrupted(signal.SIGINT), 130)


class Messages(Case):
    def test_arguments_and_lines_arrive_once_each_in_order(self):
        with self.receiver() as receiver:
            self.url_of(receiver)
            at = f"{self.domain}/feed"
            self.one_line(self.dw("send", at, "one", "two", "list", ""), 0, "4 of 4 accepted")
            self.one_line(self.dw("send", at, "--", "-dash", "--wait"), 0, "2 of 2 accepted")
            self.one_line(self.dw("send", at, stdin="a\n\nlast without an end"), 0, "3 of 3 accepted")
            self.one_line(self.dw("send", at, stdin=""), 0, "0 of 0 accepted")
            numbers = [str(i) for i in range(3000)]
            self.one_line(self.dw("send", at, stdin="\n".join(numbers) + "\n"), 0, "3000 of 3000 accepted")
            self.assertEqual(receiver.output().split("\n")[:-1],
                             ["one", "two", "list", "", "-dash", "--wait", "a", "", "last without an end", *numbers])
            self.assertEqual(receiver.interrupted(signal.SIGINT), 130)
            self.assertEqual(len(receiver.output("stderr").splitlines()), 1)

    def test_outcomes_in_json_are_a_line_each(self):
        with self.receiver() as receiver:
            url = self.url_of(receiver)
            for form in ("json", "jsonl"):
                lines = self.dw("send", f"{self.domain}/feed", "x", "y", "-o", form).stdout.splitlines()
                self.assertEqual([json.loads(line) for line in lines],
                                 [{"message": n, "outcome": "ACCEPTED", "peer": url, "condition": "", "description": "",
                                   "attempts": 1} for n in (1, 2)])

    def test_two_receivers_share_and_the_kill_of_one_loses_nothing(self):
        with self.receiver() as first, self.receiver() as second:
            self.url_of(first), self.url_of(second)
            eventually(lambda: len(self.dw("resolve", f"{self.domain}/feed", "-o", "short").stdout.split()) == 2, 20)
            numbers = {str(i) for i in range(60_000)}
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                sending = pool.submit(self.dw, "send", f"{self.domain}/feed", "--timeout", "20s", stdin="".join(f"{n}\n" for n in numbers))
                eventually(lambda: os.path.getsize(first.path("stdout")) > 1000, 30, "the first has got some")
                first.kill9()
                result = sending.result(60)
            self.one_line(result, 0, "60000 of 60000 accepted")
            self.assertLessEqual(numbers, set(first.output().split("\n")) | set(second.output().split("\n")))

    def test_what_is_not_utf_8_or_too_long_is_refused_and_the_rest_is_sent(self):
        with self.receiver() as receiver:
            self.url_of(receiver)
            _, told = self.shell(r'printf "good\n\xff\xfe\nalso good\n" | "$dw" send $domain/feed', code=1)
            self.assertEqual(len(told.splitlines()), 1)
            self.assertRegex(told, r"2 of 3 accepted; message 2: .*not UTF-8.*`\\xff\\xfe`")
            _, told = self.shell('(head -c 1100000 /dev/zero | tr "\\0" x; echo; echo after) | "$dw" send $domain/feed', code=1)
            self.assertRegex(told, r"1 of 2 accepted; message 1: .*1048576 bytes")
            self.one_line(self.dw("request", f"{self.domain}/feed", "\udcff"), 1, "UTF-8", "`\\xff`")
            self.assertEqual(receiver.output(), "good\nalso good\nafter\n")

    def test_a_stdin_that_cannot_be_read_is_said(self):
        with self.receiver() as receiver:
            self.url_of(receiver)
            for source in ("<&-", "< /"):
                _, told = self.shell(f'"$dw" send $domain/feed {source}', code=1)
                self.assertEqual(len(told.splitlines()), 1)
                self.assertIn("stdin cannot be read", told)

    def test_one_line_a_message_whatever_is_in_it(self):
        with self.receiver() as receiver, self.receiver("-o", "jsonl", name="json") as in_json:
            self.url_of(receiver), self.url_of(in_json)
            body = "ünï\ttab\nline\x1b[31m\x7f\u0085 \\ 😀"
            for name in ("feed", "json"):
                self.assertEqual(self.dw("send", f"{self.domain}/{name}", body).code, 0)
            self.assertEqual(receiver.output(), "ünï\ttab\\nline\\x1b[31m\\x7f\\xc2\\x85 \\ 😀\n")
            self.assertEqual(json.loads(in_json.output()), {"address": f"{self.domain}/json", "body": body})

    def test_nobody_there_fails_at_once_and_wait_waits(self):
        begin = time.monotonic()
        self.one_line(self.dw("send", f"{self.domain}/none", "x", "--timeout", "60s"), 2, "NOT_FOUND")
        self.one_line(self.dw("request", f"{self.domain}/none", "x", "--timeout", "60s"), 2, "NOT_FOUND")
        self.assertLess(time.monotonic() - begin, 25)
        with Session(self.directory, "send", f"{self.domain}/feed", "x", "--wait", "60s") as sending:
            with self.receiver("--count", "1") as receiver:
                self.assertEqual(sending.wait(40), 0)
                self.assertEqual(receiver.wait(20), 0)
                self.assertEqual(receiver.output(), "x\n")

    def test_a_physical_url_asks_no_directory(self):
        with self.receiver() as receiver:
            url = self.url_of(receiver)
            result = dw("send", f"{url}/{self.domain}/feed", "x", env={"DATAWIRE_DIRECTORY": "garbage"})
            self.one_line(result, 0, "1 of 1 accepted")
        begin = time.monotonic()
        result = dw("send", "amqp://127.0.0.1:1/x", "x", "--timeout", "1s", "-o", "json", directory=NOWHERE)
        self.one_line(result, 8, "NOT_SENT", "127.0.0.1:1", "refused")
        self.assertGreaterEqual(time.monotonic() - begin, 1)
        self.assertEqual(json.loads(result.stdout)["outcome"], "NOT_SENT")
        self.one_line(dw("request", "amqp://127.0.0.1:1/x", "x", "--timeout", "1s"), 6, "127.0.0.1:1")

    def test_a_slow_reader_is_waited_for_as_long_as_it_reads(self):
        # 300 KB at 64 KB/s: longer than --timeout in all, but never without a message settled.
        self.shell('"$dw" receive $domain/feed 2>/dev/null > >(for i in $(seq 400); do head -c 3200 || exit; sleep 0.05; done >/dev/null) &\n'
                   'receiver=$!; "$dw" resolve $domain/feed --wait 30s >/dev/null\n'
                   'body=$(head -c 1500 /dev/zero | tr "\\0" x)\n'
                   'for i in $(seq 200); do echo $body; done | "$dw" send $domain/feed --timeout 2s; code=$?\n'
                   'kill $receiver; wait $receiver; exit $code', deadline=90)

    def test_request_prints_the_reply_and_tells_refusals_from_silence(self):
        at = f"{self.domain}/upper"
        with Program("datawire-example-upper", at, env={"DATAWIRE_DIRECTORY": self.directory.address}):
            result = self.dw("request", at, "hello", "--wait", "30s")
            self.assertEqual((result.code, result.stdout, result.stderr), (0, "HELLO\n", ""))
            self.assertEqual(dw_json("request", at, "hi", directory=self.directory), {"address": at, "body": "HI"})
        with self.receiver() as receiver:
            self.url_of(receiver)
            self.one_line(self.dw("request", f"{self.domain}/feed", "x", "--timeout", "1s"), 8, "1000 ms")

    def test_presettled_says_that_nobody_confirms(self):
        with self.receiver() as receiver:
            self.url_of(receiver)
            self.one_line(self.dw("send", "--presettled", f"{self.domain}/feed", "x"), 0, "1 of 1 sent, which nobody confirms")
            receiver.wait_for_line("^x$", 20)

    def test_receive_ends_after_count_and_when_its_reader_goes(self):
        with self.receiver("--count", "2") as receiver:
            self.url_of(receiver)
            result = self.dw("send", f"{self.domain}/feed", "1", "2", "3", "--timeout", "1s")
            self.one_line(result, 8, "2 of 3 accepted")
            self.assertEqual(receiver.wait(20), 0)
            self.assertEqual(receiver.output(), "1\n2\n")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            ended = pool.submit(self.shell, '"$dw" receive $domain/head | head -1; exit ${PIPESTATUS[0]}')
            self.assertEqual(self.dw("send", f"{self.domain}/head", "x", "--wait", "30s").code, 0)
            self.assertEqual(ended.result(40)[0], "x\n")

    def test_a_waiting_verb_is_interrupted_with_130(self):
        for how in (signal.SIGINT, signal.SIGTERM):
            with self.receiver() as receiver:
                self.url_of(receiver)
                self.assertEqual(receiver.interrupted(how), 130)
            with Session(self.directory, "watch") as watch:
                watch.wait_for_line("SNAPSHOT END", 30)
                self.assertEqual(watch.interrupted(how), 130)
            with Session(self.directory, "resolve", f"{self.domain}/none", "--wait", "100s") as waiting:
                self.assertEqual(self.interrupted_while_it_runs(waiting, how), 130)
            with Session(self.directory, "send", "amqp://127.0.0.1:1/x", "x", "--timeout", "100s") as sending:
                self.assertEqual(self.interrupted_while_it_runs(sending, how), 130)
            self.shell('rm -f in; mkfifo in; "$dw" receive $domain/feed 2>/dev/null & r=$!; "$dw" resolve $domain/feed --wait 30s -o name\n'
                       f'exec 3<>in; "$dw" send $domain/feed <&3 & s=$!; sleep 1; kill -{how.name[3:]} $s; wait $s; c=$?\n'
                       'kill $r; wait $r; [ $c = 130 ]')

    @staticmethod
    def interrupted_while_it_runs(program, how):
        """Signalled once it has its handlers: before, the shell's own rule (128 + number) holds for SIGTERM."""
        def catches():
            with open(f"/proc/{program.pid}/status", encoding="utf-8") as file:
                caught = int(re.search(r"SigCgt:\s*(\S+)", file.read()).group(1), 16)
            return caught >> (how - 1) & 1
        eventually(catches, 20)
        return program.interrupted(how)

    def test_interrupted_while_nobody_reads_its_output(self):
        self.shell('mkfifo pipe; exec 3<>pipe; "$dw" receive $domain/full 2>/dev/null >pipe & r=$!\n'
                   '"$dw" resolve $domain/full --wait 30s -o name; body=$(head -c 4000 /dev/zero | tr "\\0" x)\n'
                   'for i in $(seq 60); do echo $body; done | "$dw" send $domain/full --timeout 1s; sent=$?\n'
                   'kill -INT $r; wait $r; [ $? = 130 ] && [ $sent = 8 ]')


class Watching(Case):
    def test_each_change_is_a_line_in_every_format(self):
        at = f"{self.domain}/w"
        with Session(self.directory, "watch", self.domain, "-o", "jsonl") as in_json, \
                Session(self.directory, "watch", self.domain) as text, \
                Session(self.directory, "watch", self.domain, "-o", "name") as name, \
                Session(self.directory, "watch", self.domain, "-o", "short") as short:
            in_json.wait_for_line("snapshot_end", 30)
            text.wait_for_line("SNAPSHOT END", 30)
            # The other two print no marks: the first change may come to them in the snapshot.
            self.api.register((at, "amqp://127.0.0.1:1"))
            for program, line in ((name, f"^{at}$"), (short, "^amqp://127.0.0.1:1$")):
                program.wait_for_line(line, 30)
            self.api.withdraw((at, "amqp://127.0.0.1:1"))
            text.wait_for_line(rf"^\d+:\d+ - {at} amqp://127.0.0.1:1 WITHDRAWN$", 30)
            self.assertRegex(text.output(), rf"(?m)^\d+:\d+ \+ {at} amqp://127.0.0.1:1 up$")
            in_json.wait_for_line('"gone"', 30)
            events = [json.loads(line) for line in in_json.output().splitlines()]
            self.assertEqual([event["event"] for event in events], ["snapshot_begin", "snapshot_end", "put", "gone"])
            self.assertEqual(list(events[2]), ["revision", "event", "address", "instance", "endpoint", "reason", "by", "at_wall_ms"])
            self.assertEqual((events[3]["address"], events[3]["reason"]), (at, "WITHDRAWN"))
            for program in (in_json, text, name, short):
                self.assertEqual(program.interrupted(signal.SIGINT), 130)

    def test_it_goes_on_after_a_restart_of_the_directory_without_a_gap(self):
        with Directory() as directory:
            with Session(directory, "watch", "-o", "jsonl") as watch:
                watch.wait_for_line("snapshot_end", 30)
                self.assertEqual(dw("register", "--static", "//r/a", "amqp://127.0.0.1:1", directory=directory).code, 0)
                watch.wait_for_line("//r/a", 30)
                directory.restart()
                self.assertEqual(dw("register", "--static", "//r/b", "amqp://127.0.0.1:1", directory=directory).code, 0)
                watch.wait_for_line("//r/b", 30)
                events = [json.loads(line) for line in watch.output().splitlines()]
                self.assertEqual([(event["event"], event.get("address")) for event in events],
                                 [("snapshot_begin", None), ("snapshot_end", None), ("put", "//r/a"), ("put", "//r/b")])
                self.assertIn("connecting again", watch.output("stderr"))
                after = f'{events[2]["revision"]["epoch"]}:{events[2]["revision"]["number"]}'
                with Session(directory, "watch", "--after", after, "-o", "name") as later:
                    later.wait_for_line("//r/b", 30)
                    self.assertEqual(later.output(), "//r/b\n")

    def test_it_ends_when_its_reader_goes(self):
        self.shell('"$dw" watch $domain | head -2; exit ${PIPESTATUS[0]}')  # the two marks: nothing more will come


class Denying(grpc.GenericRpcHandler):
    """A directory that refuses, or answers what is old."""

    def __init__(self, answer):
        self.answer = answer

    def service(self, call):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.answer(call.method, request, context))


class Failing(Case):
    def fake(self, answer):
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[Denying(answer)])
        at = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        return at

    def test_a_directory_that_is_down_is_4_for_every_verb_at_once(self):
        for args in ASKING:
            with self.subTest(args=args):
                begin = time.monotonic()
                result = dw(*args, "--timeout", "60s", directory=NOWHERE)
                self.one_line(result, 4, NOWHERE, "Connection refused")
                self.assertEqual(result.stdout, "")
                self.assertLess(time.monotonic() - begin, 25)

    def test_wait_waits_for_the_directory_and_the_next_server_of_the_list_is_asked(self):
        with Directory() as directory:
            result = dw("status", "-o", "name", directory=f"{NOWHERE},{directory.address}")
            self.assertEqual((result.code, result.stdout, result.stderr), (0, "n1\n", ""))
            directory.stop()
            with Session(directory, "status", "--wait", "60s", "-o", "name") as waiting:
                directory.start_again()
                self.assertEqual(waiting.wait(40), 0)

    def test_a_directory_that_hangs_is_6_at_the_timeout(self):
        with Directory() as directory:
            directory.sigstop()
            begin = time.monotonic()
            self.one_line(dw("status", "--timeout", "700ms", directory=directory), 6, directory.address, "within")
            self.assertTrue(0.7 <= time.monotonic() - begin < 20)
            directory.sigcont()

    def test_denied_is_5_and_overload_4(self):
        def refuse(method, request, context):
            code = grpc.StatusCode.PERMISSION_DENIED if method.endswith("/Resolve") else grpc.StatusCode.RESOURCE_EXHAUSTED
            context.abort(code, "not for you")
        at = self.fake(refuse)
        self.one_line(dw("resolve", "//a/b", directory=at), 5, "not for you")
        self.one_line(dw("status", directory=at), 4, "not for you")

    def test_staler_than_max_stale_is_7(self):
        def old(method, request, context):
            endpoint = pb.Endpoint(url="amqp://127.0.0.1:1", weight=100)
            row = pb.Row(status=pb.ANSWER_STATUS_FOUND, total=1, endpoints=[endpoint])
            return pb.ResolveResponse(answers=[pb.Answer(address="//a/b", matched="//a/b", age_ms=60_000, row=row)]).SerializeToString()
        at = self.fake(old)
        result = dw("resolve", "//a/b", "--max-stale", "59s", "-o", "json", directory=at)
        self.one_line(result, 7, "60000 ms", "59000 ms")
        self.assertEqual(json.loads(result.stdout)["stale"], True)
        self.assertEqual(dw("resolve", "//a/b", "--max-stale", "60s", directory=at).code, 0)

    def test_a_revision_that_is_not_there_yet_is_4(self):
        epoch = self.api.status().revision.epoch
        self.one_line(self.dw("resolve", "//a/b", "--min-revision", f"{epoch}:999999999"), 4, "999999999")


class Usage(Case):
    def test_mistakes_are_1_in_one_line_with_the_value_before_anything_is_asked(self):
        for args, shown in (
                ([], "resolve, list"), (["foo"], "`foo` is no verb"), (["resolve"], "dw resolve ADDRESS..."),
                (["status", "extra"], "`extra`"), (["--bogus", "resolve", "//a/b"], "`--bogus`"),
                (["resolve", "//a/b", "--bogus"], "`--bogus`"), (["resolve", "//a/b", "--static"], "`--static`"),
                (["resolve", "//a/b", "--timeout"], "--timeout"), (["resolve", "//a/b", "--timeout", "5"], "`5`"),
                (["resolve", "//a/b", "--timeout", "0s"], "`0s`"), (["resolve", "//a/b", "--wait", "x"], "`x`"),
                (["resolve", "//a/b", "--wait", "9999h"], "`9999h`"), (["resolve", "//a/b", "-o", "yaml"], "`yaml`"),
                (["resolve", "//a/b", "--min-revision", "7"], "`7`"), (["resolve", "//a/b", "--max-stale", ""], "--max-stale"),
                (["resolve", "//a/b", "--timeout", "1s", "--timeout", "2s"], "--timeout"), (["watch", "--after", "x"], "`x`"),
                (["resolve", "a/b"], "`a/b`"), (["resolve", "//a:1/b"], "no port"), (["resolve", "//a//b"], "`//a//b`"),
                (["resolve", "//a/b", "//a/%41"], "`//a/%41`"), (["list", "x"], "`x`"), (["tree", "//a/../b"], "`//a/../b`"),
                (["explain", "//1.2.3.4/x"], "`//1.2.3.4/x`"), (["send", "http://a/b", "x"], "`http://a/b`"),
                (["send", "amqp://", "x"], "`amqp://`"), (["receive", "amqp://127.0.0.1:1/x"], "amqp://"),
                (["receive", "//a/b", "--count", "-1"], "`-1`"), (["request", "//a/b"], "dw request"),
                (["register", "//a/b"], "dw register"), (["register", "//a/b", "amqp://h:70000"], "70000"),
                (["register", "//a/b", "amqp://h:0"], "amqp://h:0"), (["register", "//a/b", "tcp://h:1"], "`tcp://h:1`"),
                (["register", "--static", "//a/b", "amqp://h", "--weight", "1001"], "`1001`"),
                (["register", "--static", "//a/b", "amqp://h", "--priority", "x"], "`x`"),
                (["register", "--static", "//a/b", "amqp://h", "--label", "novalue"], "`novalue`"),
                (["register", "--static", "//a/b", "amqp://h", "--label", "a=1", "--label", "a=2"], "`a=2`"),
                (["register", "--static", "//a/b", "amqp://h", "--region", "a b"], "`a b`"),
                (["register", "//a/b", "amqp://h", "--ttl", "1d"], "`1d`"), (["register", "//a/b", "amqp://h", "--check", "udp"], "`udp`"),
                (["register", "--static", "//a/b", "amqp://h", "--", "true"], "--static"),
                (["withdraw", "//a/b", "nourl"], "`nourl`"), (["withdraw", "//a/b", "amqp://h", "x"], "`x`")):
            with self.subTest(args=args):
                result = dw(*args, directory=NOWHERE)
                self.one_line(result, 1, shown)
                self.assertEqual(result.stdout, "")

    def test_a_directory_that_is_no_host_and_port_is_1(self):
        for at in ("", ",", "host", "host:x", "127.0.0.1:1,host"):
            self.one_line(dw("status", directory=at), 1, "HOST:PORT")
        self.one_line(dw("status", env={"DATAWIRE_DIRECTORY": "host"}), 1, "$DATAWIRE_DIRECTORY", "`host`")

    def test_a_ttl_out_of_range_and_a_used_port_are_said(self):
        self.one_line(self.dw("register", "//a/b", "amqp://127.0.0.1:1", "--ttl", "1s"), 1, "1000 ms", "3 s to 1 h")
        self.one_line(self.dw("receive", "//a/b", "--listen", self.directory.address), 4, self.directory.address, "in use")
        self.one_line(self.dw("receive", "//a/b", "--listen", "nowhere"), 1, "`nowhere`")
        self.assertEqual(self.dw("resolve", "//a/b").code, 2)

    def test_help_of_every_verb_has_usage_an_example_that_parses_and_the_exit_codes(self):
        top = dw("--help")
        self.assertEqual((top.code, top.stderr), (0, ""))
        for verb in VERBS:
            self.assertRegex(top.stdout, rf"(?m)^  {verb} ")
            page = dw(verb, "--help")
            self.assertEqual((page.code, page.stderr), (0, ""), verb)
            self.assertRegex(page.stdout, rf"(?m)^Usage: dw {verb}\b")
            example = re.search(rf"(?m)^Example: (dw {verb}\b.*)$", page.stdout).group(1)
            tried = dw(*shlex.split(example)[1:], directory=NOWHERE)
            parsed = (2,) if verb == "cache" else (0, 4)  # no such file; nobody there
            self.assertIn(tried.code, parsed, f"{example}: {tried}")
            for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130):
                self.assertRegex(page.stdout, rf"(?m)^  {code} +\w")
                self.assertRegex(top.stdout, rf"(?m)^  {code} +\w")

    def test_a_stdout_that_is_full_or_closed_is_1_and_a_reader_that_goes_is_not(self):
        for target in (">/dev/full", ">&-"):
            _, told = self.shell(f'"$dw" status {target}', code=1)
            self.assertEqual(len(told.splitlines()), 1)
            self.assertIn("stdout cannot be written", told)
        self.shell('"$dw" status -o json | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}')


class Doctor(Case):
    def findings(self, *args, code=0, directory=None):
        found = dw_json("doctor", *args, directory=directory or self.directory, code=code)
        for one in found:
            self.assertEqual(list(one), ["result", "check", "server", "what", "remedy"])
            self.assertEqual(one["remedy"] == "", one["result"] == "ok", one)
        return found

    def test_each_check_is_a_line_and_nothing_fails_where_all_is_well(self):
        found = self.findings()
        self.assertEqual([one["check"] for one in found],
                         ["server", "health", "clock", "version", "files", "disc", "cluster", "files"])
        self.assertEqual([one["check"] for one in found if one["result"] == "fail"], [])
        for check in ("server", "health", "clock", "version"):
            self.assertEqual([one["result"] for one in found if one["check"] == check], ["ok"])
        table = self.dw("doctor")
        self.assertEqual((table.code, table.stderr), (0, ""))
        self.assertRegex(table.stdout, r"(?m)^RESULT +CHECK +SERVER +WHAT$")
        self.assertRegex(table.stdout, rf"(?m)^ok +server +{self.directory.address} +node n1 answers in \d+ ms$")

    def test_a_server_that_is_not_there_or_hangs_fails_and_the_others_are_looked_at(self):
        both = f"{self.directory.address},{NOWHERE}"
        found = self.findings(directory=both, code=4)
        self.assertEqual([(one["check"], one["server"]) for one in found if one["result"] == "fail"], [("server", NOWHERE)])
        self.assertIn(("ok", "disc", self.directory.address),
                      [("ok" if one["result"] != "fail" else "", one["check"], one["server"]) for one in found])
        self.one_line(dw("doctor", directory=NOWHERE), 4, "1 of 2 checks fails")
        self.directory.sigstop()
        try:
            self.assertIn("did not answer", self.findings("--timeout", "500ms", code=4)[0]["what"])
        finally:
            self.directory.sigcont()

    def test_few_open_files_and_two_clusters_are_found(self):
        server = programs.binary("datawire-directory")
        with Program("/bin/bash", "-c", f'ulimit -n 512; exec "{server}" --dev --listen 127.0.0.1:0 --http-listen 127.0.0.1:0',
                     label="few-files") as program:
            at = program.wait_for_line(r"^ready grpc=(\S+)", 30).group(1)
            found = self.findings(directory=at)
            self.assertEqual([one["result"] for one in found if one["check"] == "files"][0], "warn")
            both = self.findings(directory=f"{at},{self.directory.address}", code=4)
            self.assertEqual([one["check"] for one in both if one["result"] == "fail"], ["cluster"])
            self.assertEqual(program.stop(), 0)


if __name__ == "__main__":
    cases.main()
